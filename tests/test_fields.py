import pytest
import torch
from torch import nn

from staf_nerf import (
    ColorConfig,
    FieldConfig,
    NeuralField,
    RadianceField,
    SignedDistanceField,
    SurfaceField,
)
from staf_nerf.activations import ACTIVATIONS, activation_options
from staf_nerf.config import ENCODINGS, ActivationConfig, HashGridConfig, IdentityConfig
from staf_nerf.fields import FieldStack, count_parameters, truncated_exp

SMALL_GRID = FieldConfig(
    encoding=HashGridConfig(num_levels=3, log2_table_size=8, max_resolution=32), hidden_features=16
)


@pytest.mark.parametrize("encoding", ["identity", "fourier", "octaves", "hash"])
@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 5, 3)])
def test_neural_field_maps_any_leading_shape(encoding, shape):
    small = {"num_levels": 2, "log2_table_size": 6, "max_resolution": 32} if encoding == "hash" else {}
    config = FieldConfig(encoding=ENCODINGS[encoding](**small), hidden_features=8)
    field = NeuralField(3, 2, config)
    assert field(torch.zeros(shape)).shape == (*shape[:-1], 2)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("encoding", [IdentityConfig(), HashGridConfig(num_levels=2, log2_table_size=6)])
def test_a_stack_of_fields_gives_each_one_s_values_and_gradients(activation, encoding, generator):
    config = FieldConfig(encoding, ActivationConfig(activation), hidden_features=8, hidden_layers=2)
    fields = [NeuralField(2, 3, config, generator=generator) for _ in range(3)]
    x = 2.0 * torch.rand(3, 5, 2, generator=generator) - 1.0
    stacked, alone = FieldStack(fields)(x), torch.stack([field(part) for field, part in zip(fields, x, strict=True)])
    torch.testing.assert_close(stacked, alone)
    parameters = [p for field in fields for p in field.parameters()]
    for mine, theirs in zip(
        *(torch.autograd.grad(y.square().sum(), parameters) for y in (stacked, alone)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)  # float32, sums in another order


def test_a_stack_needs_fields_of_one_architecture():
    for fields in ([], [NeuralField(2, 3, FieldConfig(hidden_features=n)) for n in (4, 5)]):
        with pytest.raises(ValueError, match="fields must have parameters of the same shapes"):
            FieldStack(fields)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_radiance_field_gives_positive_density_and_colours_in_range(activation, generator):
    config = FieldConfig(activation=ActivationConfig(activation), hidden_features=16, hidden_layers=2)
    field = RadianceField(config, ColorConfig(appearance_features=4), generator=generator)
    positions = 2 * torch.rand(6, 5, 3, generator=generator) - 1
    directions = torch.nn.functional.normalize(torch.randn(6, 5, 3, generator=generator), dim=-1)
    density, rgb = field(positions, directions, torch.zeros(6, 5, 4))
    assert density.shape == (6, 5, 1)
    assert (density > 0).all()
    assert rgb.shape == (6, 5, 3)
    assert ((rgb >= 0) & (rgb <= 1)).all()


def test_density_does_not_depend_on_the_direction_and_colour_does(generator):
    field = RadianceField(SMALL_GRID, ColorConfig(appearance_features=0), generator=generator)
    positions = torch.rand(4, 3, generator=generator)
    up, side = torch.tensor([0.0, 0.0, 1.0]).expand(4, 3), torch.tensor([1.0, 0.0, 0.0]).expand(4, 3)
    (density_a, rgb_a), (density_b, rgb_b) = field(positions, up), field(positions, side)
    assert torch.equal(density_a, density_b)
    assert (rgb_a - rgb_b).abs().max() > 1e-3


def test_missing_appearance_is_an_error():
    field = RadianceField(SMALL_GRID, ColorConfig(appearance_features=4))
    with pytest.raises(ValueError, match="appearance must be a tensor of 4 features, got None"):
        field(torch.zeros(1, 3), torch.zeros(1, 3))


def test_truncated_exp_is_exp_below_its_limit_and_keeps_a_gradient_above():
    x = torch.tensor([-3.0, 2.0, 40.0], dtype=torch.float64, requires_grad=True)
    y = truncated_exp(x)
    torch.testing.assert_close(y[:2], x[:2].exp())
    assert y[2].isfinite()
    y.sum().backward()
    assert x.grad[2] > 0


def test_gradient_with_respect_to_positions_is_that_of_finite_differences(generator):
    field = RadianceField(SMALL_GRID, ColorConfig(appearance_features=0), generator=generator).double()
    x = (torch.rand(3, 3, generator=generator, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: field.density(p)[0], (x,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("hollow", [False, True])
def test_a_signed_distance_starts_as_a_sphere_whatever_the_activation(activation, hollow, generator):
    options = {key: 60.0 for key in activation_options(activation) if key == "first_omega"}
    config = FieldConfig(activation=ActivationConfig(activation, options), hidden_features=32, hidden_layers=2)
    center, sign = torch.tensor([0.1, -0.2, 0.05]), -1.0 if hollow else 1.0
    field = SignedDistanceField(
        config, geometry_features=3, radius=0.5, center=(0.1, -0.2, 0.05), hollow=hollow, generator=generator
    )
    x = 2.0 * torch.rand(4000, 3, generator=generator) - 1.0
    exact = sign * ((x - center).norm(dim=-1, keepdim=True) - 0.5)
    distance, features = field.distance(x)
    assert torch.equal(distance, field(x))
    assert features.shape == (4000, 3)
    assert ((distance > 0) == (exact > 0)).all()
    on = center + 0.5 * torch.nn.functional.normalize(x, dim=-1)
    assert float(field(on).abs().max()) < 1e-6
    # Rounding takes .19 off at the centre, and less than .06 outside.
    assert float((distance - exact).abs().max()) < 0.2
    outside = exact * sign > 0
    assert float((distance - exact)[outside].abs().max()) < 0.06


def test_without_a_sphere_a_signed_distance_is_its_network(generator):
    field = SignedDistanceField(FieldConfig(hidden_features=8), radius=None, generator=generator)
    x = torch.rand(5, 3, generator=generator)
    torch.testing.assert_close(field(x), field.geometry(x))


def test_a_surface_field_has_distance_gradient_and_colors(generator):
    config = FieldConfig(
        encoding=HashGridConfig(num_levels=4, coordinate_scale=3.0),
        activation=ActivationConfig("staf", {"first_omega": 1.0, "hidden_omega": 1.0}),
    )
    field = SurfaceField(config, ColorConfig(appearance_features=0), radius=0.6, generator=generator)
    x = 1.6 * torch.rand(500, 3, generator=generator) - 0.8
    distance, gradient, features = field.surface(x)
    outside = x.norm(dim=-1) > 0.6
    torch.testing.assert_close(distance[outside, 0], (x.norm(dim=-1) - 0.6)[outside], atol=0.07, rtol=0)
    # Its gradient is that of a distance, away from the sphere's centre.
    far = x.norm(dim=-1) > 0.3
    agreement = torch.nn.functional.cosine_similarity(gradient[far], x[far], dim=-1)
    assert float(agreement.mean()) > 0.97
    rgb = field.color(features, torch.nn.functional.normalize(x, dim=-1), None, gradient)
    assert rgb.shape == (500, 3)
    # In training the gradient itself can be trained.
    loss = (gradient.norm(dim=-1) - 1.0).square().mean()
    loss.backward()
    assert float(field.distance.geometry.mlp.output.weight.grad.abs().max()) > 0  # pyright: ignore
    field.eval()
    assert not field.surface(x)[1].requires_grad


def test_a_complex_weight_counts_as_two_numbers():
    real, complex_ = nn.Linear(2, 3), nn.Linear(2, 3, dtype=torch.complex64)
    assert (count_parameters(real), count_parameters(complex_)) == (9, 18)
