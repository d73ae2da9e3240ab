"""The policy of optimisers: each parameter has one group, one optimiser and its rate."""

import dataclasses

import pytest

from staf_nerf import CoordinateMLP
from staf_nerf.config import ActivationConfig, ColorConfig, FieldConfig, FitConfig, HashGridConfig, OctavesConfig
from staf_nerf.fields import NeuralField, RadianceField
from staf_nerf.fitting.muon import PreciseMuon
from staf_nerf.fitting.optimizers import ADAM_EPS, make_optimizers, parameter_groups

STEPS = FitConfig(steps=1)


def field() -> NeuralField:
    return NeuralField(1, 1, FieldConfig(hidden_features=16, hidden_layers=2))


def test_groups_hold_every_parameter_once():
    field = RadianceField(FieldConfig(encoding=HashGridConfig(log2_table_size=8)), ColorConfig())
    groups = parameter_groups(field)
    listed = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(listed) == sorted(id(p) for p in field.parameters())
    assert [p.shape for p in groups["encoding"]] == [field.geometry.encoding.table.shape]
    assert len(groups["activation"]) == 3 * 3  # C, Ω and Φ of one density and two colour layers
    linears = [layer.linear for layer in [*field.geometry.mlp.layers, *field.color_mlp.layers]]
    assert {id(p) for p in groups["hidden"]} == {id(linear.weight) for linear in linears}
    assert not groups["first_layer"]  # it reads the grid's features


def test_weights_that_read_coordinates_are_a_group_of_their_own():
    mlp = CoordinateMLP(2, 1, hidden_features=4, hidden_layers=3)
    first, *others = (layer.linear for layer in mlp.layers)
    groups = parameter_groups(mlp)
    assert [id(p) for p in groups["first_layer"]] == [id(first.weight)]
    assert [id(p) for p in groups["hidden"]] == [id(linear.weight) for linear in others]


def test_complex_weights_are_no_matrices_for_muon():
    network = CoordinateMLP(2, 1, activation="gabor", hidden_features=4, hidden_layers=2)
    groups = parameter_groups(network)
    assert [p.shape for p in groups["first_layer"]] == [(4, 2)]
    assert not groups["hidden"]  # what follows the first layer is complex
    assert sum(len(parameters) for parameters in groups.values()) == 6


@pytest.mark.parametrize(
    ("activation", "scale"),
    [
        (ActivationConfig("staf", {"first_omega": 10.0}), 10.0),
        (ActivationConfig("gaussian"), 20.0),
        (ActivationConfig("filter", {"first_omega": 10.0}), 1.0),
        (ActivationConfig("relu"), 1.0),
    ],
)
def test_weights_that_read_coordinates_turn_phases_at_one_rate_whatever_the_frequency(activation, scale):
    model = NeuralField(1, 1, FieldConfig(hidden_features=8, hidden_layers=2, activation=activation))
    _, adam = make_optimizers(model, dataclasses.replace(STEPS, first_layer_learning_rate=0.5))
    (rate,) = [g["lr"] for g in adam.param_groups if g["params"][0] is model.mlp.layers[0].linear.weight]
    assert rate == pytest.approx(0.5 / scale)
    encoded = NeuralField(1, 1, FieldConfig(hidden_features=8, hidden_layers=2, encoding=OctavesConfig()))
    assert any(
        p is encoded.mlp.layers[0].linear.weight for p in make_optimizers(encoded, STEPS)[0].param_groups[0]["params"]
    )


def test_adam_can_take_the_matrices_too():
    model = field()
    optimizers = make_optimizers(model, dataclasses.replace(STEPS, optimizer="adam"))
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Adam"]
    assert sum(len(group["params"]) for group in optimizers[0].param_groups) == len(list(model.parameters()))


def test_muon_is_in_float32_on_a_cpu_and_adam_has_one_epsilon():
    muon, adam = make_optimizers(field(), dataclasses.replace(STEPS, muon_momentum=0.7, muon_ns_steps=2))
    assert type(muon) is PreciseMuon
    assert (muon.defaults["momentum"], muon.defaults["ns_steps"], muon.defaults["weight_decay"]) == (0.7, 2, 0.0)
    assert {group["eps"] for group in adam.param_groups} == {ADAM_EPS}
