"""`staf fit image | superres | denoise`: an image file in; a field, its picture, measures and a page out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Generator, nn
from tyro.conf import OmitArgPrefixes

from staf_nerf.checkpoint import Checkpoint, save_field
from staf_nerf.config import ImageConfig
from staf_nerf.jobs.figures import SinusoidTrace, draw_error_map, draw_picture
from staf_nerf.jobs.fitting import FitFiles, fit_signal, write_results
from staf_nerf.jobs.progress import Stages
from staf_nerf.memory import keep_freed_memory
from staf_nerf.presets import load_preset
from staf_nerf.signals.image import (
    DEPTHS,
    ImageSignal,
    ImageTask,
    image_field,
    measure_image,
    psnr,
    read_image,
    render,
    write_image,
)


def _preset(task: Literal["image", "superres", "denoise"]) -> ImageConfig:
    return load_preset(task, "cpu", ImageConfig(task=task))


@dataclass(frozen=True)
class FitImage(FitFiles):
    """Fits an image: each pixel at its place. Writes the field, its picture at any scale, measures and a page."""

    config: OmitArgPrefixes[ImageConfig] = field(default_factory=lambda: _preset("image"))
    """What is learned, and how."""


@dataclass(frozen=True)
class FitSuperResolution(FitFiles):
    """Fits an image of which only averages over blocks of pixels are known, and finds what lies between."""

    config: OmitArgPrefixes[ImageConfig] = field(default_factory=lambda: _preset("superres"))
    """What is learned, and how."""


@dataclass(frozen=True)
class FitNoisyImage(FitFiles):
    """Fits a noisy image as long as pixels that are held out are predicted better; the noise may be added first."""

    config: OmitArgPrefixes[ImageConfig] = field(default_factory=lambda: _preset("denoise"))
    """What is learned, and how."""


Job = FitImage | FitSuperResolution | FitNoisyImage


def run(job: Job) -> list[dict[str, Any]]:
    """Does the job and returns what each file's `metrics.json` holds."""
    keep_freed_memory()
    console = Console()
    return [fit_image(job, *pair, console) for pair in zip(job.files, job.folders(job.config.task), strict=True)]


def fit_image(job: Job, file: Path, output: Path, console: Console) -> dict[str, Any]:
    """One image."""
    config, pixels = job.config, read_image(file)
    task = ImageTask.of(pixels, config, seed=job.seed)
    console.print(f"{file}: {pixels.shape[1]} x {pixels.shape[0]}, {pixels.shape[2]} channels, {pixels.dtype.name}")
    signal = ImageSignal(task.given, config, raster=task.given_raster, seed=job.seed, device=job.where)
    model = image_field(config, task.given_raster, generator=Generator().manual_seed(job.seed)).to(job.where)
    trace = SinusoidTrace(model)
    criterion = signal.held_out_error if config.held_out else None
    with Stages(console) as stages:
        with stages("fitting") as report:
            history = fit_signal(
                model, signal, config.fit, output, seed=job.seed, trace=trace, report=report, criterion=criterion
            )
        checkpoint = Checkpoint(model, config, task.raster, str(file), job.seed)
        save_field(output / "field.safetensors", checkpoint)
        with stages("measures"):
            measures = measure(checkpoint, task, job.where)
        with stages("pictures"):
            made = render(model, task.raster, scale=job.scale, device=job.where)
            write_image(output / f"image{'.png' if task.raster.dtype in DEPTHS else '.exr'}", made)
            figures = _draw(output, model, task, job.where)
    return write_results(
        output,
        file,
        config,
        job.seed,
        model=model,
        history=history,
        trace=trace,
        measures=measures,
        seconds=stages.seconds,
        figures=figures,
        console=console,
    )


def measure(checkpoint: Checkpoint, task: ImageTask, device: torch.device | str) -> dict[str, float | None]:
    """The measures of a fitted image; of one that was noisy already, how well it predicts pixels it never saw."""
    if task.truth is not None:
        return {**measure_image(checkpoint.field, task.raster, task.truth, device=device), **task.baseline()}
    config = checkpoint.config
    assert isinstance(config, ImageConfig)
    measures = {"psnr_to_noisy": measure_image(checkpoint.field, task.raster, task.given, device=device)["psnr"]}
    if config.held_out:
        signal = ImageSignal(task.given, config, raster=task.given_raster, seed=checkpoint.seed, device=device)
        measures["psnr_held_out"] = psnr(signal.held_out_error(checkpoint.field), 2.0)
    return measures


def _draw(output: Path, model: nn.Module, task: ImageTask, device: torch.device) -> list[tuple[str, Path]]:
    """Pictures to look at, with their captions."""
    found = render(model, task.raster, device=device)
    figures = [("what the field has become", output / "found.png"), ("what it learned from", output / "given.png")]
    draw_picture(figures[0][1], found, task.raster)
    draw_picture(figures[1][1], task.given_raster.clamped(torch.from_numpy(task.given)).numpy(), task.given_raster)
    if task.truth is not None:
        draw_error_map(output / "error.png", found, task.truth, task.raster)
        figures.append(("the error against the whole image", output / "error.png"))
    return figures
