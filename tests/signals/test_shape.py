import math

import numpy as np
import pytest
import torch

from staf_nerf.config import FieldConfig, ShapeConfig
from staf_nerf.mesh.points import PointCloud
from staf_nerf.signals.shape import EXTENT, Frame, PointCloudSignal, ShapeSignal, make_field, value_and_gradient
from tests.mesh.shapes import box, sphere

CENTER = (3.0, -1.0, 0.5)
RADIUS = 2.0 * EXTENT / 2.0  # of a sphere, in the network's coordinates


def signal(**changes) -> ShapeSignal:
    return ShapeSignal(sphere(2.0, CENTER), ShapeConfig(**{"cached_points": 20_000} | changes))


def test_a_frame_leads_there_and_back_and_centres_the_longest_side():
    bounds = np.array([[1.0, 2.0, 3.0], [2.0, 6.0, 4.0]])
    frame = Frame.of(bounds)
    np.testing.assert_allclose(frame.denormalize(frame.normalize(bounds)), bounds, atol=1e-12)
    np.testing.assert_allclose(frame.normalize(bounds)[1], [EXTENT / 4, EXTENT, EXTENT / 4], atol=1e-12)
    with pytest.raises(ValueError, match="a shape must have a positive extent"):
        Frame.of(np.ones((2, 3)))


@pytest.mark.parametrize("cached", [0, 20_000])
def test_distances_are_those_of_a_sphere(cached, generator):
    points, values = signal(cached_points=cached).batch(5000, generator)
    assert points.shape == (5000, 3)
    assert float(points.abs().max()) <= 1.0
    # The mesh lies within 4e-4 of its radius inside the sphere.
    torch.testing.assert_close(values[:, 0], points.norm(dim=-1) - RADIUS, atol=1e-3, rtol=0)


def test_the_parts_of_the_points_lie_where_they_should(generator):
    _, values = signal(surface_part=0.25, near_part=0.5, near=(0.001, 0.01)).batch(8000, generator)
    diagonal = math.sqrt(3.0) * 2.0 * RADIUS
    distance = values.abs() / diagonal
    assert float((values == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((distance < 0.003).float().mean()) == pytest.approx(0.25 + 0.25 + 0.25 * 0.24, abs=0.04)
    assert float((distance < 0.03).float().mean()) > 0.74


def test_occupancy_is_one_inside_and_zero_outside(generator):
    points, values = signal(quantity="occupancy", surface_part=0.0).batch(5000, generator)
    clear = (points.norm(dim=-1) - RADIUS).abs() > 1e-3
    torch.testing.assert_close(values[clear, 0], (points.norm(dim=-1) < RADIUS)[clear].float())


def test_points_of_a_grid_are_the_middles_of_its_cells_in_the_box_of_the_shape(generator):
    """A box twice as long as wide, in 8 cells along its length: 8 x 4 x 4 places, all of them drawn."""
    made = box((2.0, 1.0, 1.0), (5.0, 0.0, 0.0))
    config = ShapeConfig(quantity="occupancy", surface_part=0.0, near_part=0.0, cached_points=0, grid=8)
    points, values = ShapeSignal(made, config).batch(4000, generator)
    cell = 2.0 * EXTENT / 8
    places = points / cell + torch.tensor([4.0, 2.0, 2.0]) - 0.5
    torch.testing.assert_close(places, places.round(), atol=1e-4, rtol=0)
    assert len(places.round().unique(dim=0)) == 8 * 4 * 4
    assert places.min() > -0.1
    assert (values == 1.0).all()


def test_a_seed_decides_the_points():
    fresh = signal(cached_points=0)
    first, again, other = (fresh.batch(100, torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    config = ShapeConfig(cached_points=1000)
    cached = [ShapeSignal(sphere(), config, seed=seed).batch(9, torch.Generator())[0] for seed in (0, 0, 1)]
    assert torch.equal(cached[0], cached[1])
    assert not torch.equal(cached[0], cached[2])


def test_any_number_of_points_and_any_parts_will_do(generator):
    for count in (2, 3, 16387):
        assert len(signal(cached_points=0, surface_part=0.5, near_part=0.5).batch(count, generator)[0]) == count
    ShapeConfig(surface_part=0.9, near_part=0.1)
    with pytest.raises(ValueError, match=r"near_part must be between 0 and 0\.1"):
        ShapeConfig(surface_part=0.9, near_part=0.2)


def test_the_true_distance_has_no_loss(generator):
    made = signal(eikonal_weight=1.0)
    losses = made.losses(lambda x: x.norm(dim=-1, keepdim=True) - RADIUS, made.batch(2000, generator))
    assert float(losses["distance"]) < 5e-4  # the mesh's own distance from the sphere
    assert float(losses["eikonal"]) < 1e-6
    wrong = made.losses(lambda x: 2.0 * x.norm(dim=-1, keepdim=True) - RADIUS, made.batch(2000, generator))
    assert float(wrong["distance"]) > 5e-3
    assert float(wrong["eikonal"]) == pytest.approx(1.0, abs=1e-5)


def cloud(count: int = 4000, *, oriented: bool = True) -> PointCloud:
    points, _ = sphere(2.0).sample(count, np.random.default_rng(0))
    normals = points / np.linalg.norm(points, axis=-1, keepdims=True)
    return PointCloud(points, normals if oriented else None)


def test_the_true_distance_has_no_loss_on_a_cloud_but_the_one_that_keeps_space_empty(generator):
    made = PointCloudSignal(cloud(), ShapeConfig())
    points, normals = made.batch(1000, generator)
    assert points.shape == (1000, 3)
    assert normals is not None
    assert normals.shape == (500, 3)
    losses = made.losses(lambda x: x.norm(dim=-1, keepdim=True) - RADIUS, (points, normals))
    assert float(losses["surface"]) < 3e3 * 1e-3  # the mesh lies within 4e-4 of the sphere
    assert float(losses["eikonal"]) < 1e-4
    assert float(losses["normals"]) < 0.1
    turned = made.losses(lambda x: RADIUS - x.norm(dim=-1, keepdim=True), (points, normals))
    assert float(turned["normals"]) == pytest.approx(200.0, abs=0.5)


def test_a_cloud_without_normals_has_no_loss_of_them(generator):
    made = PointCloudSignal(cloud(oriented=False), ShapeConfig())
    assert "normals" not in made.losses(lambda x: x.norm(dim=-1, keepdim=True), made.batch(10, generator))
    with pytest.raises(ValueError, match="quantity must be 'signed-distance' for a point cloud, got 'occupancy'"):
        PointCloudSignal(cloud(), ShapeConfig(quantity="occupancy"))


def test_gradients_are_the_field_s(generator):
    config = ShapeConfig(field=FieldConfig(hidden_features=16, hidden_layers=2))
    field = make_field(config, generator=generator).double()
    x = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    values, gradient = value_and_gradient(field, x)
    step = 1e-6
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[axis]
        torch.testing.assert_close(
            gradient[:, axis], (field(x + shift) - field(x - shift))[:, 0] / (2 * step), atol=1e-6, rtol=1e-6
        )
    assert values.shape == (5, 1)
