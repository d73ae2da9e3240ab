import math
import tracemalloc

import numpy as np
import pytest
import torch

from staf_nerf.mesh import extract
from staf_nerf.mesh.extract import extract_mesh

BOX = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
CENTER, RADII = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])


def ball(points):
    return points.norm(dim=-1) - 0.7


def ellipsoid(points):
    """Not a distance, but zero on an ellipsoid off the centre, negative inside."""
    return ((points - CENTER) / RADII).norm(dim=-1, keepdim=True) - 1.0


class Counted:
    def __init__(self, field):
        self.field, self.points = field, 0

    def __call__(self, points):
        self.points += len(points)
        return self.field(points)


@pytest.mark.parametrize("resolution", [7, 33, 100])
def test_a_ball_is_closed_outward_and_of_its_size(resolution):
    made = extract_mesh(ball, bounds=BOX, resolution=resolution, lipschitz=1.0)
    spacing = 2.0 / resolution
    assert made.boundary_edges == 0
    # A chord lies inside of its arc by its square over eight radii; a cell's diagonal bounds it.
    assert made.volume == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=5 * spacing**2)
    np.testing.assert_allclose(np.linalg.norm(made.vertices, axis=-1), 0.7, atol=spacing**2)
    assert ((made.normals * made.corners.mean(1)).sum(-1)[made.areas > 1e-9] > 0).all()


def test_an_ellipsoid_off_the_centre_keeps_its_place_size_and_outward_normals():
    made = extract_mesh(ellipsoid, bounds=BOX, resolution=96)
    voxel = 2.0 / 96
    expected = np.stack([(CENTER - RADII).numpy(), (CENTER + RADII).numpy()])
    np.testing.assert_allclose(made.bounds, expected, atol=voxel)
    assert made.volume == pytest.approx(4 / 3 * math.pi * float(RADII.prod()), rel=0.01)
    assert made.boundary_edges == 0


def test_above_a_level_is_inside_for_a_density():
    made = extract_mesh(lambda x: 5.0 - 4.0 * x.norm(dim=-1), bounds=BOX, resolution=64, level=3.0, inside="above")
    assert made.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.01)


def test_the_box_need_not_be_a_cube_nor_hold_the_whole_surface():
    bounds = np.array([[-1.0, -0.5, 0.0], [1.0, 0.5, 0.9]])
    made = extract_mesh(ball, bounds=bounds, resolution=60, lipschitz=1.0)
    spacing = 2.0 / 60
    assert (made.bounds[0] >= bounds[0] - 1e-9).all()
    assert (made.bounds[1] <= bounds[1] + spacing).all()
    assert made.boundary_edges > 0
    np.testing.assert_allclose(np.linalg.norm(made.vertices, axis=-1), 0.7, atol=spacing**2)


def test_few_points_are_evaluated_each_once_and_the_surface_is_that_of_all():
    sparse, dense = Counted(ball), Counted(ball)
    few = extract_mesh(sparse, bounds=BOX, resolution=128, lipschitz=1.0)
    full = extract_mesh(dense, bounds=BOX, resolution=128, lipschitz=math.inf)
    assert dense.points == 129**3
    assert sparse.points < dense.points / 8
    assert np.array_equal(few.vertices, full.vertices)
    assert len(few.triangles) == len(full.triangles)


def plate(points):
    """Two thirds of a cell of 128 thick, between the planes of every fourth grid point."""
    return ((points - torch.tensor([0.02, 0.1, 0.0])).abs() - torch.tensor([0.005, 0.6, 0.7])).amax(-1)


def thread(points):
    """A helix, two and a half cells of 128 thick."""
    angle = 4.0 * points[:, 2]
    return (points[:, :2] - 0.6 * torch.stack([angle.cos(), angle.sin()], -1)).norm(dim=-1) - 0.02


@pytest.mark.parametrize("distance", [ball, plate, thread])
@pytest.mark.parametrize("steepness", [30.0, 1000.0])
def test_a_surface_is_found_whole_where_nothing_is_known_of_the_slope(distance, steepness):
    sparse, dense = (Counted(lambda x: torch.sigmoid(-steepness * distance(x))) for _ in range(2))
    options = {"bounds": BOX, "resolution": 128, "level": 0.5, "inside": "above"}
    few = extract_mesh(sparse, **options)
    full = extract_mesh(dense, **options, lipschitz=math.inf)
    assert np.array_equal(few.vertices, full.vertices)
    assert np.array_equal(few.triangles, full.triangles)
    assert sparse.points < 0.4 * dense.points  # of which 0.12 are samples


