"""Shared parts of the fits of images and sounds: options, training loop with progress bar, and output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import distributed, nn
from tyro.conf import Positional

from staf_nerf.config import AudioConfig, ImageConfig
from staf_nerf.errors import IncompleteError
from staf_nerf.fields import count_parameters
from staf_nerf.fit import RECORD_EVERY, History, Signal, fit
from staf_nerf.jobs.figures import SinusoidTrace, draw_curve
from staf_nerf.jobs.output import measures_table, prepare_folder, shown, write_page, write_whole
from staf_nerf.jobs.progress import Stages, peak_memory
from staf_nerf.signals.image import psnr

STATE = "state.pt"
"""File with the state of a fit that can be resumed."""
TRACE = "sinusoids.npz"
"""File with the sinusoids over time."""
LOSS = "squared error"
"""Name of the loss of image and sound signals."""
SCORE = "psnr"
"""Name of the metric that is computed after each epoch."""
PEAKS = {"image": 2.0, "superres": 2.0, "denoise": 2.0, "audio": 1.0}
"""Peak value for PSNR, in units of the field: the range of an image, the largest absolute value of a sound."""


def choose_device(name: str | None) -> torch.device:
    """Returns the device with that name. Defaults to CUDA if it is available, otherwise the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class FitFiles:
    """Options shared by the fits of images and sounds."""

    files: Positional[tuple[Path, ...]]
    """Files to fit."""
    output: Path | None = None
    """Output folder. With several files it contains a folder for each. Defaults to outputs/TASK/NAME."""
    scale: float = 1.0
    """Resolution of the written image or sound, relative to that of the file."""
    seed: int = 0
    """Random seed."""
    device: str | None = None
    """"cpu", "cuda" or "mps". Defaults to CUDA if it is available, otherwise the CPU."""
    overwrite: bool = False
    """Replace results in the output folder."""
    score_passes: bool = False
    """Also compute the PSNR of the whole signal after each epoch.
    Published tables quote the best epoch, which cannot be chosen without the true signal."""
    resume: bool = False
    """Continue an interrupted fit in the output folder. Finished fits are skipped."""
    preset: str | None = None
    """Preset or .toml file that sets the defaults of the other options (see method_configs/).
    It is read on the command line only."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("at least one file is needed")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")

    @property
    def where(self) -> torch.device:
        """The device of the computation."""
        return choose_device(self.device)

    def work(self, task: str, mine: Processes) -> list[tuple[Path, Path]]:
        """Returns the files that this process fits, each with its output folder. Creates the folders.

        Raises:
            ValueError: If a file is named twice.
            OSError: If a file does not exist, or a folder cannot be created or contains results already.
        """
        for file in self.files:
            if not file.is_file():
                raise FileNotFoundError(f"no file {file}")
        names = distinct_names(self.files)
        if self.output is not None and len(names) == 1:
            found = [self.output]
        else:
            found = [(self.output or Path("outputs") / task) / name for name in names]
        pairs = mine.share(self.files, found)
        if self.resume:
            for file, folder in pairs:
                if is_finished(folder):
                    mine.console.print(f"{file} is already finished, in {folder}")
            pairs = [(file, folder) for file, folder in pairs if not is_finished(folder)]
        for _, folder in pairs if mine.writes else []:
            may_replace = self.overwrite or self.resume
            if (folder / STATE).is_file() and not may_replace:
                raise FileExistsError(f"{folder} contains a fit; --resume continues it, --overwrite replaces it")
            prepare_folder(folder, overwrite=may_replace)
            if not self.resume:
                (folder / STATE).unlink(missing_ok=True)
        return pairs


@dataclass(frozen=True)
class Processes:
    """This process among those started by `torchrun`, which share the points of each file, or the files."""

    rank: int
    count: int
    joint: bool
    """Whether all processes work on the same file."""

    @property
    def writes(self) -> bool:
        """Whether this process writes results."""
        return self.rank == 0 or not self.joint

    @property
    def console(self) -> Console:
        """A console that prints in the first process only."""
        return Console(quiet=self.rank != 0)

    def share(self, files: Sequence[Path], folders: Sequence[Path]) -> list[tuple[Path, Path]]:
        """Returns the files of this process, with their folders."""
        pairs = list(zip(files, folders, strict=True))
        return pairs if self.joint else pairs[self.rank :: self.count]


@contextmanager
def processes(files: int) -> Iterator[Processes]:
    """Context that joins the processes of `torchrun`. With fewer files than processes all work on the same file."""
    count, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    joint = count == 1 or files < count
    if not joint or count == 1:
        yield Processes(rank, count, joint)
        return
    distributed.init_process_group("gloo")
    try:
        yield Processes(rank, count, joint)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def is_finished(folder: Path) -> bool:
    """Returns whether a folder contains the results of a fit that was not interrupted."""
    try:
        return not json.loads((folder / "metrics.json").read_text())["interrupted"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def say_left(left: int, console: Console) -> None:
    """Prints how many files were not fitted because of an interrupt."""
    if left:
        console.print(f"[yellow]files not fitted yet: {left}; --resume continues with them")


def distinct_names(files: Sequence[Path]) -> list[str]:
    """Returns a folder name for each file: its stem, or its whole name if stems are equal.

    Raises:
        ValueError: If the whole names are equal, too.
    """
    stems = [file.stem for file in files]
    names = [file.stem if stems.count(file.stem) == 1 else file.name for file in files]
    if len(set(names)) < len(names):
        raise ValueError(f"files must have different names, got {[str(file) for file in files]}")
    return names


def fit_signal(
    model: nn.Module,
    signal: Signal,
    config: ImageConfig | AudioConfig,
    output: Path,
    *,
    seed: int,
    subject: str,
    traces: Sequence[SinusoidTrace],
    report: Callable[..., None],
    criterion: Callable[[nn.Module], float] | None = None,
    score: Callable[[nn.Module], dict[str, float]] | None = None,
) -> History:
    """Runs `fit` with traces, a state file, and a progress bar with the PSNR (its range for several signals)."""

    def on_progress(done: float, history: History) -> None:
        if history.steps % (10 * RECORD_EVERY) <= RECORD_EVERY:
            for trace in traces:
                trace.record(history.steps)
        worst, best = (f"{psnr(chosen(history.latest.values()), PEAKS[config.task]):.2f}" for chosen in (max, min))
        report(done, f"{best} dB" if len(history.latest) == 1 else f"{worst} to {best} dB")

    return fit(
        model,
        signal,
        config.fit,
        seed=seed,
        progress=on_progress,
        criterion=criterion,
        score=score,
        resume=output / STATE,
        subject=subject,
    )


def trace_of(model: nn.Module, output: Path, *, resume: bool) -> SinusoidTrace:
    """Returns a trace of a model's sinusoids. With `resume` it continues the trace in the folder."""
    trace = SinusoidTrace(model)
    if resume and (output / TRACE).is_file():
        trace.load(output / TRACE)
    return trace


