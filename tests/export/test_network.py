"""A field's list of layers computes what the field does."""

import copy

import pytest
import torch

from staf_nerf.config import ActivationConfig, FieldConfig, HashGridConfig
from staf_nerf.export.network import network_of
from staf_nerf.fields import NeuralField
from staf_nerf.layers import Activation
from staf_nerf.mlp import CoordinateMLP
from tests.export.conftest import KINDS, image, shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_compute_what_the_field_computes(kind, points):
    field = image(kind).field
    found = network_of(field).values(points.numpy())
    with torch.no_grad():
        exact = copy.deepcopy(field).double()(points.double()).numpy()
    assert found == pytest.approx(exact, abs=2e-5)  # cos as sin(z + π/2), in float32 parameters


def test_a_signed_distance_keeps_its_sphere():
    field = shape().field
    x = 2 * torch.rand(99, 3, generator=torch.Generator().manual_seed(0)) - 1
    network = network_of(field)
    assert network.sphere is not None
    with torch.no_grad():
        assert network.values(x.numpy()) == pytest.approx(field(x).numpy(), abs=1e-5)  # float32
    assert network_of(shape(sphere=False).field).sphere is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation": ActivationConfig("gabor")}, "complex"),
        ({"activation": ActivationConfig("filter")}, "reads the coordinates, which"),
        ({"encoding": HashGridConfig()}, "got HashGrid, which is a table"),
    ],
)
def test_what_is_no_list_of_layers_is_refused_with_a_reason(options, reason):
    with pytest.raises(ValueError, match=reason):
        network_of(NeuralField(2, 3, FieldConfig(**options)))


class Triangle(Activation):
    """An activation of a user's own, which no export format has."""

    def forward(self, z):
        return torch.asin(torch.sin(z))


def test_an_activation_without_a_formula_is_refused():
    field = NeuralField(2, 3, FieldConfig(hidden_features=4))
    field.mlp = CoordinateMLP(2, 3, hidden_features=4, activation=lambda layer: Triangle())
    with pytest.raises(ValueError, match=r"got Triangle in layer 0: the export formats do not have its formula"):
        network_of(field)


def test_several_networks_as_one_are_refused():
    field = NeuralField(2, 3, FieldConfig(hidden_features=4))
    field.mlp = CoordinateMLP.stack([field.mlp, field.mlp])
    with pytest.raises(ValueError, match="export needs a single network, got 2 networks as one"):
        network_of(field)


def test_a_module_that_is_no_field_is_refused():
    with pytest.raises(ValueError, match="field must be a NeuralField or a SignedDistanceField, got Linear"):
        network_of(torch.nn.Linear(2, 3))
