"""Fields in files: weights as safetensors, and beside them what is needed to build the field and to use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from staf_nerf.config import AudioConfig, ImageConfig, ShapeConfig
from staf_nerf.presets import override
from staf_nerf.signals.audio import Track, audio_field
from staf_nerf.signals.image import Raster, image_field
from staf_nerf.signals.shape import Frame, make_field

KEY, FORMAT = "staf_nerf", 1
"""Of the metadata, and the number of its format."""
FIELD_FILE = "field.safetensors"
"""How a field is called in a folder of results."""

Config = ShapeConfig | ImageConfig | AudioConfig


@dataclass(frozen=True)
class Checkpoint:
    """A fitted field, and all that tells what its coordinates and values mean."""

    field: nn.Module
    config: Config
    frame: Any
    """A shape's `Frame`, an image's `Raster` or a sound's `Track`."""
    file: str | None = None
    """What it was fitted to, as it was called then."""
    seed: int = 0
    """Of the fit, and of the noise that was added."""


@dataclass(frozen=True)
class _Kind:
    config: Config
    frame: Callable[..., Any]
    field: Callable[[Any, Any], nn.Module]


def _frame(center: Sequence[float], scale: float, size: Sequence[float] = (2.0, 2.0, 2.0)) -> Frame:
    """A shape's frame from JSON, where older ones have no size."""
    (x, y, z), (a, b, c) = center, size
    return Frame((x, y, z), scale, (a, b, c))


_IMAGE = _Kind(ImageConfig(), Raster, image_field)
KINDS = {
    "shape": _Kind(ShapeConfig(), _frame, lambda c, _: make_field(c)),
    "image": _IMAGE,
    "superres": _IMAGE,
    "denoise": _IMAGE,
    "audio": _Kind(AudioConfig(), Track, audio_field),
}


def field_file(path: Path) -> Path:
    """The file that is meant: a folder of results stands for the field in it."""
    return path / FIELD_FILE if path.is_dir() else path


def save_field(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a field, the configuration that builds it, and its frame.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = {
        "format": FORMAT,
        "task": checkpoint.config.task,
        "config": asdict(checkpoint.config),
        "frame": asdict(checkpoint.frame),
        "file": checkpoint.file,
        "seed": checkpoint.seed,
    }
    tensors = {name: value.detach().cpu().clone() for name, value in checkpoint.field.state_dict().items()}
    try:
        save_file(tensors, path, metadata={KEY: json.dumps(about)})
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error


def load_field(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads what `save_field` wrote; `path` is that file, or the folder of results that it lies in.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else than a field.
    """
    from safetensors import SafetensorError, safe_open

    path = field_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if "task" not in about:
        raise ValueError(f"{path} holds no field of staf_nerf")
    if about["format"] != FORMAT:
        raise ValueError(f"{path} has format {about['format']}, this version of staf_nerf reads format {FORMAT}")
    if about["task"] not in KINDS:
        raise ValueError(f"{path} holds a field of an unknown task {about['task']!r}")
    kind = KINDS[about["task"]]
    config, frame = override(kind.config, about["config"]), kind.frame(**about["frame"])
    field = kind.field(config, frame).to(device)
    field.load_state_dict(tensors)
    return Checkpoint(field, config, frame, about.get("file"), about.get("seed", 0))


def load_shape(path: Path, *, device: torch.device | str = "cpu") -> tuple[nn.Module, ShapeConfig, Frame]:
    """Reads the field of a shape.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else: not a field, or another signal's.
    """
    found = load_field(path, device=device)
    if not isinstance(found.config, ShapeConfig):
        raise ValueError(f"a field of a shape is needed, {path} holds one of: {found.config.task}")
    return found.field, found.config, found.frame
