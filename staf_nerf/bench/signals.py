"""Fits of images, sounds and shapes by several methods at equal cost: number of weights, and seconds or steps.

A budget in seconds is converted to a number of steps per method: the steps of all methods are timed in turn, once,
before any fit. Load on the machine during the fits therefore changes nothing. Metrics are those of the final weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Generator, nn
from tyro.conf import Positional, Suppress, arg

from staf_nerf.bench.record import commit, cpu_model, environment
from staf_nerf.bench.summary import Grouping, shared_columns, summarize, with_deviation
from staf_nerf.bench.sweep import Row, changed, parse, run_missing
from staf_nerf.bench.timing import Spread, interleave
from staf_nerf.fields import count_parameters
from staf_nerf.fitting.loop import Training, fit
from staf_nerf.jobs.output import write_json
from staf_nerf.presets import load_preset, preset_names
from staf_nerf.progress import peak_memory
from staf_nerf.signals.signal import Signal
from staf_nerf.tasks import Problem, Task, find_task

WIDEST = 4096
"""Largest width that is considered when a width is chosen for a number of weights."""
CURVE = 100
"""Number of points of the learning curve that are kept for each run."""


@dataclass(frozen=True)
class SignalBenchmark:
    """Compares methods that fit one kind of signal, at equal cost."""

    task: Suppress[str]
    """Kind of signal."""
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE [FILE ...]", help_behavior_hint="(required)")]
    """Files to fit."""
    methods: tuple[str, ...]
    """Presets, each with optional changes after "+": an activation ("image+sine") or a key ("image+bandwidth=0.2")."""
    grid: tuple[str, ...] = ()
    """Keys with several values ("bandwidth=.1,.2"), for a grid search.
    Each method is run with every combination of them."""
    seeds: tuple[int, ...] = (0, 1)
    """Random seeds. Each method is run on each file once per seed."""
    seconds: float = 60.0
    """Training time of each run in seconds. It is converted to steps by timing the steps of all methods first."""
    steps: int = 0
    """Number of training steps for every method. 0: the training time decides."""
    weights: int = 198_915
    """Number of parameters. The width of each network is chosen to match it. 0: keep the widths of the presets."""
    rounds: int = 9
    """Number of timings of each method's training step. The median is used."""
    processes: int = 1
    """Number of runs at a time. Each has its own process and an equal share of the threads."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device for fits and timings."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. Runs and timings that it already contains are not repeated."""

    @property
    def names(self) -> list[str]:
        """The methods with every combination of the grid."""
        options = [
            [f"{key}={value}" for value in values.split(",")]
            for key, _, values in (g.partition("=") for g in self.grid)
        ]
        return ["+".join([method, *chosen]) for method in self.methods for chosen in itertools.product(*options)]


def benchmark_of(task: Task, files: tuple[Path, ...]) -> SignalBenchmark:
    """Returns the benchmark of a kind of signal, with its usual methods and number of parameters."""
    return SignalBenchmark(task.name, files, task.methods, weights=task.weights)


@dataclass(frozen=True)
class Case:
    """A file, and the signal and field of a fit to it."""

    problem: Problem
    signal: Signal
    model: nn.Module


def make_case(config: Any, file: Path, seed: int, device: str = "cpu") -> Case:
    """Returns the signal and the field for a file and a configuration, on a device."""
    problem = find_task(config.task).read(file, config, seed=seed)
    if not problem.has_truth:
        raise ValueError("photon_count must be positive: the benchmark needs clean images and adds the noise itself")
    model = problem.field(Generator().manual_seed(seed)).to(device)
    return Case(problem, problem.signal(device), model)


def configuration(task: str, method: str, weights: int) -> Any:
    """Returns the configuration of a method, with a width that gives the number of weights.

    Raises:
        ValueError: If the preset or a change is unknown, or no width gives about that number of weights.
    """
    name, *changes = method.split("+")
    if name not in (known := preset_names(task)) and not name.endswith(".toml"):
        raise ValueError(f"methods must start with one of {known} or a .toml file, got {name!r}")
    config = changed(load_preset(name, "cpu", find_task(task).config), changes)
    return _with_weights(config, weights) if weights else config


def count_weights(config: Any) -> int:
    """Returns the number of parameters of a field for RGB images, mono sound or shapes."""
    task = find_task(config.task)
    return count_parameters(task.field(config, task.sizes()))


def _with_weights(config: Any, weights: int) -> Any:
    """Returns a configuration with the width whose number of weights is nearest to the given one."""

    def with_width(width: int) -> Any:
        return dataclasses.replace(config, field=dataclasses.replace(config.field, hidden_features=width))

    low, high = 1, WIDEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_weights(with_width(middle)) <= weights else (low, middle)
    nearest = min((with_width(low), with_width(high)), key=lambda c: abs(count_weights(c) - weights))
    if not 0.8 < count_weights(nearest) / weights < 1.25:
        raise ValueError(
            f"weights must be reachable by some width, got {weights}; the nearest is {count_weights(nearest)}"
        )
    return nearest


