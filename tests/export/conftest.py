"""Fields to export: of each activation and encoding, small, with random weights, as `staf fit` saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from staf_nerf.checkpoint import Checkpoint, save_field
from staf_nerf.config import FieldConfig, ImageConfig, ShapeConfig
from staf_nerf.signals.image import image_field
from staf_nerf.signals.raster import Raster
from staf_nerf.signals.shape import Frame, make_field
from tests.browser import Browser

SMALL: dict[str, Any] = {"hidden_features": 24, "hidden_layers": 3, "num_frequencies": 3}
KINDS: dict[str, dict[str, Any]] = {
    "staf": {},
    "staf by neuron": {"sharing": "neuron"},
    "staf by network": {"sharing": "network"},
    "staf with skips": {"skip": True, "initialization": "published"},
    "staf of random features": {"encoding": "fourier", "encoding_frequencies": 9, "encoding_scale": 2.0},
    "sine": {"activation": "sine"},
    "sine, odd widths": {"activation": "sine", "hidden_features": 23, "hidden_layers": 2},
    "finer": {"activation": "finer"},
    "gaussian": {"activation": "gaussian", "gaussian_width": 0.5},
    "sinc": {"activation": "sinc", "hidden_omega": 5.0},
    "relu of octaves": {"activation": "relu", "encoding": "octaves", "encoding_frequencies": 6},
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
    slow: dict[str, Any] = {"first_omega": 4.0, "hidden_omega": 4.0}
    field = FieldConfig(**(slow | SMALL | KINDS[kind]))
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
