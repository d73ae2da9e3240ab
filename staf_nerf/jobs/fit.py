"""`staf fit`: fits a field to each file, and writes it with its results, metrics and a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
from torch import Generator, nn
from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg

from staf_nerf.checkpoint import FIELD_FILE, Checkpoint, save_field
from staf_nerf.errors import IncompleteError
from staf_nerf.fields import FieldStack, count_parameters
from staf_nerf.figures.training import SinusoidTrace, draw_curve
from staf_nerf.fitting.loop import RECORD_EVERY, History, fit, steps_per_epoch
from staf_nerf.jobs.output import check_folder, metrics_table, prepare_folder, shown, write_page, write_whole
from staf_nerf.jobs.processes import Processes, processes
from staf_nerf.machine.memory import keep_freed_memory
from staf_nerf.progress import Stages, peak_memory
from staf_nerf.signals.sampling import refuse_unused_bandwidth
from staf_nerf.signals.signal import Signal
from staf_nerf.tasks import Problem, Task, find_task
from staf_nerf.tasks.task import Figure

STATE = "state.pt"
"""File with the state of a fit that can be resumed."""
TRACE = "sinusoids.npz"
"""File with the sinusoids over time."""
RESULTS = ("curve.png", "metrics.json", "report.html", "sinusoids.png")
"""Files of every finished fit, beside the field, the trace and those of the kind of signal."""

ConfigT = TypeVar("ConfigT")
OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Advanced:
    """Settings of the computation."""

    device: Annotated[str | None, arg(metavar="{cpu,cuda,mps}")] = None
    """Device of the computation. Defaults to CUDA if it is available, otherwise the CPU."""
    epoch_metrics: bool = False
    """Also compute the main metric of the whole signal after each epoch.
    Published tables quote the best epoch, which cannot be chosen without the true signal."""
    files_at_once: int = 8
    """Largest number of images that are fitted at once.
    Images are fitted at once if they have equally many channels, and equally many pixels per step."""

    def __post_init__(self) -> None:
        if self.files_at_once < 1:
            raise ValueError(f"files_at_once must be >= 1, got {self.files_at_once}")


@dataclass(frozen=True)
class OneAtATime(Advanced):
    """Settings of the computation, for kinds of signals that are fitted one file at a time."""

    files_at_once: Suppress[int] = 1


@dataclass(frozen=True)
class Fit(Generic[ConfigT, OptionsT]):
    """A fit of one file or several."""

    files: Annotated[Positional[tuple[Path, ...]], arg(help_behavior_hint="(required)", metavar="FILE [FILE ...]")]
    """Files to fit."""
    config: Annotated[OmitArgPrefixes[ConfigT], arg(help="")]
    """Network and training."""
    options: Annotated[OmitArgPrefixes[OptionsT], arg(name="result", help="")]
    """What is written."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER")] = None
    """Output folder, outputs/TASK/NAME by default. For several files: the folder of their folders."""
    preset: Annotated[str | None, arg(metavar="NAME|FILE.toml")] = None
    """Preset or .toml file with defaults for the other options, on the command line."""
    seed: int = 0
    """Random seed."""
    overwrite: bool = False
    """Replace results in the output folder."""
    resume: bool = False
    """Continue an interrupted fit in the output folder. Finished fits are skipped."""
    advanced: Annotated[OmitArgPrefixes[Advanced], arg(help="")] = field(default_factory=Advanced)
    """Computation."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("at least one file is needed")

    @property
    def task(self) -> Task:
        """The kind of signal."""
        return find_task(self.config.task)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def training(self) -> Any:
        """Duration, batch size and learning rates."""
        return self.config.fit  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def where(self) -> torch.device:
        """The device of the computation."""
        return choose_device(self.advanced.device)


def refuse_without_effect(config: Any, given: Collection[str]) -> None:
    """Refuses options of the command line without effect, whose values may be those of a preset.

    Args:
        config: The configuration of a fit, with the options of the command line.
        given: Names of the options that the command line gives.

    Raises:
        ValueError: If there is one.
    """
    if "bandwidth" in given and hasattr(config, "bandwidth"):
        refuse_unused_bandwidth(config.field, bandwidth=config.bandwidth)


def choose_device(name: str | None) -> torch.device:
    """Returns the device with that name. Defaults to CUDA if it is available, otherwise the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class _Work:
    """A file that is being fitted."""

    problem: Problem
    output: Path
    signal: Signal
    model: Any
    trace: SinusoidTrace


