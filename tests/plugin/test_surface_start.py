"""The first surface: what pictures with depth say becomes a signed distance and its colours."""

import pytest
import torch
from torch import Generator

from staf_nerf.config import ColorConfig, FieldConfig, FitConfig, HashGridConfig, SurfaceConfig
from staf_nerf.fitting.loop import fit
from staf_nerf.mesh.carve import seen_points
from staf_nerf.mesh.fuse import View
from staf_nerf.plugin.surface_field import Cube, StafSurfaceField
from staf_nerf.plugin.surface_start import CarvedSignal, distance_loss, of_one_size
from tests.mesh.shapes import sphere, views_of

RADIUS = 0.6
NETWORK = FieldConfig(
    encoding=HashGridConfig(num_levels=4, log2_table_size=12, coordinate_scale=3.0, feature_scale=1.0)
)


def surface_field(half_side: float = 1.0, **changes) -> StafSurfaceField:
    return StafSurfaceField(
        torch.tensor([[-1.0] * 3, [1.0] * 3]),
        3,
        NETWORK,
        ColorConfig(geometry_features=4, hidden_features=16, appearance_features=0),
        SurfaceConfig(**changes),
        cube=Cube((0.0, 0.0, 0.0), half_side),
        background=NETWORK,
    )


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    field = surface_field(radius=0.2)
    signal = CarvedSignal(list(views_of(sphere(RADIUS), size=64)), field, Generator().manual_seed(0), "cpu")
    config = FitConfig(
        steps=150, points=2048, hidden_learning_rate=1e-2, network_learning_rate=3e-3, learning_rate_decay=0.1
    )
    fit(field, signal, config)
    field.start(50.0)
    return field


def test_a_field_that_was_a_small_sphere_becomes_what_is_seen(learned):
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=Generator().manual_seed(1)), dim=-1)
    # Pixels are .047 wide, and make solids thicker by one.
    assert (learned.signed_distance(0.5 * directions) < 0).float().mean() > 0.98
    assert (learned.signed_distance(0.72 * directions) > 0).float().mean() > 0.98
    assert float(learned.signed_distance(torch.zeros(1, 3))) < 0


def test_its_colours_are_those_that_are_seen(learned):
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=Generator().manual_seed(2)), dim=-1)
    points = RADIUS * directions
    found = learned.surface_color(points, -directions)
    # `views_of` paints a place with .5 + .4 of it.
    assert float((found - (0.5 + 0.4 * points)).abs().mean()) < 0.05


def test_a_started_field_has_the_sharpness_that_it_was_given(learned):
    assert float(learned.sharpness) == pytest.approx(50.0, rel=1e-5)
    assert bool(learned.started)


def test_a_cube_in_which_nothing_is_seen_is_refused():
    views = list(views_of(sphere(RADIUS), count=4, size=16))
    with pytest.raises(ValueError, match="no view sees a surface in the cube"):
        CarvedSignal(views, surface_field(0.1), Generator(), "cpu")


def test_pictures_of_several_sizes_carve_by_their_middles():
    """A camera's rays go through the same places, whichever rows and columns are left."""
    wide, tall = (next(iter(views_of(sphere(RADIUS), count=1, size=size))) for size in (40, 64))
    wide = View(wide.color[8:32], wide.depth[8:32], (40.0, 40.0, 20.0, 12.0), wide.world_to_camera)
    first, second = of_one_size([wide, tall])
    assert first.depth.shape == second.depth.shape == (24, 40)
    points, _, _ = seen_points(second)
    torch.testing.assert_close(points.norm(dim=-1), torch.full((len(points),), RADIUS), atol=2e-3, rtol=0)
    assert first.intrinsics == wide.intrinsics
    CarvedSignal([wide, tall], surface_field(), Generator(), "cpu")


def test_distances_count_up_to_the_reach_and_beyond_it_only_their_side():
    carved = torch.tensor([0.05, -0.05, 3.0, 3.0, -3.0, 3.0])
    found = torch.tensor([0.02, 0.01, 0.5, 0.04, 0.1, -0.1])
    known = torch.tensor([True, True, True, True, True, False])
    expected = (0.03 + 0.06 + 0.0 + 0.06 + 0.2 + 0.0) / 6 / 0.1
    assert float(distance_loss(found, carved, known, 0.1)) == pytest.approx(expected, rel=1e-5)


def test_without_steps_of_a_density_it_starts_as_a_sphere():
    assert bool(surface_field(density_steps=0).started)
    assert not bool(surface_field().started)
