"""Fields to export: of each activation and encoding, small, with random weights, as `staf fit` saves them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from staf_nerf.activations import activation_options
from staf_nerf.checkpoint import Checkpoint, save_field
from staf_nerf.config import ActivationConfig, FieldConfig, FourierConfig, ImageConfig, OctavesConfig, ShapeConfig
from staf_nerf.signals.image import image_field
from staf_nerf.signals.raster import Raster
from staf_nerf.signals.shape import Frame, make_field
from tests.browser import Browser


def staf(**options: Any) -> ActivationConfig:
    """A sum of three sinusoids."""
    return ActivationConfig("staf", {"num_frequencies": 3, **options})


SMALL: dict[str, Any] = {"hidden_features": 24, "hidden_layers": 3, "activation": staf()}
KINDS: dict[str, dict[str, Any]] = {
    "staf": {},
    "staf by neuron": {"activation": staf(sharing="neuron")},
    "staf by network": {"activation": staf(sharing="network")},
    "staf with skips": {"skip": True, "activation": staf(initialization="staf-published")},
    "staf of random features": {"encoding": FourierConfig(num_frequencies=9, scale=2.0)},
    "sine": {"activation": ActivationConfig("sine")},
    "sine, odd widths": {"activation": ActivationConfig("sine"), "hidden_features": 23, "hidden_layers": 2},
    "finer": {"activation": ActivationConfig("finer")},
    "gaussian": {"activation": ActivationConfig("gaussian", {"width": 0.5})},
    "sinc": {"activation": ActivationConfig("sinc", {"hidden_omega": 5.0})},
    "relu of octaves": {"activation": ActivationConfig("relu"), "encoding": OctavesConfig(num_frequencies=6)},
    "linear": {"hidden_layers": 0},
}
"""What all formats take that are not made of sines."""


def image(
    kind: str | dict[str, Any] = "staf", *, channels: int = 3, height: int = 60, width: int = 90, **options: Any
) -> Any:
    """A field of an image that was never there, with values that fill its range and go beyond."""
    field = FieldConfig(**(SMALL | (KINDS[kind] if isinstance(kind, str) else kind)))
    raster_options = {name: options.pop(name) for name in ("value_min", "dtype", "high") if name in options}
    corners = options.get("align_corners", False)
    raster = Raster(
        height,
        width,
        channels,
        **({"low": 0.0, "high": 255.0, "dtype": "uint8"} | raster_options),
        align_corners=corners,
    )
    config = ImageConfig(field=field, **options)
    model = image_field(config, raster, generator=torch.Generator().manual_seed(0))
    spread(model.mlp, 0.8)
    return Checkpoint(model, config, raster, "kitten & <i>co</i>.png", 0)


def shape(kind: str = "staf", *, sphere: bool = True, **options: Any) -> Any:
    """A sphere with smooth dents, which no training has to find."""
    field = FieldConfig(**(SMALL | KINDS[kind]))
    slow = {name: 4.0 for name in activation_options(field.activation.name) if name in ("first_omega", "hidden_omega")}
    activation = ActivationConfig(field.activation.name, slow | dict(field.activation.options))
    field = dataclasses.replace(field, activation=activation)
    config = ShapeConfig(field=field, **options)
    model = make_field(config, start_as_sphere=sphere, generator=torch.Generator().manual_seed(0))
    inner: Any = model.geometry if hasattr(model, "geometry") else model
    torch.manual_seed(0)
    torch.nn.init.normal_(inner.mlp.output.weight)
    spread(inner.mlp, 0.1, inputs=3)
    return Checkpoint(model, config, Frame((1.0, 2.0, 3.0), 2.5), "potato.obj", 0)


@torch.no_grad()
def spread(mlp: Any, size: float, inputs: int = 2) -> None:
    """Scales the last layer so that the values have mean 0 and that standard deviation."""
    read = mlp.layers[0].linear.in_features if len(mlp.layers) else mlp.output.in_features
    x = 2 * torch.rand(4096, read, generator=torch.Generator().manual_seed(1)) - 1
    values = mlp(x)
    mlp.output.weight *= size / values.std(0, keepdim=True).T
    mlp.output.bias -= mlp(x).mean(0)


def saved(checkpoint: Checkpoint, folder: Path) -> Path:
    """The file of a checkpoint."""
    path = folder / "field.safetensors"
    save_field(path, checkpoint)
    return path


@pytest.fixture
def points() -> torch.Tensor:
    """Coordinates of two dimensions."""
    return 2 * torch.rand(257, 2, generator=torch.Generator().manual_seed(2)) - 1


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One real Chromium for all tests here."""
    opened = Browser(tmp_path_factory.mktemp("profile"), "about:blank")
    opened.ask("Network.enable")
    yield opened
    opened.close()