def fit_files(job: Fit[Any, Any]) -> list[dict[str, Any]]:
    """Runs the job and returns the content of each `metrics.json` (under torchrun: for this process's files).

    Raises:
        ValueError: If a file is named twice, cannot be read, or an option does not suit it.
        OSError: If a file does not exist, or a folder cannot be created or contains results already.
        IncompleteError: If a result could not be made, after all others were written.
    """
    keep_freed_memory()
    results, fitted = [], 0
    with processes(len(job.files)) as mine:
        pairs = _prepare(job, mine)
        for group in _groups(job, pairs, mine):
            found, is_interrupted = _fit_at_once(job, group, mine)
            results += found
            fitted += len(group)
            if is_interrupted:
                if left := len(pairs) - fitted:
                    mine.console.print(f"[yellow]files not fitted yet: {left}; --resume continues with them")
                break
    _refuse_failures(results)
    return results


def _prepare(job: Fit[Any, Any], mine: Processes) -> list[tuple[Path, Path]]:
    """Returns the files that this process fits, each with its output folder, which may be written to."""
    for file in job.files:
        if not file.is_file():
            raise FileNotFoundError(f"no file {file}")
    names = distinct_names(job.files)
    if job.output is not None and len(names) == 1:
        folders = [job.output]
    else:
        folders = [(job.output or Path("outputs") / job.task.name) / name for name in names]
    pairs = mine.share(job.files, folders)
    if job.resume:
        for file, folder in pairs:
            if is_finished(folder):
                mine.console.print(f"{file} is already finished, in {folder}")
        pairs = [(file, folder) for file, folder in pairs if not is_finished(folder)]
    for _, folder in pairs if mine.writes else []:
        may_replace = job.overwrite or job.resume
        if (folder / STATE).is_file() and not may_replace:
            raise FileExistsError(f"{folder} contains a fit; --resume continues it, --overwrite replaces it")
        check_folder(folder, overwrite=may_replace)
    return pairs


