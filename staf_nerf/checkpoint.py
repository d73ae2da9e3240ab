"""Files of fields: weights as safetensors, with the configuration and the coordinate frame in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from staf_nerf.config import ShapeConfig
from staf_nerf.migrations import FIELD_FORMAT, migrate
from staf_nerf.presets import override
from staf_nerf.signals.shape import Frame
from staf_nerf.tasks import find_task, tasks

KEY = "staf_nerf"
"""Metadata key of the description."""
FIELD_FILE = "field.safetensors"
"""File name of a field in a folder of results."""


@dataclass(frozen=True)
class Checkpoint:
    """A fitted field, with the information that defines its coordinates and values."""

    field: nn.Module
    config: Any
    """Settings of the fit; its `task` names the kind of signal."""
    frame: Any
    """What connects the numbers of the file with those of the field: a shape's `Frame`, an image's `Raster`, …"""
    file: str | None = None
    """Name of the file that the field was fitted to."""
    seed: int = 0
    """Random seed of the fit and of added noise."""


def field_file(path: Path) -> Path:
    """Returns the path of a field. A folder of results stands for the field in it."""
    return path / FIELD_FILE if path.is_dir() else path


def save_field(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a field with its configuration and frame to a safetensors file.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = {
        "format": FIELD_FORMAT,
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
    """Reads a field written by `save_field`.

    Args:
        path: The file, or the folder of results that contains it.
        device: Device of the field.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file does not contain a field.
    """
    from safetensors import SafetensorError, safe_open

    path = field_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            about = _description((file.metadata() or {}).get(KEY), path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    task = find_task(about["task"])
    try:
        config, frame = override(task.config, about["config"]), task.frame(about["frame"])
        field = task.field(config, frame).to(device)
        field.load_state_dict(tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{path} is damaged: its description and its tensors make no field. {reason}") from error
    return Checkpoint(field, config, frame, about.get("file"), about.get("seed", 0))


def _description(text: str | None, path: Path) -> dict[str, Any]:
    """Returns the description of a field from a file's metadata.

    Raises:
        ValueError: If it is missing, not valid, or of another version.
    """
    try:
        about = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: its metadata {KEY!r} is not JSON ({error})") from error
    if not isinstance(about, dict) or "task" not in about:
        raise ValueError(f"{path} does not contain a field of staf_nerf")
    try:
        about = migrate(about)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    if about["task"] not in list(tasks()):
        known = sorted(tasks())
        raise ValueError(f"{path} contains a field for the unknown task {about['task']!r}, the known ones are {known}")
    return about


def load_shape(path: Path, *, device: torch.device | str = "cpu") -> tuple[nn.Module, ShapeConfig, Frame]:
    """Reads the field of a shape, with its configuration and frame.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file does not contain a field, or contains one of another signal.
    """
    checkpoint = load_field(path, device=device)
    if not isinstance(checkpoint.config, ShapeConfig):
        raise ValueError(f"{path} must contain a field of a shape, got {checkpoint.config.task}")
    return checkpoint.field, checkpoint.config, checkpoint.frame
