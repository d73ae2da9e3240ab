"""Fields in files: weights as safetensors, and beside them what is needed to build the field and to use it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from staf_nerf.config import ShapeConfig
from staf_nerf.presets import override
from staf_nerf.signals.shape import Frame, make_field

KEY, FORMAT = "staf_nerf", 1
"""Of the metadata, and the number of its format."""


def save_shape(path: Path, field: nn.Module, config: ShapeConfig, frame: Frame) -> None:
    """Writes a shape's field, the configuration that builds it, and the frame it lives in.

    Raises:
        OSError: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = {"format": FORMAT, "task": config.task, "config": asdict(config), "frame": asdict(frame)}
    tensors = {name: value.detach().cpu().clone() for name, value in field.state_dict().items()}
    try:
        save_file(tensors, path, metadata={KEY: json.dumps(about)})
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error


def load_shape(path: Path, *, device: torch.device | str = "cpu") -> tuple[nn.Module, ShapeConfig, Frame]:
    """Reads what `save_shape` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else: not a field, or another signal's.
    """
    from safetensors import SafetensorError, safe_open

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
    if about["task"] != "shape":
        raise ValueError(f"a field of a shape is needed, {path} holds one of: {about['task']}")
    config = override(ShapeConfig(), about["config"])
    field = make_field(config).to(device)
    field.load_state_dict(tensors)
    center, scale = about["frame"]["center"], about["frame"]["scale"]
    return field, config, Frame(tuple(center), scale)
