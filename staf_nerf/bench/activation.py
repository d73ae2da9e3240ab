"""Cost of an activation alone: forward, backward, double backward, and the memory kept for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tyro.conf import arg

from staf_nerf.bench.baselines import BASELINE, Baseline, baselines, is_fused
from staf_nerf.bench.record import environment, settings
from staf_nerf.bench.timing import Spread, interleave, on_threads, ratios
from staf_nerf.jobs.output import write_json

OPERATIONS = ("forward", "forward and backward", "backward of backward")
"""What is timed: the keys of the times in a row."""


@dataclass(frozen=True)
class ActivationBenchmark:
    """Times activations on a tensor of batch x width values."""

    batch: int = 16384
    """Number of rows of the tensor."""
    width: int = 256
    """Number of features (columns) of the tensor."""
    num_frequencies: tuple[int, ...] = (5, 20)
    """Numbers of sinusoids of STAF to time."""
    threads: tuple[int, ...] = (2, 1)
    """Numbers of threads, measured one after the other (CPU only)."""
    rounds: int = 11
    """Number of timings of each quantity. Median and quartiles are reported."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to compute on."""
    dtype: Literal["float32", "float64", "float16", "bfloat16"] = "float32"
    """Type of the values.
    In half precision the parameters stay in float32, and torch's formulas compute in the type that torch chooses."""
    compiled: bool = True
    """Include a sine compiled by torch.compile. On a CPU this needs a C++ compiler."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. By default they are printed."""


def time_activations(benchmark: ActivationBenchmark) -> dict[str, Any]:
    """Returns rows with median and quartiles in seconds, and ratios to torch's eager sine."""
    rows = []
    for threads in benchmark.threads if benchmark.device == "cpu" else benchmark.threads[:1]:
        with on_threads(threads):
            rows += _rows(benchmark, threads)
    return {**environment(), **settings(benchmark), "baseline": BASELINE, "rows": rows}


def _rows(benchmark: ActivationBenchmark, threads: int) -> list[dict[str, Any]]:
    dtype = getattr(torch, benchmark.dtype)
    generator = torch.Generator().manual_seed(0)
    z, grad = torch.randn(2, benchmark.batch, benchmark.width, generator=generator).to(benchmark.device, dtype)
    z = (0.3 * z).requires_grad_()  # arguments of a few radians, as in a trained network
    compared = baselines(benchmark.num_frequencies, compiled=benchmark.compiled)
    modules = {name: _module(baseline, benchmark, dtype) for name, baseline in compared.items()}
    rows: dict[str, dict[str, Any]] = {}
    for name, baseline in compared.items():
        fused = is_fused(baseline, benchmark.device, dtype)
        rows[name] = {"name": name, "threads": threads, "fused": fused, "bytes_kept": kept_bytes(modules[name], z)}
    for operation in OPERATIONS:
        functions = {name: _functions(module, z, grad)[operation] for name, module in modules.items()}
        if operation == "backward of backward":  # torch.compile does not differentiate twice
            functions = {name: function for name, function in functions.items() if not compared[name].compiled}
        times = interleave(functions, rounds=benchmark.rounds)
        for name, values in times.items():
            rows[name][operation] = asdict(Spread.of(values))
            rows[name][f"{operation}, ratio"] = asdict(ratios(times, name, BASELINE))
    return list(rows.values())


def _module(baseline: Baseline, benchmark: ActivationBenchmark, dtype: torch.dtype) -> nn.Module:
    module: nn.Module = baseline.make(benchmark.width).to(benchmark.device)
    if dtype == torch.float64:
        module = module.double()
    if baseline.compiled:
        module.compile()
    return module


def _functions(module: nn.Module, z: Tensor, grad: Tensor) -> dict[str, Callable[[], object]]:
    """Returns the functions to time, by the names in `OPERATIONS`."""
    inputs = (z, *module.parameters())

    def forward() -> object:
        with torch.no_grad():
            return module(z)

    def backward() -> object:
        return torch.autograd.grad(module(z), inputs, grad)

    def double_backward() -> object:
        first = torch.autograd.grad(module(z), z, grad, create_graph=True)
        return torch.autograd.grad(first, inputs, grad)

    return dict(zip(OPERATIONS, (forward, backward, double_backward), strict=True))


def kept_bytes(module: nn.Module, z: Tensor) -> float:
    """Returns the memory kept for the backward pass, in bytes per value of z, without parameters."""
    kept: dict[int, int] = {}

    def record(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(record, lambda x: x):
        y = module(z)
    for parameter in module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del y
    return round(sum(kept.values()) / z.numel(), 2)


def main(benchmark: ActivationBenchmark) -> None:
    """Runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    result = time_activations(benchmark)
    for threads in dict.fromkeys(row["threads"] for row in result["rows"]):
        where = f"{threads} threads" if benchmark.device == "cpu" else result["gpu"]
        title = f"{benchmark.batch} x {benchmark.width} {benchmark.dtype}, {where}: ms (ratio to {BASELINE})"
        table = Table("activation", "fused", *OPERATIONS, "bytes kept", title=title)
        for row in (row for row in result["rows"] if row["threads"] == threads):
            cells = [
                f"{1000 * row[name]['median']:.2f} ({row[f'{name}, ratio']['median']:.2f})" if name in row else ""
                for name in OPERATIONS
            ]
            table.add_row(row["name"], "yes" if row["fused"] else "", *cells, f"{row['bytes_kept']:g}")
        Console().print(table)
    write_json(result, benchmark.output)
