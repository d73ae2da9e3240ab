"""Encodings, activations and budgets, as presets, texts and command lines give them."""

import dataclasses
import re
import subprocess
import sys

import pytest
import torch

from staf_nerf.activations import ACTIVATIONS, activation_options
from staf_nerf.config import (
    ENCODINGS,
    ActivationConfig,
    Choice,
    ColorConfig,
    FieldConfig,
    FitConfig,
    FourierConfig,
    HashGridConfig,
    IdentityConfig,
    ImageConfig,
    OctavesConfig,
    known_keys,
    text_of,
)
from staf_nerf.encodings import HashGrid
from staf_nerf.fields import NeuralField, RadianceField
from staf_nerf.presets import override, resolved

SCALES = ("first_omega", "hidden_omega")


def help_of(name: str) -> str:
    """The text under a key of FieldConfig."""
    import ast
    import inspect

    (body,) = ast.parse(inspect.getsource(FieldConfig)).body
    nodes = body.body
    place = next(i for i, node in enumerate(nodes) if getattr(getattr(node, "target", None), "id", "") == name)
    return " ".join(nodes[place + 1].value.value.split())


def described(text: str) -> dict[str, dict[str, str]]:
    """The options that a help text gives for each name in quotes, up to the next name."""
    found: dict[str, dict[str, str]] = {}
    for name, rest in re.findall(r'"(\w+)"([^"]*)', text):
        options = dict(re.findall(r"(\w+)=([\w.]+?)(?=[,.]?(?:\s|$))", rest))
        found[name] = found.get(name, {}) | options
    return found


def test_the_help_of_an_encoding_names_each_with_its_options_and_defaults():
    usual = {name: dataclasses.asdict(kind()) for name, kind in ENCODINGS.items()}
    expected = {n: {key: str(x) for key, x in options.items() if key != "name"} for n, options in usual.items()}
    assert described(help_of("encoding")) == expected


def test_the_help_of_an_activation_names_each_with_its_options_and_defaults():
    whole = help_of("activation")
    text, _, scales = whole.partition("All but")
    own = {n: {k: str(v) for k, v in activation_options(n).items() if k not in SCALES} for n in ACTIVATIONS}
    assert described(text) == own
    first, hidden = ({n for n in ACTIVATIONS if key in activation_options(n)} for key in SCALES)
    assert scales == ' "gaussian" and "relu": first_omega=30.0. All but these and "filter": hidden_omega=30.0.'
    assert set(ACTIVATIONS) - first == {"gaussian", "relu"}
    assert first - hidden == {"filter"}
    assert all(
        activation_options(name)[key] == 30.0
        for key, names in zip(SCALES, (first, hidden), strict=True)
        for name in names
    )


def test_an_activation_of_one_s_own_is_one_class_and_an_entry(monkeypatch):
    from staf_nerf.activations import Activation

    class Bump(Activation):
        def __init__(self, num_features, *, height: float = 2.0):
            super().__init__()
            self.height = height

        def forward(self, z):
            return self.height / (1.0 + z.square())

    monkeypatch.setitem(ACTIVATIONS, "bump", Bump)
    config = override(FieldConfig(), {"activation": "bump:height=3"})
    assert NeuralField(2, 1, config).mlp.layers[0].activation.height == 3.0
    with pytest.raises(ValueError, match="options of the activation 'bump' must be among height, got width"):
        NeuralField(2, 1, override(FieldConfig(), {"activation": "bump:width=3"}))


def test_a_text_changes_the_options_of_the_same_name_and_replaces_those_of_another():
    base = FieldConfig(
        HashGridConfig(num_levels=4, max_resolution=64), ActivationConfig("staf", {"num_frequencies": 3})
    )
    changed = override(base, {"encoding": "hash:num_levels=6", "activation": "staf:hidden_omega=10"})
    assert changed.encoding == HashGridConfig(num_levels=6, max_resolution=64)
    assert changed.activation == ActivationConfig("staf", {"num_frequencies": 3, "hidden_omega": 10})
    other = override(base, {"encoding": "octaves:num_frequencies=4", "activation": "gaussian:width=0.1"})
    assert other == FieldConfig(OctavesConfig(num_frequencies=4), ActivationConfig("gaussian", {"width": 0.1}))
    assert override(other, {"encoding": "hash"}).encoding == HashGridConfig()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (IdentityConfig(), "identity"),
        (FourierConfig(scale=2.5), "fourier:scale=2.5"),
        (HashGridConfig(num_levels=3, coordinate_scale=3.0), "hash:num_levels=3,coordinate_scale=3.0"),
        (
            ActivationConfig("staf", {"num_frequencies": 3, "sharing": "neuron"}),
            "staf:num_frequencies=3,sharing=neuron",
        ),
    ],
)
def test_a_configuration_and_its_text_say_the_same(value, text):
    key = "activation" if isinstance(value, ActivationConfig) else "encoding"
    assert text_of(value) == text
    assert getattr(override(FieldConfig(), {key: text}), key) == value
    assert resolved(FieldConfig(**{key: Choice(text)}), FieldConfig()) == FieldConfig(**{key: value})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_option_of_another_activation_is_refused(name):
    own = activation_options(name)
    for option in {"first_omega", "hidden_omega", "width", "scale", "first_bias", "sharing"} - set(own):
        with pytest.raises(ValueError, match=f"options of the activation '{name}' .* got {option}"):
            NeuralField(2, 1, FieldConfig(activation=ActivationConfig(name, {option: 1.0})))
    NeuralField(2, 1, FieldConfig(activation=ActivationConfig(name, own)))


