"""The region of interest of captures whose scene is known: cameras and points are made here."""

import math
from pathlib import Path

import numpy as np
import pytest

from staf_nerf.captures.capture import Camera, Capture, Photo, SparsePoints
from staf_nerf.captures.region import region_of_interest

WIDTH, HEIGHT, FOCAL = 640, 480, 600.0
HALF_VIEW = HEIGHT / 2 / FOCAL
FAR_AWAY = np.array([448262.31, 5411932.67, 210.5])
"""A place in metres of a survey."""


def looking(eye, direction, up=(0.0, 0.0, 1.0)):
    """A pose at a position, with OpenGL axes."""
    back = -np.asarray(direction, dtype=float) / np.linalg.norm(direction)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], 1)
    return pose


def capture(poses, points=None, **camera):
    values = {"width": WIDTH, "height": HEIGHT, "fx": FOCAL, "fy": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2} | camera
    photos = tuple(Photo(Path(f"{i}.png"), pose, Camera(**values), has_alpha=False) for i, pose in enumerate(poses))
    return Capture("transforms", photos, (), {}, {}, points=None if points is None else SparsePoints(points))


def in_ball(rng, count, center, radius):
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return center + radius * directions * rng.uniform(0, 1, (count, 1)) ** (1 / 3)


OBJECT, SIZE = np.array([1.0, -2.0, 0.5]), 0.7


def ring(rng, angles, distance, height):
    """Cameras that look at the object, aiming a little beside it."""
    eyes = [OBJECT + np.array([distance * math.cos(a), distance * math.sin(a), height]) for a in angles]
    return [looking(eye, OBJECT + rng.normal(0, 0.03, 3) - eye) for eye in eyes]


def turntable(rng):
    return ring(rng, np.linspace(0, 2 * math.pi, 24, endpoint=False), 2.5, 0.8)


def walk_around(rng):
    poses = ring(rng, np.linspace(0, 1.8 * math.pi, 40), 2.5, 0.2)
    for pose in poses:
        pose[:3, 3] += rng.normal(0, 0.2, 3)
    return poses


def one_side(rng):
    return [pose for height in (0.1, 0.7, 1.3) for pose in ring(rng, np.linspace(-0.6, 0.6, 7), 2.5, height)]


def object_with_surroundings(rng):
    """Points on the object, far behind it all around, and on a thing that stands between the cameras."""
    angles = rng.uniform(0, 2 * math.pi, 1500)
    behind = OBJECT + np.stack([12 * np.cos(angles), 12 * np.sin(angles), rng.uniform(-1, 4, 1500)], -1)
    aside = in_ball(rng, 400, OBJECT + np.array([-0.2, 1.9, -0.6]), 0.3)
    return np.concatenate([in_ball(rng, 800, OBJECT, SIZE), behind, aside])