def compare_methods(benchmark: SignalBenchmark) -> Row:
    """Times steps, runs what the output does not contain yet, and returns rows, timings and a summary."""
    if not benchmark.files:
        raise ValueError("files must name at least one file, got none")
    if len({file.name for file in benchmark.files}) < len(benchmark.files):
        raise ValueError(f"files must have different names, got {[str(file) for file in benchmark.files]}")
    configs = {name: configuration(benchmark.task, name, benchmark.weights) for name in benchmark.names}
    known = _known_times(benchmark.output)
    if not benchmark.steps and not set(configs) <= set(known):
        known = step_times(benchmark, configs)
    cells = [
        {
            "method": name,
            "file": file.name,
            "seed": seed,
            "budget": "steps" if benchmark.steps else "seconds",
            "amount": benchmark.steps or benchmark.seconds,
            "weights": benchmark.weights,
        }
        for seed in benchmark.seeds
        for file in benchmark.files
        for name in configs
    ]
    job = _Job(benchmark.task, {file.name: file for file in benchmark.files}, known, benchmark.device)
    return run_missing(
        cells, job, lambda rows: with_summary(benchmark, rows, known), benchmark.output, processes=benchmark.processes
    )


def step_times(benchmark: SignalBenchmark, configs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns median and quartiles of the seconds per step. All methods are timed in turn, on the first file."""
    steps = {}
    for name, config in configs.items():
        case = make_case(config, benchmark.files[0], 0, benchmark.device)
        training = Training(case.model, case.signal, config.fit, Generator().manual_seed(0), None)
        steps[name] = lambda training=training: training.step(0.0)
    times = interleave(steps, rounds=benchmark.rounds)
    return {name: dataclasses.asdict(Spread.of(seconds)) for name, seconds in times.items()}


def _known_times(output: Path | None) -> dict[str, Any]:
    if output is None or not output.is_file():
        return {}
    return parse(output.read_text()).get("step_seconds", {})


@dataclass(frozen=True)
class _Job:
    """Runs one cell of the benchmark. It can be pickled for another process."""

    task: str
    files: dict[str, Path]
    times: dict[str, Any]
    device: str

    def __call__(self, cell: Row) -> Row:
        config = configuration(self.task, cell["method"], cell["weights"])
        steps = int(cell["amount"])
        if cell["budget"] == "seconds":
            steps = max(round(cell["amount"] / self.times[cell["method"]]["median"]), 1)
        config = dataclasses.replace(config, fit=config.fit.lasting(steps=steps))
        case = make_case(config, self.files[cell["file"]], cell["seed"], self.device)
        start = time.perf_counter()
        try:
            validation_loss = case.problem.validation(case.signal)
            history = fit(case.model, case.signal, config.fit, seed=cell["seed"], validation_loss=validation_loss)
        except RuntimeError as error:  # a fit that diverged is a result
            return {"steps": steps, "failed": str(error), "commit": commit()}
        seconds = time.perf_counter() - start
        try:
            options = find_task(self.task).options
            metrics = case.problem.evaluate(case.model, options, device=self.device)
        except ValueError as error:  # and so is a field without a surface
            return {"steps": steps, "failed": str(error), "commit": commit()}
        losses = history.losses[:: -(-len(history.losses) // CURVE)]
        return {
            "steps": steps,
            "seconds": seconds,
            "parameters": count_parameters(case.model),
            "metrics": metrics,
            "rollbacks": history.rollbacks,
            "curve": [[row["step"], sum(v for k, v in row.items() if k not in ("step", "seconds"))] for row in losses],
            "peak_memory_bytes": peak_memory(),
            "threads": torch.get_num_threads(),
            "cpu": cpu_model(),
            "device": self.device,
            "commit": commit(),
        }


def grouping_of(task: str) -> Grouping:
    """Returns how the rows of a task are grouped in its summary."""
    return Grouping(("method", "budget", "amount", "weights"), "file", (find_task(task).metric,))


def with_summary(benchmark: SignalBenchmark, rows: list[Row], times: Mapping[str, Any]) -> Row:
    """Returns the rows, and a summary over files and seeds for each method and budget, best first."""
    return {
        "task": benchmark.task,
        "metric": find_task(benchmark.task).metric,
        "summary": summarize(rows, grouping_of(benchmark.task)),
        "step_seconds": dict(times),
        "rows": rows,
        **environment(),
    }


COLUMNS = ("method", "budget", "metric", "wins", "weights", "steps", "seconds", "memory")
"""Columns of a summary, on screen and in a report."""


def table_rows(result: Row) -> list[list[str]]:
    """Returns the columns `COLUMNS` for each method and budget of a result, best first."""
    metric, digits = result["metric"], find_task(result["task"]).digits
    rows = []
    for entry in summarize(result["rows"], grouping_of(result["task"])):
        cells = {"metric": "all diverged", **shared_columns(entry)}
        if metric in entry:
            diverged = f", {entry['failed']} of {entry['runs']} diverged" if entry["failed"] else ""
            cells["metric"] = with_deviation(entry, metric, digits) + diverged
        rows.append([cells.get(name, "") for name in COLUMNS])
    return rows


def main(benchmark: SignalBenchmark) -> None:
    """Runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    from rich.console import Console
    from rich.table import Table

    result = compare_methods(benchmark)
    title = f"{result['task']}: {result['metric']}, {result['threads']} threads, mean ± deviation over seeds"
    table = Table(*COLUMNS, title=title)
    for row in table_rows(result):
        table.add_row(*row)
    Console().print(table)
    write_json(result, benchmark.output)
