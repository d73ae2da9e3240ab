"""Fits of images, sounds and shapes by several methods at equal cost: weights, seconds or steps, and several seeds.

Seconds are those that steps take when the methods are timed in turn, once, before any fit: the budget buys each method
a number of steps, and what the machine does later changes nothing. Scores are those of the final weights.
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
"""The measure that the summary is about; more is better."""
WIDEST = 4096
"""Of the networks among which one with the wanted number of weights is looked for."""
CURVE = 100
"""Points that are kept of the curve of a run."""


@dataclass(frozen=True)
class SignalBenchmark:
    """Options of the benchmarks of fits."""

    task: ClassVar[Task] = "image"

    files: tuple[Path, ...]
    """What to fit."""
    methods: tuple[str, ...]
    """Presets, each with changes after "+": an activation ("image+sine") or a key ("image+band=0.2")."""
    grid: tuple[str, ...] = ()
    """Keys with several values ("band=.1,.2"): each method with each combination of them. For finding settings."""
    seeds: tuple[int, ...] = (0, 1)
    """One run a seed, file and method."""
    seconds: float = 60.0
    """Of training, by the times of steps that are measured first."""
    steps: int = 0
    """Steps of training for all methods, instead."""
    weights: int = 198_915
    """Number of parameters: the network's width is chosen so that it is nearest; 0: widths stay as they are."""
    rounds: int = 9
    """Samples of each method's time for a step."""
    processes: int = 1
    """Runs at a time, each with its share of the threads, in a process of its own."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where fits run, and steps are timed unless the output holds their times."""
    output: Path | None = None
    """JSON file; a run that it already holds is not run again, and times of steps that it holds are not measured."""

    @property
    def names(self) -> list[str]:
        """The methods with the grid's combinations."""
        options = [
            [f"{key}={value}" for value in values.split(",")]
            for key, _, values in (g.partition("=") for g in self.grid)
        ]
        return ["+".join([method, *chosen]) for method in self.methods for chosen in itertools.product(*options)]


@dataclass(frozen=True)
class ImageBenchmark(SignalBenchmark):
    """Fits images by several methods at equal cost."""

    methods: tuple[str, ...] = ("image", "image-sine")
    """Presets, each with changes after "+": an activation ("image+finer") or a key ("image+band=0.2")."""


@dataclass(frozen=True)
class SuperResolutionBenchmark(SignalBenchmark):
    """Enlarges images by several methods at equal cost."""

    task: ClassVar[Task] = "superres"
    methods: tuple[str, ...] = ("superres", "superres+sine")
    """Presets, each with changes after "+"."""


@dataclass(frozen=True)
class DenoiseBenchmark(SignalBenchmark):
    """Removes noise that is added to images by several methods at equal cost."""

    task: ClassVar[Task] = "denoise"
    methods: tuple[str, ...] = ("denoise", "denoise+sine")
    """Presets, each with changes after "+"."""


@dataclass(frozen=True)
class AudioBenchmark(SignalBenchmark):
    """Fits sounds by several methods at equal cost."""

    task: ClassVar[Task] = "audio"
    methods: tuple[str, ...] = ("audio", "audio-sine")
    """Presets, each with changes after "+"."""


@dataclass(frozen=True)
class ShapeBenchmark(SignalBenchmark):
    """Fits meshes by several methods at equal cost."""

    task: ClassVar[Task] = "shape"
    methods: tuple[str, ...] = ("shape", "shape+sine")
    """Presets, each with changes after "+"."""
    weights: int = 198_717
    """Number of parameters: the network's width is chosen so that it is nearest; 0: widths stay as they are."""


@dataclass(frozen=True)
class Case:
    """A signal, the field that is to become it, and what the field is worth afterwards."""

    signal: Signal
    model: nn.Module
    measure: Callable[[], Mapping[str, Any]]
    criterion: Callable[[nn.Module], float] | None = None


def make_case(config: Config, file: Path, seed: int, device: str = "cpu") -> Case:
    """What a configuration makes of a file, on a device."""
    generator = Generator().manual_seed(seed)
    if isinstance(config, ImageConfig):
        task = ImageTask.of(read_image(file), config, seed=seed)
        truth = task.truth
        if truth is None:
            raise ValueError("photons must be positive: of a file that is noisy already the truth is not known")
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
    """The configuration of a method's name, as wide as it takes to have that many weights.

    Raises:
        ValueError: If the preset or a change is unknown, or no width has about as many.
    """
    name, *changes = method.split("+")
    if name not in (known := preset_names(task)) and not name.endswith(".toml"):
        raise ValueError(f"methods must start with one of {known} or a .toml file, got {name!r}")
    config = changed(load_preset(name, "cpu", DEFAULTS[task]), changes)
    if not isinstance(config, ShapeConfig):
        refuse_unused_frequency(config.field, band=config.band)
    return _as_wide_as(config, weights) if weights else config


def count_weights(config: Config) -> int:
    """Parameters of the field of three colours, one channel of sound, or a shape's distance."""
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
        raise ValueError(f"no width gives {weights} weights or about as many, the nearest is {count_weights(found)}")
    return found


def run(benchmark: SignalBenchmark) -> Row:
    """Times steps, runs what is missing, and returns rows, the times, and a summary."""
    if not benchmark.files:
        raise ValueError("files must name one or more, got none")
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
    """Median and quartiles of a step's seconds, all methods timed in turn on the first file."""
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
    """Runs a cell, in whatever process."""

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
        except RuntimeError as error:  # it diverged: that is a result
            return {"steps": steps, "failed": str(error), "commit": commit()}
        seconds = time.perf_counter() - start
        try:
            measures = dict(case.measure())
        except ValueError as error:  # there is no surface: so is that
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
    """How rows of that task are summarised."""
    return Grouping(("method", "budget", "amount", "weights"), "file", (SCORES[task],))


def report(benchmark: SignalBenchmark, rows: list[Row], times: Mapping[str, Any]) -> Row:
    """Rows with a summary of each method and budget over files and seeds, best first."""
    return {
        "task": benchmark.task,
        "score": SCORES[benchmark.task],
        "summary": summarize(rows, grouping_of(benchmark.task)),
        "step_seconds": dict(times),
        "rows": rows,
        **environment(),
    }


COLUMNS = ("method", "budget", "score", "wins", "weights", "steps", "seconds", "memory")
"""Of a summary on screen and in a report."""


def table_rows(result: Row) -> list[list[str]]:
    """What `COLUMNS` name, for each method and budget of a result, the best first."""
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
    """Runs, prints a table, and JSON where no file is given."""
    from rich.console import Console
    from rich.table import Table

    result = run(benchmark)
    title = f"{result['task']}: {result['score']}, {result['threads']} threads, mean ± deviation over seeds"
    table = Table(*COLUMNS, title=title)
    for row in table_rows(result):
        table.add_row(*row)
    Console().print(table)
    write(result, benchmark.output)
