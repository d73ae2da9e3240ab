import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from staf_nerf.captures.region import RegionOfInterest
from staf_nerf.config import SurfaceConfig
from staf_nerf.plugin.cameras import focus_of
from staf_nerf.plugin.surface_field import Cube, first_sphere, is_room, neus_alpha, surface_cube
from tests.conftest import pose


def test_opacity_across_a_plane_adds_up_to_all_and_peaks_on_it():
    """A ray straight through a plane, cut into short parts: what is left behind it is nothing."""
    sharpness = torch.tensor(200.0)
    t = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    delta = t[1:] - t[:-1]
    middle = 0.5 * (t[1:] + t[:-1])
    distance = 0.5 - middle  # the plane is at .5, the ray goes inwards
    alpha = neus_alpha(distance[:, None], torch.full((2000, 1), -1.0), delta[:, None], sharpness)[:, 0]
    left = torch.cumprod(1.0 - alpha, 0)
    weights = alpha * torch.cat([torch.ones(1), left[:-1]])
    assert float(left[-1]) < 0.02  # the formula's 1e-5 lets a little through, and stops a little before
    # The weight's middle is on the surface (NeuS, section 3.1: it is unbiased).
    assert float((weights * middle).sum() / weights.sum()) == pytest.approx(0.5, abs=0.01)
    assert float(middle[weights.argmax()]) == pytest.approx(0.5, abs=0.002)


def test_a_ray_that_leaves_a_surface_does_not_see_it_once_annealed():
    distance, delta, sharpness = torch.tensor([[0.001]]), torch.tensor([[0.02]]), torch.tensor(100.0)
    leaving = torch.tensor([[1.0]])
    assert float(neus_alpha(distance, leaving, delta, sharpness, 1.0)) < 1e-4
    assert float(neus_alpha(distance, -leaving, delta, sharpness, 1.0)) > 0.3
    grazing = torch.tensor([[0.0]])
    assert float(neus_alpha(distance, grazing, delta, sharpness, 0.0)) > 0.1
    assert float(neus_alpha(distance, grazing, delta, sharpness, 1.0)) < 1e-4


def around(count: int = 12, *, outwards: bool = False) -> Cameras:
    poses = torch.tensor([pose(2 * math.pi * i / count) for i in range(count)])[:, :3]
    if outwards:
        poses[:, :, [0, 2]] *= -1.0
    return Cameras(poses, fx=100.0, fy=100.0, cx=50.0, cy=40.0, width=100, height=80)


def test_cameras_around_an_object_look_at_it():
    look = focus_of(around())
    # They stand on a circle of radius 3 at a height of 1.2 and look at the origin.
    assert look.center == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)
    assert look.nearest == pytest.approx(look.farthest)
    assert look.inwards
    surface = SurfaceConfig()
    assert not is_room(surface, look)
    assert is_room(SurfaceConfig(inside="room"), look)
    cube = surface_cube(surface, look, None)
    assert cube.half_side == pytest.approx(surface.extent * look.nearest)
    center, radius = first_sphere(surface, cube, look)
    # The sphere's rim is at `radius` of the way to the nearer edges of a picture, 40 of 100 focal lengths away.
    assert look.half_view == pytest.approx(0.4)
    assert radius * cube.half_side == pytest.approx(surface.radius * 0.4 * look.nearest)
    assert center == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)


def test_cameras_that_look_outwards_are_in_a_room_around_which_the_first_surface_lies():
    look = focus_of(around(outwards=True))
    assert not look.inwards
    surface = SurfaceConfig(extent=4.0)
    assert is_room(surface, look)
    cube = surface_cube(surface, look, None)
    _, radius = first_sphere(surface, cube, look)
    assert radius * cube.half_side > look.farthest


@pytest.mark.parametrize("cameras", ["around", "inside"])
def test_points_decide_the_cube_and_the_sphere_lies_in_it(cameras):
    center = (0.2, -0.1, 0.3)
    region = RegionOfInterest(center, 0.4, cameras, "points", nearest=1.0, farthest=1.5, half_view=0.4)
    cube = surface_cube(SurfaceConfig(), region.focus, None)
    assert cube == Cube(center, region.half_side)
    assert region.half_side > region.radius
    middle, radius = first_sphere(SurfaceConfig(), cube, region.focus)
    assert middle == pytest.approx((0.0, 0.0, 0.0))
    assert radius < 1.0


def test_a_bounded_scene_s_cube_is_its_bounds():
    bounds = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 3.0, 1.0]])
    assert surface_cube(SurfaceConfig(), None, bounds) == Cube((0.0, 1.0, 0.5), 2.0)
