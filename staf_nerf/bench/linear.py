"""The matrix products of a linear layer: torch's default library compared with oneDNN, which torch ships.

Which one is faster depends on the processor. There are three ways to call oneDNN: convolutions with a 1 x 1 filter,
which our networks use where they are faster (`staf_nerf.kernels.linear`); a private operator of torch; and tensors in
oneDNN's own layout (`Tensor.to_mkldnn`), which need copies. All compute in float32.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import arg

from staf_nerf._torch_compat import linear_by_onednn
from staf_nerf.bench.record import environment, settings
from staf_nerf.bench.timing import Spread, interleave, on_threads, ratios
from staf_nerf.jobs.output import write_json
from staf_nerf.kernels.linear import convolve, convolve_outer

DEFAULT = "torch"
PRODUCTS = ("forward", "gradient of inputs", "gradient of weights")


@dataclass(frozen=True)
class LinearBenchmark:
    """Times the three matrix products of a linear layer with torch's default library and with oneDNN."""

    batches: tuple[int, ...] = (1024, 16384)
    """Numbers of rows."""
    widths: tuple[int, ...] = (64, 256)
    """Numbers of input and output features."""
    threads: tuple[int, ...] = (2, 1)
    """Numbers of threads, measured one after the other."""
    rounds: int = 11
    """Number of timings of each quantity. Median and quartiles are reported."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. By default they are printed."""


def by_convolution(a: Tensor, b: Tensor) -> Tensor:
    """Returns a bᵀ by oneDNN: as a convolution, or as the gradient of one if the sum is over rows."""
    return convolve(a, b) if a.is_contiguous() else convolve_outer(a.T, b.T)


def by_operator(a: Tensor, b: Tensor) -> Tensor:
    """Returns a bᵀ by oneDNN, through a private operator of torch."""
    return linear_by_onednn(a, b)


def by_tensors(a: Tensor, b: Tensor) -> Tensor:
    """Returns a bᵀ by oneDNN, through tensors in its layout."""
    return torch.nn.functional.linear(a.to_mkldnn(), b.to_mkldnn()).to_dense()


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    DEFAULT: torch.nn.functional.linear,
    "oneDNN, convolution": by_convolution,
    "oneDNN, private operator": by_operator,
    "oneDNN, its tensors": by_tensors,
}


def time_products(benchmark: LinearBenchmark) -> dict[str, Any]:
    """Returns rows with median and quartiles in seconds, ratios to torch's default, and the largest error.

    Raises:
        RuntimeError: If this build of torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise RuntimeError("this benchmark needs a build of torch with oneDNN")
    rows = []
    for threads, batch, width in itertools.product(benchmark.threads, benchmark.batches, benchmark.widths):
        for product, pair in operands(batch, width).items():
            with on_threads(threads):
                timed = _compare(pair, benchmark.rounds)
            sizes = {"product": product, "threads": threads, "batch": batch, "width": width}
            rows += [{**sizes, **row} for row in timed]
    return {**environment(), **settings(benchmark), "rows": rows}


def _compare(pair: tuple[Tensor, Tensor], rounds: int) -> list[dict[str, Any]]:
    """Returns one row for each way to compute a bᵀ."""
    expected = pair[0].double() @ pair[1].double().T
    times = interleave({name: functools.partial(way, *pair) for name, way in WAYS.items()}, rounds=rounds)
    return [
        {
            "way": name,
            "seconds": asdict(Spread.of(times[name])),
            "ratio": asdict(ratios(times, name, DEFAULT)),
            "error": float((way(*pair).double() - expected).abs().max() / expected.abs().max()),
        }
        for name, way in WAYS.items()
    ]


def operands(batch: int, width: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the products of y = x Wᵀ and its gradients as pairs (a, b) for a bᵀ, by the names in `PRODUCTS`."""
    generator = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, batch, width, generator=generator)
    weight = torch.randn(width, width, generator=generator)
    return dict(zip(PRODUCTS, ((x, weight), (grad, weight.T), (grad.T, x.T)), strict=True))


def main(benchmark: LinearBenchmark) -> None:
    """Runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    result = time_products(benchmark)
    ways = [name for name in WAYS if name != DEFAULT]
    table = Table("product", "threads", "batch", "width", "torch, ms", *ways, title=f"{result['cpu']}: ratio to torch")
    rows = result["rows"]
    for i in range(0, len(rows), len(WAYS)):
        default, *others = rows[i : i + len(WAYS)]
        cells = [str(Spread(**row["ratio"])) for row in others]
        sizes = (str(default[name]) for name in ("threads", "batch", "width"))
        table.add_row(default["product"], *sizes, f"{1000 * default['seconds']['median']:.2f}", *cells)
    Console().print(table)
    write_json(result, benchmark.output)
