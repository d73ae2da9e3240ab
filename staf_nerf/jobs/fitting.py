"""What the fits of files have in common: their options, the loop with its bar, and the folder of results."""

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
from staf_nerf.jobs.output import measures_table, prepare_folder, shown, write_page
from staf_nerf.jobs.progress import Stages, peak_memory
from staf_nerf.signals.image import psnr

STATE = "state.pt"
"""File of a fit that can be resumed."""
TRACE = "sinusoids.npz"
"""File of what the sinusoids were on the way."""
LOSS = "squared error"
"""What the signals of files call theirs."""
SCORE = "psnr"
"""What is measured of them after each pass."""
PEAKS = {"image": 2.0, "superres": 2.0, "denoise": 2.0, "audio": 1.0}
"""What PSNR is about, in a field's numbers: the range of an image's values, the largest absolute one of a sound's."""


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without one CUDA's, where there is any, or else the processor."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class FitFiles:
    """Options that the fits of images and sounds share."""

    files: Positional[tuple[Path, ...]]
    """What to fit."""
    output: Path | None = None
    """Folder for the results, one in it for each of several files; outputs/TASK/NAME, if not given."""
    scale: float = 1.0
    """Of what is written: samples along an axis, in parts of the file's."""
    seed: int = 0
    """Of all random numbers."""
    device: str | None = None
    """"cpu", "cuda", "mps"; what there is, if not given."""
    overwrite: bool = False
    """Whether results that the folder holds already may be replaced."""
    score_passes: bool = False
    """Whether the PSNR against the whole signal is found after each pass over it, too: published tables quote the best
    of them, which nobody who has no truth could choose."""
    resume: bool = False
    """Whether to go on from where an interrupted fit in that folder stopped."""
    preset: str | None = None
    """Preset that the options start from (see method_configs/), or a .toml file; on the command line."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("at least one file is needed")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")

    @property
    def where(self) -> torch.device:
        """The device to compute on."""
        return choose_device(self.device)

    def work(self, task: str, mine: Processes) -> list[tuple[Path, Path]]:
        """This process's files that are to be fitted, each with its folder, made by the process that writes there.

        Raises:
            ValueError: If a file is named twice.
            OSError: If a file is not there, or a folder cannot be made or holds results already.
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
                    mine.console.print(f"{file} is finished already, in {folder}")
            pairs = [(file, folder) for file, folder in pairs if not is_finished(folder)]
        for _, folder in pairs if mine.writes else []:
            may_replace = self.overwrite or self.resume
            if (folder / STATE).is_file() and not may_replace:
                raise FileExistsError(f"{folder} holds a fit that --resume goes on with; --overwrite replaces it")
            prepare_folder(folder, overwrite=may_replace)
            if not self.resume:
                (folder / STATE).unlink(missing_ok=True)
        return pairs


@dataclass(frozen=True)
class Processes:
    """This process among those that `torchrun` started: one image's points, or the files, are divided among them."""

    rank: int
    count: int
    joint: bool
    """Whether all work on the same file."""

    @property
    def writes(self) -> bool:
        """Whether this one writes results."""
        return self.rank == 0 or not self.joint

    @property
    def console(self) -> Console:
        """The first process's, or silence."""
        return Console(quiet=self.rank != 0)

    def share(self, files: Sequence[Path], folders: Sequence[Path]) -> list[tuple[Path, Path]]:
        """The files of this process, with their folders."""
        pairs = list(zip(files, folders, strict=True))
        return pairs if self.joint else pairs[self.rank :: self.count]


@contextmanager
def processes(files: int) -> Iterator[Processes]:
    """Joins the processes of `torchrun`, if it is there: with fewer files than processes they work on each together."""
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
    """Whether a folder holds the results of a fit that was not interrupted."""
    try:
        return not json.loads((folder / "metrics.json").read_text())["interrupted"]
    except (OSError, ValueError, KeyError):
        return False


def say_left(left: int, console: Console) -> None:
    """Says how many files an interrupt has kept from being fitted."""
    if left:
        console.print(f"[yellow]{left} more were not fitted: --resume goes on with them")


def distinct_names(files: Sequence[Path]) -> list[str]:
    """A name for each file's folder: its stem, or where two have the same, the whole name.

    Raises:
        ValueError: If these are not different either.
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
    """`fit`, with a bar that shows the PSNR (of several signals the range), traces, and a file to go on from."""

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
    """A trace of a model's sinusoids, which goes on from that of an interrupted fit in the folder."""
    trace = SinusoidTrace(model)
    if resume and (output / TRACE).is_file():
        trace.load(output / TRACE)
    return trace


def history_of(whole: History, number: int) -> History:
    """That of one of several signals that were fitted together, as if it had been alone."""
    rows = [{k: row[k] for k in ("step", "seconds")} | {LOSS: row[str(number)]} for row in whole.losses]
    passes = [{"step": row["step"], SCORE: row[str(number)]} for row in whole.passes]
    return replace(whole, losses=rows, passes=passes)


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
    """Writes metrics.json and report.html, shows the metrics, and returns what metrics.json holds.

    What cannot be drawn is left out; its reason is shown, and stands in metrics.json under "failed".
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
            figures = [*figures, ("how it was learned", output / "curve.png")]
    if trace.steps:
        with stages.attempt("sinusoids"):
            trace.save(output / TRACE)
            trace.draw(output / "sinusoids.png")
            figures = [*figures, ("the trained sinusoids of each layer", output / "sinusoids.png")]
    settings = {name: found[name] for name in ("config", "first_omega", "seed")}
    with stages.attempt("report"):
        write_page(output / "report.html", f"{file.name}: {config.task}", shown(found), figures, settings)
    found["failed"] = stages.failed
    (output / "metrics.json").write_text(json.dumps(found, indent=1) + "\n")
    for step in history.rollbacks:
        console.print(f"[yellow]the loss was no number at step {step}: back to before it, with half the learning rates")
    if history.interrupted:
        console.print("[yellow]interrupted: what was learned so far is kept, and --resume goes on from it")
    console.print(measures_table(found))
    console.print(f"Written to {output}: {', '.join(sorted(p.name for p in output.iterdir() if p.name != STATE))}")
    return found


def refuse_failures(results: Sequence[Mapping[str, Any]]) -> None:
    """Ends a job whose other results are written.

    Raises:
        IncompleteError: If something of a file's results could not be made.
    """
    failed = [f"{found['file']}: {', '.join(found['failed'])}" for found in results if found["failed"]]
    if failed:
        raise IncompleteError(f"not everything was made; failed, for the reasons above: {'; '.join(failed)}")


def first_layer_omega(model: nn.Module) -> float | None:
    """The frequency scale that the first layer started with, radians per unit, if its activation has one."""
    activations = getattr(getattr(model, "mlp", None), "activations", [])
    return getattr(activations[0], "omega", None) if len(activations) else None