def history_of(whole: History, number: int) -> History:
    """Returns the history of one of several signals that were fitted together."""
    rows = [{k: row[k] for k in ("step", "seconds")} | {LOSS: row[str(number)]} for row in whole.losses]
    passes = [{"step": row["step"], SCORE: row[str(number)]} for row in whole.passes]
    return replace(whole, losses=rows, passes=passes)


RESULTS = (
    "curve.png", "error.png", "found.png", "given.png", "image.exr", "image.png", "metrics.json", "report.html",
    "sinusoids.png", "sound.wav", "spectrograms.png", "waves.png",
)  # fmt: skip
"""Files of a finished fit beside the field and the trace."""


def remove_old_results(output: Path, names: Sequence[str] = RESULTS) -> None:
    """Removes the results of an earlier fit from a folder, so that none of them is taken for this fit's."""
    for name in names:
        (output / name).unlink(missing_ok=True)


def write_results(
    output: Path,
    file: Path,
    config: Any,
    seed: int,
    *,
    model: nn.Module,
    history: History,
    trace: SinusoidTrace,
    measures: dict[str, float | None],
    figures: list[tuple[str, Path]],
    stages: Stages,
) -> dict[str, Any]:
    """Writes metrics.json and report.html, prints the metrics, and returns the content of metrics.json.

    Figures that cannot be drawn are left out. The reason is printed and recorded in metrics.json under "failed".
    """
    console = stages.console
    scores = [row[SCORE] for row in history.passes]
    if scores:
        measures = {**measures, "psnr_of_best_pass": max(scores)}
    found = {
        "file": file.name,
        "config": asdict(config),
        "first_omega": first_layer_omega(model),
        "seed": seed,
        "parameters": count_parameters(model),
        "steps": history.steps,
        "interrupted": history.interrupted,
        "rollbacks": history.rollbacks,
        "seconds": dict(stages.seconds),
        "peak_memory_bytes": peak_memory(),
        "measures": measures,
        "losses": history.losses,
        "held_out": history.held_out,
        "psnr_of_passes": scores,
    }
    if history.losses:
        with stages.attempt("curve"):
            draw_curve(output / "curve.png", history, PEAKS[config.task])
            figures = [*figures, ("learning curve", output / "curve.png")]
    if trace.steps:
        with stages.attempt("sinusoids"):
            trace.save(output / TRACE)
            trace.draw(output / "sinusoids.png")
            figures = [*figures, ("sinusoids of each layer during training", output / "sinusoids.png")]
    settings = {name: found[name] for name in ("config", "first_omega", "seed")}
    with stages.attempt("report"):
        write_page(output / "report.html", f"{file.name}: {config.task}", shown(found), figures, settings)
    found["failed"] = stages.failed
    for step in history.rollbacks:
        console.print(f"[yellow]the loss was NaN or infinite at step {step}: went back, and halved the learning rates")
    if history.interrupted:
        console.print("[yellow]interrupted: the results so far are saved, and --resume continues the fit")
    console.print(measures_table(found))
    with stages.attempt("metrics.json"):
        write_whole(output / "metrics.json", json.dumps(found, indent=1) + "\n")
    console.print(f"Written to {output}: {', '.join(sorted(p.name for p in output.iterdir() if p.name != STATE))}")
    return found


def refuse_failures(results: Sequence[Mapping[str, Any]]) -> None:
    """Ends a job with an error if a result could not be made, after all others were written.

    Raises:
        IncompleteError: If a result of a file could not be made.
    """
    failed = [f"{found['file']}: {', '.join(found['failed'])}" for found in results if found["failed"]]
    if failed:
        raise IncompleteError(f"not all results were made; failed, for the reasons above: {'; '.join(failed)}")


def first_layer_omega(model: nn.Module) -> float | None:
    """Returns the initial frequency scale of the first layer in radians per unit, if its activation has one."""
    activations = getattr(getattr(model, "mlp", None), "activations", [])
    return getattr(activations[0], "omega", None) if len(activations) else None
