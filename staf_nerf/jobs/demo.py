"""`staf demo`: trains a method on the shipped scene, evaluates it, and makes pictures, a film and a mesh."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table
from torch import Tensor

from staf_nerf.errors import unusable
from staf_nerf.fields import count_parameters
from staf_nerf.jobs import mesh
from staf_nerf.machine.cores import shared_cores
from staf_nerf.machine.device import detect_device
from staf_nerf.plugin import run
from staf_nerf.plugin.cameras import turntable
from staf_nerf.plugin.held_out import spread
from staf_nerf.plugin.mesh_source import source_of
from staf_nerf.plugin.methods import trainer_config
from staf_nerf.plugin.model import StafModel
from staf_nerf.plugin.trainer import StafTrainer
from staf_nerf.presets import load_preset, override, resource
from staf_nerf.progress import Attempts

HELD_OUT_CHECKS = 20
"""Number of times that the held-out view of the progress bar is rendered during training."""
FRAMES_PER_SECOND = 16
MESH_VIEW_PIXELS = 128
"""Longest side of the depth maps that the mesh is made from, in pixels."""


@shared_cores()
def demo(*, method: str, data: Path | None, steps: int, output: Path, seed: int, frames: int) -> Path:
    """Trains a method, evaluates it on all test views, and makes a contact sheet, a turntable film and a mesh.

    Each result is printed as soon as it exists. If a stage fails, the results of the other stages are kept.

    Returns:
        The folder of the run.

    Raises:
        KeyboardInterrupt: If the user interrupts the training, after a checkpoint was saved.
        FileNotFoundError: If no capture is given and this installation does not contain the scene.
        ValueError: If a number is out of range.
        IncompleteError: At the end, if a stage failed.
    """
    if frames < 0:
        raise ValueError(f"frames must be >= 0, got {frames}")
    console = Console()
    attempts = Attempts(console)
    device = detect_device()
    preset = override(load_preset(method, device), {"training": {"steps": steps}})
    config = trainer_config(method, preset, device)
    config.pipeline.datamanager.data = data or shipped_scene()
    config.output_dir, config.experiment_name = output.parent.absolute(), output.name
    if (problem := unusable("open3d")) is not None:
        console.print(f"There will be no mesh: {problem}", style="yellow", markup=False, soft_wrap=True)
    console.print(f"Training {method} on {config.pipeline.datamanager.data} ({device}); Ctrl-C saves and stops.")
    with run.quiet():
        trainer = run.set_up(config, seed=seed, test_mode="val")
    assert isinstance(trainer, StafTrainer)
    assert isinstance(trainer.pipeline.model, StafModel)
    folder, model = config.get_base_dir(), trainer.pipeline.model
    rays = preset.training.rays_per_step
    start = time.perf_counter()
    try:
        with _progress(console, trainer, rays) as on_step, run.quiet():
            run.train(trainer, on_step)
    except KeyboardInterrupt:
        console.print(
            f"Stopped and saved at step {trainer.last_step}. To continue:\n  {trainer.resume_command()}", soft_wrap=True
        )
        raise
    seconds = time.perf_counter() - start

    with run.quiet():
        manager = config.pipeline.datamanager.setup(device=trainer.device, test_mode="test", world_size=1, local_rank=0)
    training = {
        "training_seconds": round(seconds, 1),
        "steps": preset.training.steps,
        "training_rays_per_second": round(preset.training.steps * rays / seconds),
        "parameters": count_parameters(model),
        "method": method,
        "seed": seed,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    with attempts.attempt("test views"):
        scores, shown = _test(model, manager, console)
        (folder / "metrics.json").write_text(json.dumps({**scores, **training}, indent=1) + "\n")
        console.print(_table({**scores, **training}))
        with attempts.attempt("contact sheet"):
            contact_sheet(shown, folder / "contact_sheet.png")
    _show_commands(console, folder, trainer)
    if frames:
        with attempts.attempt("turntable"), run.quiet():
            region = manager.train_dataset.metadata.get("region")
            cameras = turntable(manager.train_dataset.cameras, frames, region)
            pictures = track(run.pictures(model, cameras), "turntable", total=frames, console=console)
            film(pictures, folder / "turntable.mp4")
    if "turntable" in attempts.failed:
        (folder / "turntable.mp4").unlink(missing_ok=True)  # what there is of it
    with attempts.attempt("mesh"), run.quiet():
        source = source_of(model, trainer.pipeline.datamanager, most_pixels=MESH_VIEW_PIXELS)
        mesh.make_mesh(source, mesh.MakeMesh(folder / "mesh.glb"), console)
    _show_files(console, folder)
    attempts.refuse_failures()
    return folder


def shipped_scene() -> Path:
    """Returns the folder of the scene that is shipped in the repository.

    Raises:
        FileNotFoundError: If this installation does not contain it. A wheel does not.
    """
    try:
        return resource("scenes") / "tin_robot"
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "the demo's scene is not in this installation: it lies in the repository, in scenes/tin_robot. "
            "Install from a clone (pip install -e .), or use a capture of your own: staf demo FOLDER"
        ) from error


def _test(model: StafModel, manager: Any, console: Console) -> tuple[dict[str, Any], list[list[np.ndarray]]]:
    """Renders all test views. Returns their metrics and the rendering speed, and the panels of four views."""
    total = len(manager.eval_dataset)
    shown: dict[int, list[np.ndarray]] = {}
    with Progress(TextColumn("test views"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
        task = progress.add_task("", total=total)

        def on_view(i: int, outputs: dict[str, Any], batch: dict[str, Any]) -> None:
            if i in spread(total, 4):
                shown[i] = panels(batch["image"], outputs["rgb"], outputs["depth"])
            progress.advance(task)

        start = time.perf_counter()
        with run.quiet():
            scores = run.evaluate(model, manager, on_view)
        seconds = time.perf_counter() - start
    pixels = sum(int(camera.height) * int(camera.width) for camera in manager.eval_dataset.cameras)
    speed = {"test_views": total, "rendering_rays_per_second": round(pixels / seconds)}
    return {**scores, **speed}, list(shown.values())


@contextmanager
def _progress(console: Console, trainer: StafTrainer, rays: int) -> Iterator[run.OnStep]:
    """Context of a progress bar: step, loss, PSNR on a held-out view, rays per second, time left."""
    steps = trainer.config.max_num_iterations
    every = max(steps // HELD_OUT_CHECKS, 1)
    camera, truth = run.held_out_view(trainer)
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(
            "loss {task.fields[loss]:.4f}  held-out PSNR {task.fields[psnr]:.2f} dB  {task.fields[speed]:.0f} rays/s"
        ),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, loss=math.nan, psnr=math.nan, speed=0.0)
        clock = {"start": time.perf_counter(), "step": trainer.step}

        def on_step(_: Any, step: int) -> None:
            if step % 10 == 9:
                now = time.perf_counter()
                speed = (step - clock["step"]) * rays / max(now - clock["start"], 1e-9)
                clock.update(start=now, step=step)
                progress.update(task, completed=step + 1, loss=trainer.latest_loss, speed=speed)
            if step % every == every - 1:
                progress.update(task, psnr=run.view_psnr(trainer.pipeline.model, camera, truth))
                clock.update(start=time.perf_counter(), step=step)

        yield on_step
        progress.update(task, completed=steps)


# --- pictures --------------------------------------------------------------------------------------------------------


def panels(truth: Tensor, rgb: Tensor, depth: Tensor) -> list[np.ndarray]:
    """Returns truth, render, error and inverse depth of one view as images (H, W, 3) in [0, 1]."""
    from matplotlib import colormaps

    truth_np, rgb_np = (image[..., :3].cpu().numpy() for image in (truth, rgb))
    error = np.abs(truth_np - rgb_np).mean(-1)
    near = 1.0 / depth[..., 0].clamp(min=1e-6).cpu().numpy()
    low, high = np.percentile(near, (2, 98))
    scaled = np.clip((near - low) / max(high - low, 1e-9), 0, 1)
    return [
        truth_np,
        rgb_np,
        colormaps["magma"](np.clip(error / 0.25, 0, 1))[..., :3],
        colormaps["viridis"](scaled)[..., :3],
    ]


def contact_sheet(rows: list[list[np.ndarray]], path: Path) -> None:
    """Writes a picture with one row per view: truth, render, error, inverse depth."""
    from matplotlib.figure import Figure

    titles = ("truth", "render", "error (0 to 0.25)", "inverse depth")
    height, width = rows[0][0].shape[:2]
    figure = Figure(
        figsize=(3.0 * len(titles), (3.0 * height / width) * len(rows) + 0.35), dpi=128, layout="constrained"
    )
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for image, axis in zip(row, line, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    figure.savefig(path)


def film(pictures: Iterable[np.ndarray], path: Path) -> None:
    """Writes pictures (H, W, 3) of bytes to an H.264 film."""
    import imageio.v3 as imageio

    even = [picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2] for picture in pictures]  # as H.264 needs
    imageio.imwrite(path, np.stack(even), plugin="pyav", codec="libx264", fps=FRAMES_PER_SECOND)


def _table(metrics: dict[str, Any]) -> Table:
    table = Table(title="staf demo", show_header=False)
    for name, value in metrics.items():
        if not isinstance(value, list):
            table.add_row(name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else f"{value}")
    return table


def _show_commands(console: Console, folder: Path, trainer: StafTrainer) -> None:
    """Prints commands for the run, whose checkpoint is saved."""
    config = shlex.quote(str(folder / "config.yml"))
    commands = {
        "view it": f"ns-viewer --load-config {config}",
        "train on": trainer.resume_command(2 * trainer.config.max_num_iterations),
        "evaluate": f"ns-eval --load-config {config} --output-path {shlex.quote(str(folder / 'eval.json'))}",
        "render": f"ns-render interpolate --load-config {config} --output-path {shlex.quote(str(folder / 'path.mp4'))}",
    }
    for name, command in commands.items():
        console.print(f"[bold]{name:>9}[/bold]  {command}", soft_wrap=True, highlight=False)


def _show_files(console: Console, folder: Path) -> None:
    """Prints the paths of the result files that exist."""
    files = {
        "metrics": "metrics.json",
        "views": "contact_sheet.png",
        "film": "turntable.mp4",
        "mesh": "mesh.glb",
        "picture": "mesh.preview.png",
    }
    for name, file in files.items():
        if (folder / file).is_file():
            console.print(f"[bold]{name:>9}[/bold]  {folder / file}", soft_wrap=True, highlight=False)