@pytest.mark.parametrize(
    ("made", "arrangement"), [(turntable, "around"), (walk_around, "around"), (one_side, "one-sided")]
)
@pytest.mark.parametrize("with_points", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_cameras_that_look_at_an_object_have_it_as_their_region(made, arrangement, with_points, shift):
    rng = np.random.default_rng(0)
    poses = np.array(made(rng))
    points = object_with_surroundings(rng) if with_points else None
    poses[:, :3, 3] += shift * FAR_AWAY
    found = region_of_interest(capture(poses, None if points is None else points + shift * FAR_AWAY))
    assert found.cameras == arrangement
    assert found.source == ("points" if with_points else "cameras")
    # The cameras aim up to 0.1 beside the object, and points are drawn at random.
    assert np.linalg.norm(found.center - OBJECT - shift * FAR_AWAY) < 0.1
    if with_points:  # of a ball's points, 95 % lie within 0.98 of its radius; the margin is 1.05
        assert found.radius == pytest.approx(SIZE, rel=0.1)
    else:  # what fits into a picture at the object
        assert found.radius == pytest.approx(HALF_VIEW * 2.6, rel=0.1)
    distances = np.linalg.norm(poses[:, :3, 3] - found.center, axis=-1)
    assert (found.nearest, found.farthest) == pytest.approx((distances.min(), distances.max()), rel=1e-6)


def test_wide_lenses_do_not_make_an_object_larger_than_the_circle_of_its_cameras():
    poses = turntable(np.random.default_rng(0))
    wide = region_of_interest(capture(poses, fx=150.0, fy=150.0))
    fisheye = region_of_interest(capture(poses, fx=100.0, fy=100.0, lens="fisheye"))
    for found in (wide, fisheye):
        assert found.radius == pytest.approx(0.5 * math.hypot(2.5, 0.8), rel=0.05)  # half of their distance
        assert found.half_side < found.farthest


def room(rng, count=30):
    """Cameras in the middle part of a room of 6 x 4 x 2.4 around `OBJECT` that look anywhere."""
    poses = []
    for angle in np.linspace(0, 2 * math.pi, count, endpoint=False):
        eye = OBJECT + rng.uniform(-1, 1, 3) * np.array([1.5, 1.0, 0.3])
        poses.append(looking(eye, [math.cos(angle), math.sin(angle), rng.uniform(-0.3, 0.3)]))
    return poses


def walls(rng, count=3000):
    half = np.array([3.0, 2.0, 1.2])
    points = rng.uniform(-1, 1, (count, 3)) * half
    axis = rng.integers(0, 3, count)
    points[np.arange(count), axis] = half[axis] * rng.choice([-1.0, 1.0], count)
    return OBJECT + points


def test_a_room_seen_from_inside_is_the_region_with_its_walls():
    rng = np.random.default_rng(0)
    found = region_of_interest(capture(room(rng), walls(rng)))
    assert (found.cameras, found.source) == ("inside", "points")
    assert np.linalg.norm(found.center - OBJECT) < 0.1  # random points
    assert 3.0 < found.radius < np.linalg.norm([3.0, 2.0, 1.2])  # between the end walls and the corners
    assert not found.focus.inwards


def test_cameras_along_the_walls_that_look_across_an_empty_room_stand_inside():
    rng = np.random.default_rng(0)
    eyes = [OBJECT + np.array([2.5 * math.cos(a), 1.6 * math.sin(a), 0.2]) for a in np.linspace(0, 6, 20)]
    poses = [looking(eye, OBJECT + rng.normal(0, 0.1, 3) - eye) for eye in eyes]
    middle = np.abs((walls(rng) - OBJECT)[:, :2]).max(-1) < 1.5  # a bare floor and ceiling
    found = region_of_interest(capture(poses, walls(np.random.default_rng(0))[~middle]))
    assert found.cameras == "inside"
    assert found.radius > 2.5


def test_a_room_without_points_lies_around_its_cameras():
    rng = np.random.default_rng(0)
    poses = np.array(room(rng))
    found = region_of_interest(capture(poses))
    assert (found.cameras, found.source) == ("inside", "cameras")
    middle = poses[:, :3, 3].mean(0)
    np.testing.assert_allclose(found.center, middle, atol=1e-9)
    assert found.radius > np.linalg.norm(poses[:, :3, 3] - middle, axis=-1).max()


def test_panoramas_stand_inside_whatever_their_axes_are():
    poses = [looking(np.array([x, 0.0, 0.0]), [0.0, 1.0, 0.0]) for x in np.linspace(0, 1, 6)]
    assert region_of_interest(capture(poses, lens="equirectangular")).cameras == "inside"
    assert region_of_interest(capture(poses)).cameras == "forward"


def forward_facing(rng):
    """4 x 5 cameras in a plane that look along y, each turned by a few degrees at random."""
    places = [(x, z) for x in np.linspace(-0.4, 0.4, 5) for z in np.linspace(-0.3, 0.3, 4)]
    return [looking([x, 0.0, z], np.array([0.0, 1.0, 0.0]) + rng.normal(0, 0.05, 3)) for x, z in places]


def test_forward_facing_cameras_have_the_scene_before_them():
    rng = np.random.default_rng(0)
    scene = np.array([0.0, 4.0, 0.0])
    points = in_ball(rng, 800, scene, 1.2)
    sky = np.stack([rng.uniform(-30, 30, 200), np.full(200, 60.0), rng.uniform(-30, 30, 200)], -1)
    found = region_of_interest(capture(forward_facing(rng), np.concatenate([points, sky])))
    assert (found.cameras, found.source) == ("forward", "points")
    assert np.linalg.norm(found.center - scene) < 0.15  # random points
    assert found.radius == pytest.approx(1.2, rel=0.1)


def test_forward_facing_cameras_without_points_look_forward_at_what_they_all_see():
    rng = np.random.default_rng(0)
    poses = np.array(forward_facing(rng))
    found = region_of_interest(capture(poses))
    assert (found.cameras, found.source) == ("forward", "cameras")
    direction = np.array(found.center) / np.linalg.norm(found.center)
    assert direction[1] > math.cos(math.radians(5))  # the cameras are turned by 3 degrees at random
    # All cameras have the middle of the region in their pictures.
    local = np.array([np.linalg.inv(pose) @ np.append(found.center, 1.0) for pose in poses])
    assert (local[:, 2] < 0).all()
    assert (np.hypot(local[:, 0], local[:, 1]) < HALF_VIEW * -local[:, 2]).all()


def strips(rng, ground_below=60.0):
    """A survey: 5 strips of 12 photos that overlap by 70 %, flown to and fro."""
    step = 0.3 * 2 * HALF_VIEW * ground_below
    poses = []
    for row in range(5):
        for column in range(12):
            eye = np.array([column * step, row * step, 0.0]) + rng.normal(0, 0.5, 3)
            heading = (0.0, 1.0 if row % 2 else -1.0, 0.0)
            poses.append(looking(eye, np.array([0.0, 0.0, -1.0]) + rng.normal(0, 0.03, 3), heading))
    return np.array(poses), step


@pytest.mark.parametrize("with_points", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_survey_from_the_air_has_the_ground_below_it(with_points, shift):
    rng = np.random.default_rng(0)
    poses, step = strips(rng)
    poses[:, :3, 3] += shift * FAR_AWAY
    ground = np.array([5.5 * step, 2 * step, -60.0])
    points = rng.uniform(-1, 1, (3000, 3)) * np.array([6.5 * step, 3 * step, 2.0]) + ground + shift * FAR_AWAY
    found = region_of_interest(capture(poses, points if with_points else None))
    assert found.cameras == "strips"
    off = np.abs(found.center - ground - shift * FAR_AWAY)
    # Without points the overlap is a guess that happens to be right here; the position's noise changes the spacing.
    assert off[2] < (2.0 if with_points else 15.0)
    assert off[:2].max() < step  # the mean direction is off by a degree at most
    assert 5.5 * step < found.radius < 10 * step  # the long side of the ground is 13 steps


TURN = [looking([0.0, 0.0, 0.8], [math.cos(a), math.sin(a), -0.3]) for a in np.linspace(0, 6, 14)]


@pytest.mark.parametrize("noise", [0.0, 4e-17, 1e-9])
@pytest.mark.parametrize("place", [np.zeros(3), FAR_AWAY])
def test_a_turn_on_a_tripod_is_one_place(noise, place):
    poses = np.array(TURN)
    poses[:, :3, 3] += place + np.random.default_rng(0).normal(0, noise, (len(poses), 3))
    found = region_of_interest(capture(poses))
    assert found.cameras == "one place"
    assert found.radius > 0


@pytest.mark.parametrize(("motion", "arrangement"), [(0.002, "one place"), (0.2, "inside")])
def test_motion_counts_beside_the_distance_of_the_points(motion, arrangement):
    rng = np.random.default_rng(0)
    poses = np.array(TURN)
    poses[:, :3, 3] += motion * rng.uniform(-1, 1, (len(poses), 3))
    directions = rng.normal(size=(500, 3))
    points = 8.0 * directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    assert region_of_interest(capture(poses, points)).cameras == arrangement


def test_a_tiny_object_is_no_single_place():
    rng = np.random.default_rng(0)
    poses = np.array(one_side(rng))
    poses[:, :3, 3] = 1e-5 * (poses[:, :3, 3] - OBJECT)
    found = region_of_interest(capture(poses))
    assert found.cameras == "one-sided"
    assert np.linalg.norm(found.center) < 1e-6


def test_points_of_two_photos_do_not_count_beside_those_of_more():
    rng = np.random.default_rng(0)
    good, bad = in_ball(rng, 200, OBJECT, SIZE), in_ball(rng, 400, OBJECT + np.array([0.0, 0.0, 0.9]), 0.4)
    seen = [(photo, point) for point in range(600) for photo in range(3 if point < 200 else 2)]
    plain = capture(turntable(rng), np.concatenate([good, bad]))
    points = SparsePoints(np.concatenate([good, bad]), observations=np.array(seen))
    found = region_of_interest(Capture(plain.kind, plain.photos, (), {}, {}, points=points))
    assert np.linalg.norm(found.center - OBJECT) < 0.1
    assert np.linalg.norm(region_of_interest(plain).center - OBJECT) > 0.2


def test_few_points_and_points_that_are_not_finite_are_not_used():
    rng = np.random.default_rng(0)
    points = in_ball(rng, 40, OBJECT, SIZE)
    points[:20] = np.nan
    assert region_of_interest(capture(turntable(rng), points)).source == "cameras"


def test_a_region_keeps_its_shape_in_other_coordinates():
    found = region_of_interest(capture(turntable(np.random.default_rng(0))))
    matrix = np.eye(4)
    matrix[:3, :3] = 0.5 * np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    matrix[:3, 3] = 1.0, 2.0, 3.0
    moved = found.moved(matrix)
    np.testing.assert_allclose(
        moved.center, [1 - found.center[1] / 2, 2 + found.center[0] / 2, 3 + found.center[2] / 2]
    )
    assert (moved.radius, moved.nearest) == pytest.approx((found.radius / 2, found.nearest / 2))
