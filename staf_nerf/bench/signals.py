"""Fits of images, sounds and shapes by several methods at equal cost: number of weights, and seconds or steps.

A budget in seconds is converted to a number of steps per method: the steps of all methods are timed in turn, once,
before any fit. Load on the machine during the fits therefore changes nothing. Scores are those of the final weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, nn

from staf_nerf.bench.cells import Row, changed, parse, run_missing
from staf_nerf.bench.record import commit, cpu_model, environment, write
from staf_nerf.bench.summary import Grouping, shared_columns, summarize, with_deviation
from staf_nerf.bench.timing import Spread, interleave
from staf_nerf.checkpoint import Config
from staf_nerf.config import AudioConfig, ImageConfig, ShapeConfig
from staf_nerf.evaluation import measure_shape, shape_mesh
from staf_nerf.fields import NeuralField, count_parameters
from staf_nerf.fit import Signal, Training, fit
from staf_nerf.jobs.progress import peak_memory
from staf_nerf.mesh.clean import repair
from staf_nerf.mesh.triangles import read_mesh
from staf_nerf.presets import load_preset, preset_names
from staf_nerf.signals.audio import AudioSignal, audio_field, measure_sound, read_sound, render_sound
from staf_nerf.signals.image import ImageSignal, ImageTask, image_field, measure_image, read_image
from staf_nerf.signals.sampling import refuse_unused_frequency
from staf_nerf.signals.shape import ShapeSignal, make_field

Task = Literal["image", "superres", "denoise", "audio", "shape"]

DEFAULTS: dict[Task, Config] = {
    "image": ImageConfig(),
    "superres": ImageConfig(task="superres"),
    "denoise": ImageConfig(task="denoise"),
    "audio": AudioConfig(),
    "shape": ShapeConfig(),
}

SCORES = {"image": "psnr", "superres": "psnr", "denoise": "psnr", "audio": "snr", "shape": "field_iou"}
"""Metric of the summary for each task. Higher is better."""
WIDEST = 4096
"""Largest width that is considered when a width is chosen for a number of weights."""
CURVE = 100
"""Number of points of the learning curve that are kept for each run."""


@dataclass(frozen=True)
class SignalBenchmark:
    """Options that the benchmarks of fits share."""

    task: ClassVar[Task] = "image"

    files: tuple[Path, ...]
    """Files to fit."""
    methods: tuple[str, ...]
    """Presets, each with optional changes after "+": an activation ("image+sine") or a key ("image+band=0.2")."""
    grid: tuple[str, ...] = ()
    """Keys with several values ("band=.1,.2"), for a grid search.
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
    output: Path | None = None
    """JSON file for the results. Runs and timings that it already contains are not repeated."""

    @property
    def names(self) -> list[str]:
        """The methods with every combination of the grid."""
        options = [
            [f"{key}={value}" for value in values.split(",")]
            for key, _, values in (g.partition("=") for g in self.grid)
        ]
        return ["+".join([method, *chosen]) for method in self.methods for chosen in itertools.product(*options)]


@dataclass(frozen=True)
class ImageBenchmark(SignalBenchmark):
    """Compares methods that fit images, at equal cost."""

    methods: tuple[str, ...] = ("image", "image-sine")
    """Presets, each with optional changes after "+": an activation ("image+finer") or a key ("image+band=0.2")."""


@dataclass(frozen=True)
class SuperResolutionBenchmark(SignalBenchmark):
    """Compares methods that enlarge images (super-resolution), at equal cost."""

    task: ClassVar[Task] = "superres"
    methods: tuple[str, ...] = ("superres", "superres+sine")
    """Presets, each with optional changes after "+": an activation or a key with a value."""


@dataclass(frozen=True)
class DenoiseBenchmark(SignalBenchmark):
    """Compares methods that remove added noise from images, at equal cost."""

    task: ClassVar[Task] = "denoise"
    methods: tuple[str, ...] = ("denoise", "denoise+sine")
    """Presets, each with optional changes after "+": an activation or a key with a value."""


@dataclass(frozen=True)
class AudioBenchmark(SignalBenchmark):
    """Compares methods that fit sounds, at equal cost."""

    task: ClassVar[Task] = "audio"
    methods: tuple[str, ...] = ("audio", "audio-sine")
    """Presets, each with optional changes after "+": an activation or a key with a value."""


