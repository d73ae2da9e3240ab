"""The command `staf`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from staf_nerf.bench import activation, linear, mlp, nerf, nerf_speed

MEASURE = {
    activation.ActivationBenchmark: activation.main,
    linear.LinearBenchmark: linear.main,
    mlp.MlpBenchmark: mlp.main,
    mlp.ScalingBenchmark: mlp.main,
    nerf.NerfBenchmark: nerf.main,
    nerf_speed.NerfSpeedBenchmark: nerf_speed.main,
}
"""What runs a benchmark, by the type of its settings."""


def demo(
    *,
    method: str = "staf-nerf",
    data: Path | None = None,
    steps: int = 3000,
    output: Path = Path("outputs/demo"),
    seed: int = 0,
    frames: int = 40,
) -> None:
    """Trains a radiance field on the scene that is shipped, evaluates it and makes pictures and a film of it.

    Args:
        method: Preset to train.
        data: Capture to train on; the scene that is shipped, if not given.
        steps: Training steps; 3000 take about four minutes of two cores.
        output: Folder for the results.
        seed: Of all random numbers.
        frames: Frames of the turntable film; 0: no film.
    """
    with _without_warnings():
        from staf_nerf.plugin import demo as module

    try:
        module.demo(method=method, data=data, steps=steps, output=output, seed=seed, frames=frames)
    except KeyboardInterrupt:
        sys.exit(130)


def bench(
    benchmark: OmitSubcommandPrefixes[
        OmitArgPrefixes[
            Annotated[activation.ActivationBenchmark, subcommand("activation")]
            | Annotated[linear.LinearBenchmark, subcommand("linear")]
            | Annotated[mlp.MlpBenchmark, subcommand("mlp")]
            | Annotated[mlp.ScalingBenchmark, subcommand("scaling")]
            | Annotated[nerf.NerfBenchmark, subcommand("nerf")]
            | Annotated[nerf_speed.NerfSpeedBenchmark, subcommand("nerf-speed")]
        ]
    ],
) -> None:
    """Compares quality or cost; JSON out, a table on screen.

    Args:
        benchmark: What to compare.
    """
    MEASURE[type(benchmark)](benchmark)


def doctor() -> None:
    """Says what this machine and installation use: the device, the kernels, the versions of what matters."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from rich.console import Console
    from rich.table import Table

    from staf_nerf.encodings import choose_implementation
    from staf_nerf.kernels import library, triton_is_here

    with _without_warnings():
        from staf_nerf.plugin.methods import detect_device
    from staf_nerf.presets import preset_names

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    native = "plain torch: it was installed without a C compiler"
    if library.library() is not None:
        native = f"native, {library.LEVELS[library.level()]}, {torch.get_num_threads()} threads"
    on_cuda = "no CUDA device"
    if torch.cuda.is_available():
        on_cuda = f"Triton {installed('triton')}" if triton_is_here() else "plain torch"
    table = Table(show_header=False)
    for name, value in {
        "staf_nerf": f"{installed('staf-nerf')}, Python {platform.python_version()}, {platform.platform()}",
        "torch": torch.__version__,
        "nerfstudio": installed("nerfstudio"),
        "device": detect_device(),
        "kernels on the CPU": native,
        "kernels on CUDA": on_cuda,
        "hash grids": choose_implementation("auto"),
        "methods": ", ".join(preset_names()),
    }.items():
        table.add_row(name, value)
    Console().print(table)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Holds back what libraries say about each other while they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Entry point of `staf`."""
    try:
        tyro.extras.subcommand_cli_from_dict({"demo": demo, "bench": bench, "doctor": doctor}, prog="staf")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"staf: {error}")


if __name__ == "__main__":
    main()
