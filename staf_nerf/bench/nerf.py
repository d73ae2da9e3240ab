"""Radiance fields compared on captures: same images, split and rays per step, at equal steps or equal wall-clock time.

PSNR and SSIM are those of the final weights on the held-out images.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.conf import Positional, arg

from staf_nerf.bench.record import commit, cpu_model, environment
from staf_nerf.bench.summary import Grouping, shared_columns, summarize, with_deviation
from staf_nerf.bench.sweep import Row, changed, parse, run_missing
from staf_nerf.fields import count_parameters
from staf_nerf.jobs.output import write_json
from staf_nerf.presets import load_preset, preset_names
from staf_nerf.progress import peak_memory

CALIBRATION_STEPS = 70
"""Number of timed steps, first with and then without updates of the proposal networks, for a wall-clock budget."""
UNTIMED_STEPS = 60
"""Number of steps before those. The first steps allocate memory and are slower."""

STOCK_SMALL: dict[str, Any] = {
    "implementation": "torch",
    "num_levels": 8,
    "log2_hashmap_size": 15,
    "max_res": 512,
    "num_proposal_samples_per_ray": (64, 32),
    "num_nerf_samples_per_ray": 24,
}
"""Small sizes for nerfstudio's nerfacto on a CPU. Everything else is unchanged."""

SETTINGS = ("method", "budget", "amount", "rays", "downscale_factor", "held_out", "steps_per_eval", "threads")
GROUPING = Grouping(SETTINGS, "data", ("psnr", "ssim"))
"""How rows are grouped in the summary."""
COLUMNS = ("method", "budget", "psnr", "ssim", "wins", "weights", "steps", "seconds", "rays per second", "memory")
"""Columns of a summary, on screen and in a report."""


@dataclass(frozen=True)
class NerfBenchmark:
    """Trains methods on captures and reports quality and cost."""

    data: Annotated[Positional[tuple[Path, ...]], arg(metavar="CAPTURE [CAPTURE ...]")]
    """Captures to train on."""
    methods: tuple[str, ...] = ("staf-nerf", "staf-nerf+relu", "nerfacto")
    """Presets, each with optional changes after "+": an activation ("staf-nerf+relu") or a key with a value.
    Or "nerfacto", which is nerfstudio's own with small CPU sizes, with keys of its model ("nerfacto+far_plane=10")."""
    downscale_factor: int | None = None
    """Integer factor by which the images are reduced. Defaults to full size."""
    seeds: tuple[int, ...] = (0, 1)
    """Random seeds. Each method is run on each capture once per seed."""
    budget: Literal["steps", "minutes"] = "steps"
    """Quantity that is equal for all methods: training steps or wall-clock minutes of training."""
    amount: float = 900.0
    """Size of the budget, in steps or minutes."""
    rays: int = 1024
    """Number of rays per training step."""
    held_out: Literal["test", "val"] = "test"
    """Split to evaluate on. Use "val" to choose settings and "test" to report results."""
    steps_per_eval: int = 0
    """Number of steps between evaluations during training, which do not count as training time. 0: none.
    The best PSNR is reported too, because published tables quote it. It is chosen with the held-out views."""
    processes: int = 0
    """Number of runs at a time, each in its own process. 0: one after the other in this process.
    Times are comparable only for one run at a time, and peak memory is reported only for separate processes."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. Runs that it already contains are not repeated."""


def compare_methods(benchmark: NerfBenchmark) -> dict[str, Any]:
    """Runs what the output does not contain yet and returns all rows, with their summary.

    Raises:
        ValueError: If there is no capture, two have the same name, or several processes share a wall-clock budget.
    """
    names = [data.name for data in benchmark.data]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"data must name captures with different names, got {[str(data) for data in benchmark.data]}")
    if benchmark.processes > 1 and benchmark.budget == "minutes":
        raise ValueError(f"processes must be 0 or 1 for a budget in minutes, got {benchmark.processes}")
    shared = {
        "budget": benchmark.budget,
        "amount": benchmark.amount,
        "rays": benchmark.rays,
        "downscale_factor": benchmark.downscale_factor,
        "held_out": benchmark.held_out,
    }
    shared |= {"steps_per_eval": benchmark.steps_per_eval} if benchmark.steps_per_eval else {}
    cells = [
        {"method": method, "data": name, "seed": seed, **shared}
        for seed in benchmark.seeds
        for name in names
        for method in benchmark.methods
    ]
    return run_missing(cells, _Job(benchmark), with_summary, benchmark.output, processes=benchmark.processes)


@dataclass(frozen=True)
class _Job:
    """Runs one cell of the benchmark. It can be pickled for another process."""

    benchmark: NerfBenchmark

    def __call__(self, cell: Row) -> Row:
        data = next(data for data in self.benchmark.data if data.name == cell["data"])
        return train_and_evaluate(self.benchmark, data, cell["method"], cell["seed"])


