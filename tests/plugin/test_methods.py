"""The methods as nerfstudio sees them, on each device, and as a user changes them."""

import dataclasses

import pytest
import torch
import tyro
import yaml

from staf_nerf.config import ActivationConfig
from staf_nerf.machine.device import detect_device
from staf_nerf.plugin import methods
from staf_nerf.presets import DEVICES, load_preset

NAMES = ["paper-nerf", "siren-nerf", "staf-nerf", "staf-nerf-mlp", "staf-nerf-sdf"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_makes_a_configuration_for_every_device(name, device):
    config = methods.trainer_config(name, load_preset(name, device), device)
    assert config.machine.device_type == device
    assert config.mixed_precision == (device == "cuda")
    assert config.method_name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_survives_config_yml(name):
    config = methods.trainer_config(name, load_preset(name, "cpu"), "cpu")
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader) == config


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, False, "cuda"), (False, True, "mps"), (True, True, "cuda"), (False, False, "cpu")],
)
def test_the_device_is_detected(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert detect_device() == device


def test_the_published_protocol_has_its_layers_views_and_optimizer():
    preset = load_preset("paper-nerf", "cpu")
    config = methods.trainer_config("paper-nerf", preset, "cpu")
    assert config.pipeline.model.background_color == "white"
    assert config.pipeline.datamanager.dataparser.train_every == 4
    assert {type(group["optimizer"]).__name__ for group in config.optimizers.values()} == {"FusedAdamConfig"}
    density, color = preset.field, preset.color
    assert (density.hidden_layers + 1, density.hidden_features) == (4, 182)
    assert (color.hidden_layers + 1, color.hidden_features) == (4, 182)


def test_every_optimizer_group_of_a_model_has_its_learning_rate(tmp_path):
    from tests.plugin.test_checkpoints import trainer

    rates = {
        "encoding_learning_rate": 0.01,
        "network_learning_rate": 0.02,
        "activation_learning_rate": 0.03,
        "hidden_learning_rate": 0.04,
    }
    made = trainer(tmp_path, changes={"training": rates})
    found = {name: optimizer.param_groups[0]["initial_lr"] for name, optimizer in made.optimizers.optimizers.items()}
    assert found == {"proposal_networks": 0.01, "encoding": 0.01, "network": 0.02, "activation": 0.03, "hidden": 0.04}
    by_muon = {name for name, one in made.optimizers.optimizers.items() if isinstance(one, torch.optim.Muon)}
    assert by_muon == {"hidden"}


def test_learning_rates_decay_to_the_stated_part(tmp_path):
    from staf_nerf.plugin import run
    from tests.plugin.test_checkpoints import trainer

    made = trainer(tmp_path, changes={"training": {"steps": 20, "learning_rate_decay": 0.1}})
    run.train(made)
    optimizer = made.optimizers.optimizers["network"]
    group = optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.1 * group["initial_lr"])


def test_the_viewer_of_other_commands_is_held_to_this_machine_unless_told_otherwise(monkeypatch):
    from nerfstudio.configs.base_config import ViewerConfig

    config = methods.trainer_config("staf-nerf", load_preset("staf-nerf", "cpu"), "cpu")
    config.viewer = ViewerConfig()  # as ns-viewer does
    assert config.viewer.websocket_host == "127.0.0.1"
    monkeypatch.setattr("sys.argv", ["ns-viewer", "--viewer.websocket-host", "0.0.0.0"])
    config.viewer = ViewerConfig(websocket_host="0.0.0.0")
    assert config.viewer.websocket_host == "0.0.0.0"


def configured(*arguments):
    """The configuration that `ns-train` makes of arguments: its parser, with our methods alone."""
    found = {
        name: getattr(methods, name.replace("-", "_")).config for name in ("staf-nerf", "staf-nerf-sdf", "paper-nerf")
    }
    kinds = tyro.extras.subcommand_type_from_defaults(defaults=found, descriptions=dict.fromkeys(found, ""))
    return tyro.cli(tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[kinds]], args=arguments)


def parsed(*arguments):
    return configured(*arguments).pipeline.model


def test_one_flag_of_ns_train_changes_the_options_of_the_method_s_preset():
    usual = load_preset("staf-nerf", detect_device())
    model = parsed("staf-nerf", "--pipeline.model.field.encoding", "hash:num_levels=4")
    assert model.field.encoding == dataclasses.replace(usual.field.encoding, num_levels=4)
    assert (model.field.activation, model.proposal, model.color) == (
        usual.field.activation,
        usual.proposal,
        usual.color,
    )
    other = parsed("staf-nerf-sdf", "--pipeline.model.background.activation", "gaussian:width=0.1")
    assert other.background.activation == ActivationConfig("gaussian", {"width": 0.1})
    color = parsed("paper-nerf", "--pipeline.model.color.activation", "field:hidden_omega=7").color
    assert color.activation == ActivationConfig("field", {"first_omega": 30.0, "hidden_omega": 7.0})
    with pytest.raises(SystemExit):
        parsed("staf-nerf", "--pipeline.model.field.encoding", "hash:levels=4")


def test_encodings_are_no_subcommands(capsys):
    with pytest.raises(SystemExit):
        parsed("staf-nerf", "--help")
    printed = capsys.readouterr().out
    assert "--pipeline.model.field.encoding" in printed
    assert "pipeline.model.field.encoding:" not in printed