@dataclass(frozen=True)
class ShapeBenchmark(SignalBenchmark):
    """Compares methods that fit meshes, at equal cost."""

    task: ClassVar[Task] = "shape"
    methods: tuple[str, ...] = ("shape", "shape+sine")
    """Presets, each with optional changes after "+": an activation or a key with a value."""
    weights: int = 198_717
    """Number of parameters. The width of each network is chosen to match it. 0: keep the widths of the presets."""


@dataclass(frozen=True)
class Case:
    """A signal, the field that is fitted to it, and a function that measures the result."""

    signal: Signal
    model: nn.Module
    measure: Callable[[], Mapping[str, Any]]
    criterion: Callable[[nn.Module], float] | None = None


def make_case(config: Config, file: Path, seed: int, device: str = "cpu") -> Case:
    """Returns the signal and the field for a file and a configuration, on a device."""
    generator = Generator().manual_seed(seed)
    if isinstance(config, ImageConfig):
        task = ImageTask.of(read_image(file), config, seed=seed)
        truth = task.truth
        if truth is None:
            raise ValueError("photons must be positive: the benchmark needs clean images and adds the noise itself")
        signal = ImageSignal(task.given, config, raster=task.given_raster, seed=seed, device=device)
        field = image_field(config, task.given_raster, generator=generator).to(device)
        criterion = signal.held_out_error if config.held_out else None

        def measure() -> dict[str, Any]:
            return {**measure_image(field, task.raster, truth, device=device), **task.baseline()}

        return Case(signal, field, measure, criterion)
    if isinstance(config, AudioConfig):
        sound, track = read_sound(file)
        field = audio_field(config, track, generator=generator).to(device)
        signal = AudioSignal(sound, track, config, device=device)
        return Case(signal, field, lambda: measure_sound(render_sound(field, track, device=device), sound))
    mesh, _ = repair(read_mesh(file))
    signal = ShapeSignal(mesh, config, seed=seed, device=device)
    field = make_field(config, generator=generator).to(device)

    def measure() -> dict[str, Any]:
        return measure_shape(field, config, signal.frame, shape_mesh(field, config, signal.frame), mesh, seed=seed)

    return Case(signal, field, measure)


def configuration(task: Task, method: str, weights: int) -> Config:
    """Returns the configuration of a method, with a width that gives the number of weights.

    Raises:
        ValueError: If the preset or a change is unknown, or no width gives about that number of weights.
    """
    name, *changes = method.split("+")
    if name not in (known := preset_names(task)) and not name.endswith(".toml"):
        raise ValueError(f"methods must start with one of {known} or a .toml file, got {name!r}")
    config = changed(load_preset(name, "cpu", DEFAULTS[task]), changes)
    if not isinstance(config, ShapeConfig):
        refuse_unused_frequency(config.field, band=config.band)
    return _as_wide_as(config, weights) if weights else config


def count_weights(config: Config) -> int:
    """Returns the number of parameters of a field for RGB images, mono sound or shapes."""
    if isinstance(config, ShapeConfig):
        field = make_field(config)
    else:
        field = NeuralField(*((1, 1) if isinstance(config, AudioConfig) else (2, 3)), config.field)
    return count_parameters(field)


def _as_wide_as(config: Config, weights: int) -> Config:
    def with_width(width: int) -> Config:
        return dataclasses.replace(config, field=dataclasses.replace(config.field, hidden_features=width))

    low, high = 1, WIDEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_weights(with_width(middle)) <= weights else (low, middle)
    found = min((with_width(low), with_width(high)), key=lambda c: abs(count_weights(c) - weights))
    if not 0.8 < count_weights(found) / weights < 1.25:
        raise ValueError(
            f"weights must be reachable by some width, got {weights}; the nearest is {count_weights(found)}"
        )
    return found


def run(benchmark: SignalBenchmark) -> Row:
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
        cells, job, lambda rows: report(benchmark, rows, known), benchmark.output, processes=benchmark.processes
    )