def with_summary(rows: list[Row]) -> Row:
    """Returns the rows, their summary over captures and seeds, and the environment needed to repeat them."""
    return {"summary": summarize(rows, GROUPING), "rows": rows, **environment("nerfstudio")}


def train_and_evaluate(
    benchmark: NerfBenchmark, data: Path, method: str, seed: int, after: Callable[[Any], Row] | None = None
) -> Row:
    """Trains a method on a capture and returns its metrics, with those of `after(trainer)` if it is given."""
    from staf_nerf.machine.memory import keep_freed_memory
    from staf_nerf.plugin import run as runs

    keep_freed_memory()  # our methods do this, so do it for all methods
    steps = int(benchmark.amount)
    with tempfile.TemporaryDirectory() as folder, without_lpips():
        if benchmark.budget == "minutes":
            steps = _calibrate(benchmark, data, method, seed, Path(folder))
        config = make_config(benchmark, data, method, steps, Path(folder))
        trainer = runs.set_up(config, seed=seed, test_mode=benchmark.held_out)
        evaluations = _Evaluations(benchmark.steps_per_eval)
        start = time.perf_counter()
        runs.train(trainer, evaluations if benchmark.steps_per_eval else None)
        seconds = time.perf_counter() - start - evaluations.seconds
        metrics = runs.evaluate(trainer.pipeline.model, trainer.pipeline.datamanager)
        parameters = count_parameters(trainer.pipeline.model)
        further = after(trainer) if after is not None else {}
    return {
        "steps": steps,
        "psnr": metrics["psnr"],
        "ssim": metrics["ssim"],
        "seconds": seconds,
        "rays_per_second": steps * benchmark.rays / seconds,
        "parameters": parameters,
        "threads": torch.get_num_threads(),
        "cpu": cpu_model(),
        "commit": commit(),
        **({"peak_memory_bytes": peak_memory()} if benchmark.processes else {}),
        "views": [view["psnr"] for view in metrics["views"]],
        **evaluations.entries(metrics["psnr"]),
        **further,
    }


class _Evaluations:
    """Evaluates every `interval` steps during training and keeps the PSNR and the time that this takes."""

    def __init__(self, interval: int) -> None:
        self.interval, self.seconds = interval, 0.0
        self.psnr: list[list[float]] = []
        """Pairs of a step and the PSNR."""

    def __call__(self, trainer: Any, step: int) -> None:
        from staf_nerf.plugin import run as runs

        if (step + 1) % self.interval:
            return
        start = time.perf_counter()
        metrics = runs.evaluate(trainer.pipeline.model, trainer.pipeline.datamanager)
        self.psnr.append([step + 1, metrics["psnr"]])
        self.seconds += time.perf_counter() - start

    def entries(self, final: float) -> Row:
        """Returns the row entries about evaluations during training; `final` is the PSNR of the final weights."""
        if not self.interval:
            return {}
        best = max([final, *(psnr for _, psnr in self.psnr)])
        return {"psnr_during_training": self.psnr, "psnr_of_best": best}


def _calibrate(benchmark: NerfBenchmark, data: Path, method: str, seed: int, folder: Path) -> int:
    """Times steps with and without updates of the proposal networks and returns how many fit into the budget.

    Extra time of the first steps, for example to initialise the surface, is subtracted from the budget once.
    """
    from staf_nerf.plugin import run as runs

    with_updates = UNTIMED_STEPS + CALIBRATION_STEPS
    total = with_updates + CALIBRATION_STEPS
    trainer = runs.set_up(make_config(benchmark, data, method, total, folder), seed=seed)
    sampler: Any = trainer.pipeline.model.proposal_sampler
    interval, ends = sampler.update_sched, []

    def on_step(_: Any, step: int) -> None:
        ends.append(time.perf_counter())
        if len(ends) == with_updates:
            sampler.update_sched = lambda step: math.inf

    start = time.perf_counter()
    runs.train(trainer, on_step)
    mixed = (ends[with_updates - 1] - ends[UNTIMED_STEPS - 1]) / CALIBRATION_STEPS
    plain = (ends[total - 1] - ends[with_updates - 1]) / CALIBRATION_STEPS
    update = max(mixed - plain, 0.0) / _update_rate(interval, UNTIMED_STEPS)
    once = max(ends[UNTIMED_STEPS - 1] - start - UNTIMED_STEPS * mixed, 0.0)
    return steps_within(60.0 * benchmark.amount - once, plain, update, interval)


def _update_rate(interval: Callable[[int], float], step: int) -> float:
    """Returns the updates per step of the proposal networks, which nerfstudio makes every floor(interval) + 1 steps."""
    return 1.0 / (math.floor(interval(step)) + 1.0)


