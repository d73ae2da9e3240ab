"""`staf eval`: computes the metrics of a fitted field on its file, or those of a run on its held-out views."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from tyro.conf import Positional, arg

from staf_nerf.checkpoint import FIELD_FILE, Checkpoint, load_field
from staf_nerf.jobs.fit import choose_device
from staf_nerf.jobs.output import metric_rows, metrics_table
from staf_nerf.mesh.export import check_writable
from staf_nerf.progress import Stages
from staf_nerf.tasks import find_task


@dataclass(frozen=True)
class Evaluate:
    """Computes the metrics of a fitted field again, those of metrics.json. Or those of a run, on its held-out views."""

    checkpoint: Annotated[Positional[Path], arg(metavar="FIELD|RUN")]
    """The field.safetensors of `staf fit`, or the config.yml of a run (`ns-train`, `staf demo`).
    Or the folder that contains it."""
    file: Path | None = None
    """Fields only: file that the field was fitted to. Defaults to the path stored in the checkpoint."""
    resolution: int | None = None
    """Shapes only: number of cells along each axis of the grid on which the surface is extracted. Defaults to 256."""
    views: int | None = None
    """Runs only: largest number of held-out views, spread evenly over all. Defaults to all."""
    device: Annotated[str | None, arg(metavar="{cpu,cuda,mps}")] = None
    """Fields only: device of the computation. Defaults to CUDA if it is available, otherwise the CPU."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the metrics."""

    def __post_init__(self) -> None:
        if self.views is not None and self.views < 1:
            raise ValueError(f"views must be >= 1, got {self.views}")


def evaluate(job: Evaluate) -> dict[str, Any]:
    """Computes the metrics of a field or a run, prints them, and returns the content of the JSON file.

    Raises:
        ValueError: If an option has no effect, or what was named is neither a field nor a run.
        FileNotFoundError: If it does not exist, or its file does not.
        OSError: If the JSON file cannot be written.
    """
    if job.output is not None:
        check_writable(job.output)
    is_run = job.checkpoint.suffix in (".yml", ".yaml") or (
        (job.checkpoint / "config.yml").is_file() and not (job.checkpoint / FIELD_FILE).is_file()
    )
    for name in ("file", "resolution", "device") if is_run else ("views",):
        if getattr(job, name) is not None:
            raise ValueError(f"--{name} has no effect on a {'run' if is_run else 'fitted field'}: {job.checkpoint}")
    return evaluate_run(job) if is_run else evaluate_field(job)


def evaluate_run(job: Evaluate) -> dict[str, Any]:
    """Computes the metrics of a run on its held-out views, prints them, and returns the content of the JSON file.

    Of each metric there is the mean over the views, and the standard deviation if there are several.
    """
    from staf_nerf.plugin import run

    console = Console()
    with run.quiet():
        saved = run.open_saved(job.checkpoint)
    held_out = saved.manager.eval_dataset.image_filenames
    count = min(len(held_out), job.views or len(held_out))
    files: list[str] = []
    start = time.perf_counter()
    with Stages(console) as stages, stages("views") as report:

        def on_view(number: int, _: dict[str, Any], batch: dict[str, Any]) -> None:
            files.append(held_out[int(batch["image_idx"])].name)
            report((number + 1) / count, f"{number + 1} of {count}")

        with run.quiet():
            found = run.evaluate(saved.model, saved.manager, on_view, count=job.views)
    seconds = time.perf_counter() - start
    views = found["views"]
    metrics = {name: statistics.fmean(view[name] for view in views) for name in views[0]}
    deviations = {name: statistics.stdev(view[name] for view in views) if count > 1 else None for name in metrics}
    rows = {name: _with_deviation(metrics[name], deviations[name]) for name in metrics}
    rows |= {"views": f"{count} of {len(held_out)}", "seconds": f"{seconds:.1f}"}
    console.print(metrics_table(f"held-out views of {job.checkpoint}", rows))
    return {
        "run": str(job.checkpoint),
        "method": saved.config.method_name,
        "checkpoint": saved.checkpoint.name,
        "metrics": metrics,
        "standard_deviations": deviations,
        "held_out": len(held_out),
        "seconds": round(seconds, 3),
        "views": [{"file": file, **view} for file, view in zip(files, views, strict=True)],
    }


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{mean:.5g}" if deviation is None else f"{mean:.5g} ± {deviation:.2g}"


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
