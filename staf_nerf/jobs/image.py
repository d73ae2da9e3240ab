"""`staf fit image | superres | denoise`: fits a field to an image, and writes it with metrics and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Generator, nn
from tyro.conf import OmitArgPrefixes

from staf_nerf.checkpoint import FIELD_FILE, Checkpoint, save_field
from staf_nerf.config import ImageConfig
from staf_nerf.fields import FieldStack, NeuralField
from staf_nerf.fit import History, steps_of_a_pass
from staf_nerf.jobs.figures import SinusoidTrace, draw_error_map, draw_picture
from staf_nerf.jobs.fitting import (
    SCORE,
    FitFiles,
    Processes,
    fit_signal,
    history_of,
    processes,
    refuse_failures,
    remove_old_results,
    say_left,
    trace_of,
    write_results,
)
from staf_nerf.jobs.progress import Stages
from staf_nerf.memory import keep_freed_memory
from staf_nerf.presets import load_preset
from staf_nerf.signals.image import (
    DEPTHS,
    ImageSignal,
    ImagesSignal,
    ImageTask,
    Pixels,
    image_field,
    image_psnr,
    psnr,
    read_image,
    render,
    render_and_measure,
    write_image,
)
from staf_nerf.signals.sampling import refuse_unused_frequency


def _preset(task: Literal["image", "superres", "denoise"]) -> ImageConfig:
    return load_preset(task, "cpu", ImageConfig(task=task))


@dataclass(frozen=True)
class FitImages(FitFiles):
    """Options shared by the fits of images."""

    together: int = 8
    """Largest number of images that are fitted at once.
    Images are fitted at once if they have equally many channels, and equally many pixels per step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.together < 1:
            raise ValueError(f"together must be >= 1, got {self.together}")


@dataclass(frozen=True)
class FitImage(FitImages):
    """Fits an image. Writes the field, the image at any scale, metrics and a report."""

    config: OmitArgPrefixes[ImageConfig] = field(default_factory=lambda: _preset("image"))
    """Network and training."""


@dataclass(frozen=True)
class FitSuperResolution(FitImages):
    """Super-resolution: reduces an image by averaging, fits the result, and renders it at the original size."""

    config: OmitArgPrefixes[ImageConfig] = field(default_factory=lambda: _preset("superres"))
    """Network and training."""


@dataclass(frozen=True)
class FitNoisyImage(FitImages):
    """Denoising: fits a noisy image, validated on held-out pixels. Noise is added to the file unless --photons is 0."""

    config: OmitArgPrefixes[ImageConfig] = field(default_factory=lambda: _preset("denoise"))
    """Network and training."""


Job = FitImage | FitSuperResolution | FitNoisyImage


@dataclass(frozen=True)
class _Work:
    """One image that is being fitted."""

    file: Path
    output: Path
    task: ImageTask
    signal: ImageSignal
    model: NeuralField
    trace: SinusoidTrace

    def kind(self, job: Job) -> tuple[int, int, int]:
        """Properties that images fitted together share: channels, pixels per step, and steps per epoch if needed."""
        points = job.config.fit.points
        pixels = self.task.given_raster.pixels
        passes = job.score_passes or job.config.fit.passes
        return (
            self.task.raster.channels,
            points if 0 < points < pixels else pixels,
            steps_of_a_pass(self.signal, points) if passes else 0,
        )


def run(job: Job) -> list[dict[str, Any]]:
    """Runs the job and returns the content of each `metrics.json` (under torchrun: for this process's files)."""
    refuse_unused_frequency(job.config.field, band=job.config.band)
    keep_freed_memory()
    results, fitted = [], 0
    with processes(len(job.files)) as mine:
        pairs = job.work(job.config.task, mine)
        for group in _groups(job, pairs, mine):
            found, is_interrupted = _fit_together(job, group, mine)
            results += found
            fitted += len(group)
            if is_interrupted:
                say_left(len(pairs) - fitted, mine.console)
                break
    refuse_failures(results)
    return results


def _groups(job: Job, pairs: Sequence[tuple[Path, Path]], mine: Processes) -> Iterator[list[_Work]]:
    """Yields groups of images to fit together. At most one group and one further image are in memory.

    With held-out pixels every image is a group of its own, as the best weights are chosen for each image.
    """
    group: list[_Work] = []
    for file, output in pairs:
        work = _read(job, file, output, mine.console)
        if group and (work.kind(job) != group[0].kind(job) or len(group) == job.together or job.config.held_out):
            yield group
            group = []
        group.append(work)
    if group:
        yield group