def steps_within(seconds: float, plain: float, update: float, interval: Callable[[int], float]) -> int:
    """Returns how many steps fit into a wall-clock budget, at least one.

    Args:
        seconds: The budget.
        plain: Seconds of a step without an update of the proposal networks.
        update: Additional seconds of such an update.
        interval: Steps between updates, as a function of the step.
    """
    steps, spent = 0, 0.0
    while spent < seconds:
        spent += plain + update * _update_rate(interval, steps)
        steps += 1
    return max(steps - 1, 1)


def make_config(benchmark: NerfBenchmark, data: Path, method: str, steps: int, folder: Path) -> Any:
    """Returns the trainer configuration for a method, with its changes, and a capture.

    Raises:
        ValueError: If the method or a change is unknown.
    """
    if (known := method.split("+")[0]) not in (names := [*preset_names(), "nerfacto"]):
        raise ValueError(f"methods must start with one of {names}, got {known!r}")
    name, *changes = method.split("+")
    config: Any = _stock(steps, changes) if name == "nerfacto" else _ours(name, changes, steps)
    manager = config.pipeline.datamanager
    manager.data = data
    manager.dataparser.downscale_factor = benchmark.downscale_factor
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = benchmark.rays
    config.max_num_iterations = steps
    config.steps_per_save = steps + 1
    config.output_dir = folder
    config.experiment_name = "bench"
    config.timestamp = str(steps)
    return config


def _ours(name: str, changes: list[str], steps: int):
    from staf_nerf.machine.device import detect_device
    from staf_nerf.plugin.methods import trainer_config

    device = detect_device()
    preset = changed(load_preset(name, device), changes)
    training = dataclasses.replace(preset.training, steps=steps)
    return trainer_config(name, dataclasses.replace(preset, training=training), device)


def _stock(steps: int, changes: list[str]):
    """Returns nerfstudio's nerfacto with small CPU sizes, our dataparser and a schedule of that length."""
    from nerfstudio.configs.method_configs import all_methods
    from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig

    from staf_nerf.machine.device import detect_device
    from staf_nerf.plugin.dataparser import CaptureDataParserConfig

    config = copy.deepcopy(all_methods["nerfacto"])
    config.pipeline.datamanager = VanillaDataManagerConfig(dataparser=CaptureDataParserConfig(max_image_size=None))
    named = {key: parse(value) for key, _, value in (change.partition("=") for change in changes)}
    for key, value in (STOCK_SMALL | named).items():
        *path, last = key.split(".")
        holder: Any = functools.reduce(lambda part, name: getattr(part, name, None), path, config.pipeline.model)
        if not hasattr(holder, last):
            raise ValueError(
                f"unknown key {key!r} of nerfacto's model; the known keys are {sorted(vars(config.pipeline.model))}"
            )
        setattr(holder, last, value)
    config.machine.device_type = detect_device()
    # A copy, because the dictionary is nerfstudio's shared default.
    config.optimizers = copy.deepcopy(dict(config.optimizers))
    for group in config.optimizers.values():
        if group["scheduler"] is not None:
            group["scheduler"].max_steps = steps
    return config


@contextlib.contextmanager
def without_lpips() -> Iterator[None]:
    """Replaces LPIPS by a placeholder inside: nerfstudio's methods construct it, which would download its weights."""
    import torchmetrics.image.lpip as module

    class Blank(torch.nn.Module):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()

        def forward(self, *images: torch.Tensor) -> float:
            return float("nan")

    original = module.LearnedPerceptualImagePatchSimilarity
    module.LearnedPerceptualImagePatchSimilarity = Blank  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        module.LearnedPerceptualImagePatchSimilarity = original  # pyright: ignore[reportAttributeAccessIssue]


def table_rows(result: Row) -> list[list[str]]:
    """Returns the columns `COLUMNS` for each method and budget of a result, best first."""
    rows = []
    for entry in summarize(result["rows"], GROUPING):
        best = f" (best during training: {entry['psnr_of_best']:.2f})" if "psnr_of_best" in entry else ""
        cells = {
            "psnr": with_deviation(entry, "psnr", 2) + best,
            "ssim": with_deviation(entry, "ssim", 3),
            "rays per second": f"{entry['rays_per_second']:,.0f}",
            **shared_columns(entry),
        }
        rows.append([cells[name] for name in COLUMNS])
    return rows


def main(benchmark: NerfBenchmark) -> None:
    """Checks the methods, runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    from rich.console import Console
    from rich.table import Table

    for method in benchmark.methods:
        make_config(benchmark, Path(), method, 1, Path())  # refuses wrong keys before training starts
    result = compare_methods(benchmark)
    names = ", ".join(data.name for data in benchmark.data)
    threads = "/".join(str(number) for number in sorted({row["threads"] for row in result["rows"]}))
    table = Table(*COLUMNS, title=f"{names}, {threads} threads a run, mean ± deviation over seeds")
    for row in table_rows(result):
        table.add_row(*row)
    Console().print(table)
    write_json(result, benchmark.output)