def step_times(benchmark: SignalBenchmark, configs: Mapping[str, Config]) -> dict[str, Any]:
    """Returns median and quartiles of the seconds per step. All methods are timed in turn, on the first file."""
    steps = {}
    for name, config in configs.items():
        case = make_case(config, benchmark.files[0], 0, benchmark.device)
        training = Training(case.model, case.signal, config.fit, Generator().manual_seed(0), None)
        steps[name] = lambda training=training: training.step(0.0)
    times = interleave(steps, rounds=benchmark.rounds)
    return {name: dataclasses.asdict(Spread.of(found)) for name, found in times.items()}


def _known_times(output: Path | None) -> dict[str, Any]:
    if output is None or not output.is_file():
        return {}
    return parse(output.read_text()).get("step_seconds", {})


@dataclass(frozen=True)
class _Job:
    """Runs one cell of the benchmark. It can be pickled for another process."""

    task: Task
    files: dict[str, Path]
    times: dict[str, Any]
    device: str

    def __call__(self, cell: Row) -> Row:
        config = configuration(self.task, cell["method"], cell["weights"])
        steps = int(cell["amount"])
        if cell["budget"] == "seconds":
            steps = max(round(cell["amount"] / self.times[cell["method"]]["median"]), 1)
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, steps=steps, minutes=0.0))
        case = make_case(config, self.files[cell["file"]], cell["seed"], self.device)
        start = time.perf_counter()
        try:
            history = fit(case.model, case.signal, config.fit, seed=cell["seed"], criterion=case.criterion)
        except RuntimeError as error:  # a fit that diverges is a result
            return {"steps": steps, "failed": str(error), "commit": commit()}
        seconds = time.perf_counter() - start
        try:
            measures = dict(case.measure())
        except ValueError as error:  # so is a field without a surface
            return {"steps": steps, "failed": str(error), "commit": commit()}
        losses = history.losses[:: -(-len(history.losses) // CURVE)]
        return {
            "steps": steps,
            "seconds": seconds,
            "parameters": count_parameters(case.model),
            "measures": measures,
            "rollbacks": history.rollbacks,
            "curve": [[row["step"], sum(v for k, v in row.items() if k not in ("step", "seconds"))] for row in losses],
            "peak_memory_bytes": peak_memory(),
            "threads": torch.get_num_threads(),
            "cpu": cpu_model(),
            "device": self.device,
            "commit": commit(),
        }


def grouping_of(task: Task) -> Grouping:
    """Returns how the rows of a task are grouped in its summary."""
    return Grouping(("method", "budget", "amount", "weights"), "file", (SCORES[task],))


def report(benchmark: SignalBenchmark, rows: list[Row], times: Mapping[str, Any]) -> Row:
    """Returns the rows, and a summary over files and seeds for each method and budget, best first."""
    return {
        "task": benchmark.task,
        "score": SCORES[benchmark.task],
        "summary": summarize(rows, grouping_of(benchmark.task)),
        "step_seconds": dict(times),
        "rows": rows,
        **environment(),
    }


COLUMNS = ("method", "budget", "score", "wins", "weights", "steps", "seconds", "memory")
"""Columns of a summary, on screen and in a report."""


def table_rows(result: Row) -> list[list[str]]:
    """Returns the columns `COLUMNS` for each method and budget of a result, best first."""
    score, digits = result["score"], 4 if result["score"] == "field_iou" else 2
    rows = []
    for entry in summarize(result["rows"], grouping_of(result["task"])):
        cells = {"score": "all diverged", **shared_columns(entry)}
        if score in entry:
            diverged = f", {entry['failed']} of {entry['runs']} diverged" if entry["failed"] else ""
            cells["score"] = with_deviation(entry, score, digits) + diverged
        rows.append([cells.get(name, "") for name in COLUMNS])
    return rows


def main(benchmark: SignalBenchmark) -> None:
    """Runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    from rich.console import Console
    from rich.table import Table

    result = run(benchmark)
    title = f"{result['task']}: {result['score']}, {result['threads']} threads, mean ± deviation over seeds"
    table = Table(*COLUMNS, title=title)
    for row in table_rows(result):
        table.add_row(*row)
    Console().print(table)
    write(result, benchmark.output)
