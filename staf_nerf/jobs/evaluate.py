"""`staf eval`: computes the metrics of a fitted field on the file that it was fitted to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from tyro.conf import Positional, arg

from staf_nerf.checkpoint import Checkpoint, load_field
from staf_nerf.jobs.fit import choose_device
from staf_nerf.jobs.output import metric_rows, metrics_table
from staf_nerf.tasks import find_task


@dataclass(frozen=True)
class Evaluate:
    """Computes the metrics of a fitted field again, those of metrics.json."""

    checkpoint: Positional[Path]
    """A field.safetensors file written by `staf fit`, or the folder that contains it."""
    file: Path | None = None
    """File that the field was fitted to. Defaults to the path stored in the checkpoint."""
    resolution: int | None = None
    """Shapes only: number of cells along each axis of the grid on which the surface is extracted. Defaults to 256."""
    device: str | None = None
    """"cpu", "cuda" or "mps". Defaults to CUDA if it is available, otherwise the CPU."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the metrics."""


def evaluate_field(job: Evaluate) -> dict[str, Any]:
    """Computes the metrics, prints them, and returns the content of the JSON file."""
    device = choose_device(job.device)
    checkpoint = load_field(job.checkpoint, device=device)
    file = job.file or (Path(checkpoint.file) if checkpoint.file else None)
    if file is None:
        raise ValueError(f"{job.checkpoint} does not name the file that it was fitted to; name it with --file")
    if not file.is_file():
        raise FileNotFoundError(f"{file}, which {job.checkpoint} was fitted to, does not exist; name it with --file")
    measures = measure(checkpoint, file, device=device, resolution=job.resolution)
    missing = find_task(checkpoint.config.task).missing
    Console().print(metrics_table(f"{job.checkpoint} compared with {file}", metric_rows(measures, missing)))
    return {"checkpoint": str(job.checkpoint), "file": file.name, "task": checkpoint.config.task, "metrics": measures}


def measure(
    checkpoint: Checkpoint, file: Path, *, device: torch.device | str = "cpu", resolution: int | None = None
) -> dict[str, Any]:
    """Returns the metrics of a field on its file.

    Raises:
        ValueError: If the file differs in size or kind from the one that the field was fitted to.
    """
    task = find_task(checkpoint.config.task)
    options = task.options
    if resolution is not None:
        if not hasattr(options, "resolution"):
            raise ValueError(f"resolution has no effect on a field of the task {task.name!r}")
        options = dataclasses.replace(options, resolution=resolution)
    problem = task.read(file, checkpoint.config, seed=checkpoint.seed)
    if problem.frame != checkpoint.frame:
        raise ValueError(f"{file} is {problem.frame}, but the field was fitted to {checkpoint.frame}")
    return problem.evaluate(checkpoint.field, options, device=device)