def test_of_a_fine_grid_without_a_known_slope_few_points_are_evaluated():
    counted = Counted(ball)
    made = extract_mesh(counted, bounds=BOX, resolution=400)
    assert made.volume == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=1e-3)
    assert made.boundary_edges == 0
    assert counted.points < 401**3 / 6


def test_two_balls_in_one_layer_and_in_several():
    def both(x):
        centers = torch.tensor([[-0.5, 0.0, -0.6], [0.5, 0.0, 0.6]])
        return (x[:, None] - centers).norm(dim=-1).amin(-1) - 0.3

    made = extract_mesh(both, bounds=BOX, resolution=80, lipschitz=1.0)
    assert made.volume == pytest.approx(2 * 4 / 3 * math.pi * 0.3**3, rel=0.02)
    assert made.boundary_edges == 0


def test_values_of_exactly_zero_leave_no_hole():
    made = extract_mesh(lambda x: x.abs().amax(-1) - 0.5, bounds=BOX, resolution=32, lipschitz=1.0)
    # Its edges are cut by half a cell's square along a length of 12.
    assert made.volume == pytest.approx(1.0 - 12 * (2 / 32) ** 2 / 2, abs=3e-3)
    assert made.boundary_edges == 0


def test_progress_ends_at_one():
    parts = []
    extract_mesh(ball, bounds=BOX, resolution=40, lipschitz=1.0, progress=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1.0


@pytest.mark.parametrize("core", [1e3, 1e6])
def test_a_dense_core_elsewhere_does_not_make_steps_of_a_surface(core):
    def density(x):
        away = (x - torch.tensor([0.6, 0.6, 0.6])).norm(dim=-1)
        return torch.exp(20.0 * (0.5 - (x + 0.2).norm(dim=-1))) + core * torch.exp(-((away / 0.1) ** 2))

    made = extract_mesh(density, bounds=BOX, resolution=96, level=1.0, inside="above")
    ball = made.corners.mean(1) + 0.2
    near = (np.linalg.norm(ball, axis=-1) < 0.6) & (made.areas > 1e-9)
    outward = ball[near] / np.linalg.norm(ball[near], axis=-1, keepdims=True)
    assert (made.normals[near] * outward).sum(-1).mean() > 0.999
    assert made.boundary_edges == 0


def test_what_lies_beyond_the_box_does_not_matter():
    def steep_outside(x):
        return ball(x) + 100.0 * (x.abs().amax(-1) - 1.0).clamp(min=0.0)

    for resolution in (67, 130):
        here, there = (extract_mesh(f, bounds=BOX, resolution=resolution, lipschitz=1.0) for f in (ball, steep_outside))
        assert np.array_equal(here.vertices, there.vertices)


def test_the_memory_of_samples_is_what_is_said():
    grid = extract._Grid.of(BOX, 640)
    for field in (ball, lambda x: torch.sin(1e4 * x).sum(-1)):
        evaluate = extract._evaluator(field, 0.0, "cpu")
        tracemalloc.start()
        extract._sampled_sides(evaluate, grid, lambda done: None)
        most = extract.BYTES_PER_BLOCK * math.prod(grid.blocks) + 100 * extract.PART
        assert tracemalloc.get_traced_memory()[1] < most
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 0}, "resolution must be >= 1, got 0"),
        ({"bounds": BOX[::-1]}, "bounds must be two finite corners"),
        ({"level": 5.0}, r"does not cross the level 5 .* from -0\.7 to 1\.03.* such as"),
        ({"resolution": 4096, "memory": 1e9}, "needs memory of .* GB, got 1 GB"),
        (
            {"field": lambda x: (40 * x).sin().prod(-1), "resolution": 64, "memory": 5e6},
            r"more than \d+ triangles, the limit for memory of",
        ),
        ({"lipschitz": 0.0}, "lipschitz must be positive"),
        ({"field": lambda x: 1.0 + 0.0 * x[:, 0]}, "does not cross the level 0: it is 1 at all sampled points"),
        ({"inside": "left"}, "inside must be 'below' or 'above', got 'left'"),
        ({"field": lambda x: x[:, 0] * torch.nan}, "values must be finite"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        extract_mesh(**{"field": ball, "bounds": BOX, "resolution": 16, "lipschitz": 1.0, **changes})
