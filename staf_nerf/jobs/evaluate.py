"""`staf eval`: computes the metrics of a fitted field on the file that it was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from staf_nerf.checkpoint import Checkpoint, load_field
from staf_nerf.config import AudioConfig, ImageConfig
from staf_nerf.evaluation import measure_points, measure_shape, shape_mesh
from staf_nerf.jobs import image
from staf_nerf.jobs.fitting import choose_device
from staf_nerf.jobs.shape import read_shape
from staf_nerf.mesh.triangles import TriangleMesh
from staf_nerf.signals.audio import measure_sound, read_sound, render_sound
from staf_nerf.signals.image import ImageTask, read_image


@dataclass(frozen=True)
class Evaluate:
    """Computes the metrics of a fitted field again, those of metrics.json."""

    checkpoint: Positional[Path]
    """A field.safetensors file written by `staf fit`, or the folder that contains it."""
    file: Path | None = None
    """File that the field was fitted to. Defaults to the path stored in the checkpoint."""
    resolution: int = 256
    """Shapes only: number of cells along each axis of the grid on which the surface is extracted."""
    device: str | None = None
    """"cpu", "cuda" or "mps". Defaults to CUDA if it is available, otherwise the CPU."""
    output: Path | None = None
    """JSON file for the metrics."""


def run(job: Evaluate) -> dict[str, Any]:
    """Computes the metrics, prints them, and returns the content of the JSON file."""
    device = choose_device(job.device)
    checkpoint = load_field(job.checkpoint, device=device)
    file = job.file or (Path(checkpoint.file) if checkpoint.file else None)
    if file is None:
        raise ValueError(f"{job.checkpoint} does not name the file that it was fitted to; name it with --file")
    if not file.is_file():
        raise FileNotFoundError(f"{file}, which {job.checkpoint} was fitted to, does not exist; name it with --file")
    measures = measure(checkpoint, file, device=device, resolution=job.resolution)
    table = Table("metric", "value", title=f"{job.checkpoint} compared with {file}")
    for name, value in measures.items():
        table.add_row(name.replace("_", " "), f"{value:.5g}" if isinstance(value, float) else str(value))
    Console().print(table)
    return {"checkpoint": str(job.checkpoint), "file": file.name, "task": checkpoint.config.task, "measures": measures}


def measure(
    checkpoint: Checkpoint, file: Path, *, device: torch.device | str = "cpu", resolution: int = 256
) -> dict[str, Any]:
    """Returns the metrics of a field on its file.

    Raises:
        ValueError: If the file differs in size or kind from the one that the field was fitted to.
    """
    field, config, frame = checkpoint.field, checkpoint.config, checkpoint.frame
    if isinstance(config, ImageConfig):
        task = ImageTask.of(read_image(file), config, seed=checkpoint.seed)
        _refuse_other(file, task.raster, frame)
        return image.measure(checkpoint, task, device)[1]
    if isinstance(config, AudioConfig):
        sound, track = read_sound(file)
        _refuse_other(file, track, frame)
        return {**measure_sound(render_sound(field, frame, device=device), sound)}
    shape, _ = read_shape(file)
    mesh = shape_mesh(field, config, frame, resolution=resolution)
    if isinstance(shape, TriangleMesh):
        return measure_shape(field, config, frame, mesh, shape, seed=checkpoint.seed)
    return measure_points(field, frame, mesh, shape, seed=checkpoint.seed)


def _refuse_other(file: Path, found: Any, fitted: Any) -> None:
    if found != fitted:
        raise ValueError(f"{file} is {found}, but the field was fitted to {fitted}")