def is_finished(folder: Path) -> bool:
    """Returns whether a folder contains the results of a fit that was not interrupted."""
    try:
        return not json.loads((folder / "metrics.json").read_text())["interrupted"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


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


def _groups(job: Fit[Any, Any], pairs: Sequence[tuple[Path, Path]], mine: Processes) -> Iterator[list[_Work]]:
    """Yields groups of files to fit at once. At most one group and one further file are in memory."""
    group: list[_Work] = []
    for file, output in pairs:
        work = _read(job, file, output, mine)
        if group and not (len(group) < job.advanced.files_at_once and _fit_together(job, group[0], work)):
            yield group
            group = []
        group.append(work)
    if group:
        yield group


def _fit_together(job: Fit[Any, Any], first: _Work, second: _Work) -> bool:
    """Returns whether two files can be fitted at once. Those that are counted in epochs need epochs of one length."""
    key = first.problem.batch_key()
    if key is None or key != second.problem.batch_key():
        return False
    if not (job.advanced.epoch_metrics or job.training.epochs):
        return True
    steps = [steps_per_epoch(work.signal, job.training.points) for work in (first, second)]
    return steps[0] == steps[1]


def _read(job: Fit[Any, Any], file: Path, output: Path, mine: Processes) -> _Work:
    """Reads a file, and creates its output folder."""
    console = mine.console
    problem = job.task.read(file, job.config, seed=job.seed)
    model = problem.field(Generator().manual_seed(job.seed)).to(job.where)
    warnings = problem.check(model, job.options)
    if job.advanced.epoch_metrics:
        problem.epoch_metrics(job.where)  # before any work, so that it is refused if there are none
    first, *others = problem.lines
    console.print(f"{file}: {first}", markup=False)
    for line in [*others, *warnings]:
        console.print(f"  {line}", markup=False)
    if mine.writes:
        prepare_folder(output, overwrite=True)
        if not job.resume:
            (output / STATE).unlink(missing_ok=True)
    signal = problem.signal(job.where)
    trace = SinusoidTrace(model)
    if job.resume and (output / TRACE).is_file():
        trace.load(output / TRACE)
    return _Work(problem, output, signal, model, trace)


def _fit_at_once(job: Fit[Any, Any], group: list[_Work], mine: Processes) -> tuple[list[dict[str, Any]], bool]:
    """Fits a group in the time that its files would take one by one, and writes the results of each.

    Returns the results, and whether the fit was interrupted.
    """
    first, alone, stages = group[0], len(group) == 1, Stages(mine.console)
    training = job.training
    if training.minutes is not None:
        training = training.lasting(minutes=len(group) * training.minutes)
    with stages, stages("fitting") as report:
        whole = fit(
            first.model if alone else FieldStack([work.model for work in group]),
            first.signal if alone else job.task.stack([work.signal for work in group], seed=job.seed),
            training,
            seed=job.seed,
            progress=_progress(job.task, [work.trace for work in group], report),
            validation_loss=first.problem.validation(first.signal),
            epoch_metrics=_epoch_metrics(job, group) if job.advanced.epoch_metrics else None,
            resume=first.output / STATE,
            subject=", ".join(work.problem.file.name for work in group),
        )
    if not mine.writes:
        return [], whole.interrupted
    histories = [whole] if alone else [history_of(whole, number) for number in range(len(group))]
    return [_finish(job, *one, stages, mine) for one in zip(group, histories, strict=True)], whole.interrupted


def _progress(
    task: Task, traces: Sequence[SinusoidTrace], report: Callable[..., None]
) -> Callable[[float, History], None]:
    """Returns the function that a fit calls: it records the sinusoids, and moves the progress bar."""

    def progress(done: float, history: History) -> None:
        if history.steps % (10 * RECORD_EVERY) <= RECORD_EVERY:
            for trace in traces:
                trace.record(history.steps)
        report(done, task.progress(history.latest))

    return progress


def _epoch_metrics(job: Fit[Any, Any], group: list[_Work]) -> Callable[[nn.Module], dict[str, float]]:
    """Returns the function that computes the metrics after each epoch; for several files "number: name"."""
    each = [work.problem.epoch_metrics(job.where) for work in group]
    if len(group) == 1:
        return each[0]

    def metrics(_: nn.Module) -> dict[str, float]:
        found = [metrics(work.model) for metrics, work in zip(each, group, strict=True)]
        return {f"{i}: {name}": value for i, one in enumerate(found) for name, value in one.items()}

    return metrics


def history_of(whole: History, number: int) -> History:
    """Returns the history of one of several signals that were fitted at once."""
    prefix = f"{number}: "

    def own(row: Mapping[str, float]) -> dict[str, float]:
        common = {name: row[name] for name in ("step", "seconds") if name in row}
        return common | {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}

    return replace(whole, losses=[own(row) for row in whole.losses], epochs=[own(row) for row in whole.epochs])


def _finish(job: Fit[Any, Any], work: _Work, history: History, fitting: Stages, mine: Processes) -> dict[str, Any]:
    """Writes the field and all results of a file, and returns the content of metrics.json."""
    problem, output = work.problem, work.output
    checkpoint = Checkpoint(work.model, job.config, problem.frame, str(problem.file), job.seed)
    save_field(output / FIELD_FILE, checkpoint)
    remove_old_results(output, job.task)
    with Stages(mine.console, seconds=dict(fitting.seconds)) as stages:
        metrics, figures = problem.write(work.model, output, job.options, stages, device=job.where)
    return _write_results(job, work, history, metrics, figures, stages)


def remove_old_results(output: Path, task: Task) -> None:
    """Removes the results of an earlier fit from a folder, so that none of them is taken for this fit's."""
    for name in (*RESULTS, *task.results):
        (output / name).unlink(missing_ok=True)


def _write_results(
    job: Fit[Any, Any],
    work: _Work,
    history: History,
    metrics: dict[str, Any],
    figures: list[Figure],
    stages: Stages,
) -> dict[str, Any]:
    """Writes metrics.json and report.html, prints the metrics, and returns the content of metrics.json.

    Figures that cannot be drawn are left out. The reason is printed and recorded in metrics.json under "failed".
    """
    console, output, file = stages.console, work.output, work.problem.file
    best = {name: max(row[name] for row in history.epochs) for name in (history.epochs or [{}])[0] if name != "step"}
    found = {
        "file": file.name,
        "task": job.task.name,
        "config": asdict(job.config),
        "options": asdict(job.options),
        "first_omega": first_layer_omega(work.model),
        "seed": job.seed,
        "parameters": count_parameters(work.model),
        "steps": history.steps,
        "interrupted": history.interrupted,
        "rollbacks": history.rollbacks,
        "seconds": dict(stages.seconds),
        "peak_memory_bytes": peak_memory(),
        "metrics": metrics | {f"{name}_of_best_epoch": value for name, value in best.items()},
        "losses": history.losses,
        "held_out": history.held_out,
        "epochs": history.epochs,
    }
    if history.losses:
        with stages.attempt("curve"):
            draw_curve(output / "curve.png", history, job.task.peak)
            figures = [*figures, ("learning curve", output / "curve.png")]
    if work.trace.steps:
        with stages.attempt("sinusoids"):
            work.trace.save(output / TRACE)
            work.trace.draw(output / "sinusoids.png")
            figures = [*figures, ("sinusoids of each layer during training", output / "sinusoids.png")]
    settings = {name: found[name] for name in ("config", "options", "first_omega", "seed")}
    rows = shown(found, job.task.missing)
    with stages.attempt("report"):
        write_page(output / "report.html", f"{file.name}: {job.task.name}", rows, figures, settings)
    found["failed"] = stages.failed
    for step in history.rollbacks:
        console.print(f"[yellow]the loss was NaN or infinite at step {step}: went back, and halved the learning rates")
    if history.interrupted:
        console.print("[yellow]interrupted: the results so far are saved, and --resume continues the fit")
    text = json.dumps(found, indent=1)
    console.print(metrics_table(file.name + (", interrupted" if history.interrupted else ""), rows))
    with stages.attempt("metrics.json"):
        write_whole(output / "metrics.json", text + "\n")
    written = sorted(path.name for path in output.iterdir() if path.name != STATE)
    console.print(f"Written to {output}: {', '.join(written)}", markup=False, soft_wrap=True)
    return json.loads(text) | {"failed": stages.failed}


def _refuse_failures(results: Sequence[Mapping[str, Any]]) -> None:
    """Raises IncompleteError if a result of a file could not be made."""
    failed = [f"{found['file']}: {', '.join(found['failed'])}" for found in results if found["failed"]]
    if failed:
        raise IncompleteError(f"not all results were made; failed, for the reasons above: {'; '.join(failed)}")


def first_layer_omega(model: nn.Module) -> float | None:
    """Returns the initial frequency scale of the first layer in radians per unit, if its activation has one."""
    layers = getattr(getattr(model, "mlp", None), "layers", [])
    return getattr(layers[0].activation, "omega", None) if len(layers) else None