def _read(job: Job, file: Path, output: Path, console: Console) -> _Work:
    pixels = read_image(file)
    task = ImageTask.of(pixels, job.config, seed=job.seed)
    if job.score_passes and task.truth is None:
        raise ValueError(f"score_passes needs a truth, and a file that is already noisy has none: {file}")
    console.print(f"{file}: {pixels.shape[1]} x {pixels.shape[0]}, {pixels.shape[2]} channels, {pixels.dtype.name}")
    signal = ImageSignal(task.given, job.config, raster=task.given_raster, seed=job.seed, device=job.where)
    model = image_field(job.config, task.given_raster, generator=Generator().manual_seed(job.seed)).to(job.where)
    return _Work(file, output, task, signal, model, trace_of(model, output, resume=job.resume))


def _fit_together(job: Job, group: list[_Work], mine: Processes) -> tuple[list[dict[str, Any]], bool]:
    """Fits a group in the time that its images would take one by one, and writes the results of each image.

    Returns the results, and whether the fit was interrupted.
    """
    config, first, alone = job.config, group[0], len(group) == 1
    stages = Stages(mine.console)

    def score(_: nn.Module) -> dict[str, float]:
        found = [image_psnr(work.model, work.task.raster, work.task.whole, device=job.where) for work in group]
        return {SCORE: found[0]} if alone else {str(number): value for number, value in enumerate(found)}

    with stages, stages("fitting") as report:
        whole = fit_signal(
            first.model if alone else FieldStack([work.model for work in group]),
            first.signal if alone else ImagesSignal([work.signal for work in group]),
            dataclasses.replace(config, fit=dataclasses.replace(config.fit, minutes=len(group) * config.fit.minutes)),
            first.output,
            seed=job.seed,
            subject=", ".join(work.file.name for work in group),
            traces=[work.trace for work in group],
            report=report,
            criterion=first.signal.held_out_error if config.held_out else None,
            score=score if job.score_passes else None,
        )
    if not mine.writes:
        return [], whole.interrupted
    histories = [whole] if alone else [history_of(whole, number) for number in range(len(group))]
    return [_finish(job, *one, stages, mine) for one in zip(group, histories, strict=True)], whole.interrupted


def _finish(job: Job, work: _Work, history: History, fitting: Stages, mine: Processes) -> dict[str, Any]:
    """Computes the metrics, draws the figures and writes all results of an image."""
    config, output, task, model = job.config, work.output, work.task, work.model
    checkpoint = Checkpoint(model, config, task.raster, str(work.file), job.seed)
    save_field(output / FIELD_FILE, checkpoint)
    remove_old_results(output)
    with Stages(mine.console, dict(fitting.seconds)) as stages:
        found: Pixels | None = None
        measures: dict[str, float | None] = {}
        with stages.attempt("measures"):
            found, measures = measure(checkpoint, task, job.where)
        figures: list[tuple[str, Path]] = []
        with stages.attempt("image"):
            if found is None:
                found = render(model, task.raster, device=job.where)
            made = found if job.scale == 1.0 else render(model, task.raster, scale=job.scale, device=job.where)
            write_image(output / f"image{'.png' if task.raster.dtype in DEPTHS else '.exr'}", made)
        with stages.attempt("pictures"):
            if found is not None:
                figures = _draw(output, found, task)
    return write_results(
        output,
        work.file,
        config,
        job.seed,
        model=model,
        history=history,
        trace=work.trace,
        measures=measures,
        figures=figures,
        stages=stages,
    )


def measure(
    checkpoint: Checkpoint, task: ImageTask, device: torch.device | str
) -> tuple[Pixels, dict[str, float | None]]:
    """Returns the rendered image and its metrics. Without a truth the metrics compare it with the noisy pixels."""
    found, measures = render_and_measure(checkpoint.field, task.raster, task.whole, device=device)
    if task.truth is not None:
        return found, {**measures, **task.baseline()}
    config = checkpoint.config
    assert isinstance(config, ImageConfig)
    measures = {"psnr_to_noisy": measures["psnr"]}
    if config.held_out:
        signal = ImageSignal(task.given, config, raster=task.given_raster, seed=checkpoint.seed, device=device)
        measures["psnr_held_out"] = psnr(signal.held_out_error(checkpoint.field), 2.0)
    return found, measures


def _draw(output: Path, found: Pixels, task: ImageTask) -> list[tuple[str, Path]]:
    """Draws the figures, and returns them with their captions."""
    figures = [("rendered field", output / "found.png"), ("training data", output / "given.png")]
    draw_picture(figures[0][1], found, task.raster)
    draw_picture(figures[1][1], task.given_raster.clamped(torch.from_numpy(task.given)).numpy(), task.given_raster)
    if task.truth is not None:
        draw_error_map(output / "error.png", found, task.truth, task.raster)
        figures.append(("error of the rendered field", output / "error.png"))
    return figures