def test_every_option_of_an_encoding_reaches_it():
    config = HashGridConfig(3, 4, 9, 8, 64, 2.0, 0.5)
    grid = NeuralField(2, 1, FieldConfig(encoding=config)).encoding
    assert isinstance(grid, HashGrid)
    expected = HashGrid(2, num_levels=3, features_per_level=4, log2_table_size=9, base_resolution=8, max_resolution=64)
    assert grid.table.shape == expected.table.shape
    assert grid.out_features == 3 * 4 + 2
    assert (grid.feature_scale, grid.coordinate_scale) == (2.0, 0.5)


def test_a_colour_network_takes_the_field_s_activation_with_scales_of_one_unless_it_has_its_own(generator):
    sine = FieldConfig(activation=ActivationConfig("sine", {"first_omega": 60.0}))
    for config, color, expected in (
        (sine, ColorConfig(), [1.0, 1.0]),
        (sine, ColorConfig(activation=ActivationConfig("field", {"hidden_omega": 5.0})), [1.0, 5.0]),
        (sine, ColorConfig(activation=ActivationConfig("finer")), [30.0, 30.0]),
        (FieldConfig(activation=ActivationConfig("gaussian", {"width": 0.3})), ColorConfig(), None),
    ):
        mlp = RadianceField(config, color, generator=generator).color_mlp
        if expected is None:
            assert [layer.activation.width for layer in mlp.layers] == [0.3, 0.3]
        else:
            assert [layer.activation.omega for layer in mlp.layers] == expected
    relu, scaled = FieldConfig(activation=ActivationConfig("relu")), ActivationConfig("field", {"hidden_omega": 5.0})
    with pytest.raises(ValueError, match="options of the activation 'relu' do not exist, got hidden_omega"):
        RadianceField(relu, ColorConfig(activation=scaled))


def test_a_budget_replaces_that_of_a_lower_level_and_two_on_one_level_are_refused():
    config = ImageConfig()
    assert config.fit.minutes == 1.0
    assert override(config, {"fit": {"steps": 5}}).fit == config.fit.lasting(steps=5)
    assert override(override(config, {"fit": {"steps": 5}}), {"fit": {"minutes": 2}}).fit.steps is None
    with pytest.raises(ValueError, match=r"\[fit\] only one of minutes, steps and epochs can be given"):
        override(config, {"fit": {"steps": 5, "epochs": 2}})


def test_fields_of_a_configuration_are_hashable_and_equal_whatever_the_order_of_options():
    first, second = (ActivationConfig("staf", dict(pairs)) for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert first == second
    assert hash(FieldConfig(activation=first)) == hash(FieldConfig(activation=second))


def test_settings_are_read_without_torch():
    code = "import sys; sys.modules['torch'] = None\nimport importlib.util as u\nfrom pathlib import Path\n"
    code += "import types; package = types.ModuleType('staf_nerf'); package.__path__ = [sys.argv[1]]\n"
    code += "sys.modules['staf_nerf'] = package\nimport staf_nerf.presets, staf_nerf.config"
    import staf_nerf

    subprocess.run([sys.executable, "-c", code, staf_nerf.__path__[0]], check=True)


def test_a_field_holds_no_options_of_encodings_or_activations():
    assert known_keys(FieldConfig()) == ["encoding", "activation", "hidden_features", "hidden_layers", "skip"]
    assert not set(known_keys(FitConfig())) & {"task", "description"}
    assert torch.equal(*(NeuralField(1, 1, FieldConfig(), generator=torch.Generator().manual_seed(0)).mlp.output.weight
                         for _ in range(2)))  # fmt: skip
