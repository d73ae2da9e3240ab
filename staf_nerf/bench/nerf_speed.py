"""Training and rendering speed of radiance field methods, timed in turn with the same number of rays per step."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from staf_nerf.bench.nerf import NerfBenchmark, make_config, without_lpips
from staf_nerf.bench.record import environment, settings
from staf_nerf.bench.timing import Spread, interleave, on_threads, ratios
from staf_nerf.fields import count_parameters
from staf_nerf.jobs.output import write_json

EQUAL = (
    'nerfacto+proposal_net_args_list=[{"hidden_dim":16,"log2_hashmap_size":13,"num_levels":5,"max_res":128,'
    '"use_linear":false},{"hidden_dim":16,"log2_hashmap_size":13,"num_levels":5,"max_res":256,"use_linear":false}]'
    "+num_proposal_samples_per_ray=[48,24]+num_nerf_samples_per_ray=16"
    "+camera_optimizer.mode=off+eval_num_rays_per_chunk=2048"
)
"""nerfacto with the sizes of our methods: tables of the proposal networks (stock: 2^17 rows per level), samples per
ray, no camera optimizer, and rendering in chunks that fit a CPU's caches."""


@dataclass(frozen=True)
class NerfSpeedBenchmark:
    """Times training steps and rendered views of radiance field methods.

    The fields are nearly untrained. Trained ones render faster if a method skips samples without weight.
    """

    data: Annotated[Positional[Path], arg(metavar="CAPTURE")]
    """Capture to train on."""
    methods: tuple[str, ...] = ("staf-nerf", "staf-nerf+relu", "nerfacto-equal", "nerfacto")
    """Methods, as for `staf bench nerf`. Ratios refer to the last one.
    "nerfacto-equal" is nerfacto with our table sizes and samples, and without camera optimizer."""
    downscale_factor: int | None = None
    """Integer factor by which the images are reduced. Defaults to full size."""
    rays: int = 1024
    """Number of rays per training step."""
    first_step: int = 6000
    """Number of the first timed step.
    Proposal networks are updated often at first, and every sixth step from step 5000 on."""
    steps: int = 6
    """Number of steps per timing. The default is the period of those updates."""
    rounds: int = 11
    """Number of timings of each method. Median and quartiles are reported."""
    threads: tuple[int, ...] = (2, 1)
    """Numbers of threads, measured one after the other (CPU only)."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. By default they are printed."""


def time_methods(benchmark: NerfSpeedBenchmark) -> dict[str, Any]:
    """Returns rows with median and quartiles of rays/s and seconds per view, and ratios to the last method."""
    from staf_nerf.machine.memory import keep_freed_memory

    keep_freed_memory()  # our methods do this, so do it for all methods
    rows = []
    with ExitStack() as stack:
        stack.enter_context(without_lpips())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trainers = {name: _trainer(benchmark, name, folder) for name in benchmark.methods}
        steps = {name: _steps(trainer, benchmark) for name, trainer in trainers.items()}
        views = {name: _view(trainer) for name, trainer in trainers.items()}
        camera = _camera(trainers[benchmark.methods[0]])
        for threads in benchmark.threads:
            with on_threads(threads):
                step_times = interleave(steps, rounds=benchmark.rounds)
                view_times = interleave(views, rounds=max(benchmark.rounds // 3, 1), warmup=1)
            for name in benchmark.methods:
                last = benchmark.methods[-1]
                compared = {"last": step_times[last], name: step_times[name]}
                rays = [benchmark.steps * benchmark.rays / seconds for seconds in step_times[name]]
                rows.append(
                    {
                        "method": name,
                        "threads": threads,
                        "parameters": count_parameters(trainers[name].pipeline.model),
                        "rays_per_second": asdict(Spread.of(rays)),
                        "times_as_fast": asdict(ratios(compared, "last", name)),
                        "view_seconds": asdict(Spread.of(view_times[name])),
                    }
                )
    capture = {"data": benchmark.data.name, "view_pixels": int(camera.height) * int(camera.width)}
    return {**environment("nerfstudio"), **settings(benchmark), **capture, "rows": rows}


def _trainer(benchmark: NerfSpeedBenchmark, name: str, folder: Path) -> Any:
    from staf_nerf.plugin import run as runs

    quality = NerfBenchmark((benchmark.data,), downscale_factor=benchmark.downscale_factor, rays=benchmark.rays)
    method = EQUAL if name == "nerfacto-equal" else name
    return runs.set_up(make_config(quality, benchmark.data, method, benchmark.first_step + 1, folder / name), seed=0)


def _steps(trainer: Any, benchmark: NerfSpeedBenchmark) -> Callable[[], None]:
    from staf_nerf.plugin import run as runs

    numbers = itertools.count(benchmark.first_step)

    def function() -> None:
        for _ in range(benchmark.steps):
            runs.step(trainer, next(numbers))

    return function


def _view(trainer: Any) -> Callable[[], None]:
    camera, model = _camera(trainer), trainer.pipeline.model

    def function() -> None:
        model.eval()
        with torch.no_grad():
            model.get_outputs_for_camera(camera)
        model.train()

    return function


def _camera(trainer: Any) -> Any:
    """Returns the camera of the first held-out view."""
    camera, _ = next(iter(trainer.pipeline.datamanager.fixed_indices_eval_dataloader))
    return camera


def main(benchmark: NerfSpeedBenchmark) -> None:
    """Runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    result = time_methods(benchmark)
    table = Table(title=f"{result['data']}, {benchmark.rays} rays per step; views of {result['view_pixels']} pixels")
    for column in ("method", "threads", "parameters", "rays/s", f"times {benchmark.methods[-1]}", "seconds per view"):
        table.add_column(column)
    for row in result["rows"]:
        rays, faster, view = (Spread(**row[name]) for name in ("rays_per_second", "times_as_fast", "view_seconds"))
        table.add_row(
            row["method"], str(row["threads"]), f"{row['parameters']:,}", f"{rays.median:.0f}", str(faster), str(view)
        )
    Console().print(table)
    write_json(result, benchmark.output)
