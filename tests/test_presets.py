import dataclasses
import math

import pytest

from staf_nerf.config import (
    ActivationConfig,
    FieldConfig,
    HashGridConfig,
    IdentityConfig,
    ImageConfig,
    RadianceConfig,
    SamplingConfig,
    ShapeConfig,
    SuperResolutionConfig,
    TrainingConfig,
)
from staf_nerf.presets import DEVICES, load_preset, override, preset_names


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["paper-nerf", "siren-nerf", "staf-nerf", "staf-nerf-mlp", "staf-nerf-sdf"])
def test_every_shipped_preset_loads_on_every_device(name, device):
    preset = load_preset(name, device)
    assert name in preset_names()
    assert preset.description


def test_the_paper_s_occupancy_is_a_shape_s_preset():
    preset = load_preset("paper-occupancy", "cpu", ShapeConfig())
    assert (preset.quantity, preset.grid, preset.fit.points) == ("occupancy", 512, 100_000)
    # Two passes over all cells of the grid.
    assert preset.fit.steps == 2 * math.ceil(512**3 / preset.fit.points)


def test_siren_differs_from_the_encoding_free_method_in_its_activation_alone():
    staf, siren = load_preset("staf-nerf-mlp", "cpu"), load_preset("siren-nerf", "cpu")
    scales = {"first_omega": 60.0, "hidden_omega": 30.0}
    assert siren.field.activation == ActivationConfig("sine", scales)
    changed = dataclasses.replace(
        siren, field=dataclasses.replace(siren.field, activation=ActivationConfig("staf", scales))
    )
    assert dataclasses.replace(changed, description="") == dataclasses.replace(staf, description="")


def test_a_gpu_run_is_larger_than_a_cpu_run():
    cpu, cuda = load_preset("staf-nerf", "cpu"), load_preset("staf-nerf", "cuda")
    assert cuda.field.encoding.log2_table_size > cpu.field.encoding.log2_table_size
    assert cuda.training.rays_per_step > cpu.training.rays_per_step
    assert load_preset("staf-nerf", "mps").field == cpu.field


def test_tables_override_defaults_and_devices_override_tables(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[field.encoding]\nname = "hash"\nnum_levels = 4\n[cuda.field.encoding]\nnum_levels = 12\n'
        "[sampling]\nproposal_samples = [8]\n"
    )
    assert load_preset(path, "cpu").field == FieldConfig(encoding=HashGridConfig(num_levels=4))
    assert load_preset(path, "cuda").field.encoding == HashGridConfig(num_levels=12)
    assert load_preset(path, "cpu").sampling.proposal_samples == (8,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[field]\nlevels = 4\n",
            r"mine.toml: unknown key 'levels' in \[field\]; the known keys are encoding, act",
        ),
        ("[feild]\n", "unknown key 'feild'; the known keys are description, geometry"),
        ("[cpu.field]\nlevels = 4\n", r"unknown key 'levels' in \[field\]"),
        (
            "[field]\nnum_levels = 16\n",
            r'in \[field\]; it is written encoding = \{name = "hash", num_levels = 16\} now',
        ),
        (
            "[field.encoding]\nname = 'hash'\nnum_levels = 0\n",
            r"\[field.encoding\] num_levels must be >= 1, got 0",
        ),
        (
            "[field.encoding]\nname = 'hash'\nnum_levels = 'four'\n",
            "field.encoding.num_levels must be of type int, got 'four'",
        ),
        (
            "[field.encoding]\nname = 'octaves'\nscale = 2.0\n",
            "options of the encoding 'octaves' must be among num_frequencies, got scale",
        ),
        ("[field]\nencoding = 'grid'\n", "field.encoding must be one of identity, fourier, octaves, hash, got 'grid'"),
        ("[field]\nactivation = 3\n", "field.activation must be a name or a table, got 3"),
        ("[field.activation]\nwidth = [1]\n", r"field.activation.width must be a number, .* got \[1\]"),
        ("[training]\nlearning_rate_decay = 2\n", "learning_rate_decay must be between 1e-06 and 1, got 2"),
        ("[sampling]\nproposal_samples = []\n", "proposal_samples must be one or more numbers >= 1"),
        ("field = 3\n", "field must be a table, got 3"),
        ("cuda = 5\n", "cuda must be a table, got 5"),
        ("[field\n", "mine.toml is not valid TOML"),
    ],
)
def test_bad_presets_are_refused_with_what_is_accepted(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_preset(path, "cpu")


def test_a_key_that_was_renamed_is_named_as_it_is_now(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('task = "image"\nband = 0.2\n')
    with pytest.raises(ValueError, match="unknown key 'band'; it is called 'bandwidth' now"):
        load_preset(path, "cpu", ImageConfig())


def test_a_preset_of_another_task_is_refused():
    with pytest.raises(ValueError, match="the preset is for the task 'image', a preset for 'superres' is needed"):
        load_preset("paper-image", "cpu", SuperResolutionConfig())


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"preset must be one of \['paper-nerf', 'siren-nerf', 'staf-nerf', 'staf-nerf-mlp', 'staf-nerf-sdf'\]",
    ):
        load_preset("nerf", "cpu")


@pytest.mark.parametrize("config", [FieldConfig(), SamplingConfig(), TrainingConfig(), RadianceConfig()])
def test_every_key_has_a_help_text_and_configurations_are_frozen(config):
    import ast
    import inspect

    (body,) = ast.parse(inspect.getsource(type(config))).body
    kinds = [type(node).__name__ for node in body.body]
    assigned = [i for i, kind in enumerate(kinds) if kind == "AnnAssign"]
    assert assigned
    assert all(kinds[i + 1] == "Expr" for i in assigned)
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, None)


def test_override_leaves_the_original_as_it_was():
    config = RadianceConfig()
    changed = override(config, {"field": {"encoding": "hash", "hidden_features": 3}})
    assert (config.field.hidden_features, changed.field.hidden_features) == (64, 3)
    assert config.field.encoding == IdentityConfig()


def test_each_baseline_of_images_is_ours_but_for_its_network_and_rates():
    ours = load_preset("image", "cpu", ImageConfig())
    names = [name for name in preset_names("image") if name.startswith("image-")]
    assert len(names) >= 12
    for name in names:
        config = load_preset(name, "cpu", ImageConfig())
        fit = dataclasses.replace(
            config.fit,
            hidden_learning_rate=ours.fit.hidden_learning_rate,
            muon_momentum=ours.fit.muon_momentum,
            network_learning_rate=ours.fit.network_learning_rate,
            activation_delay=ours.fit.activation_delay,
        )
        assert config.field != ours.field
        assert fit == ours.fit
