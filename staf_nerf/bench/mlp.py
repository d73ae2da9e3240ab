"""Cost of a training step of a coordinate network with each activation, and how it scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from tyro.conf import arg

from staf_nerf.bench.baselines import BASELINE, Baseline, baselines, broadcast_name, is_fused, staf_name
from staf_nerf.bench.record import environment, settings
from staf_nerf.bench.timing import Spread, interleave, on_threads, ratios
from staf_nerf.jobs.output import write_json
from staf_nerf.mlp import CoordinateMLP

HIDDEN_LAYERS = 4
STEPS = ("train", "eikonal")
"""Kinds of training step; see `make_step`."""
TORCH_ALONE = "sine, torch alone"
"""The baseline with torch's own linear layers. All other networks use those of `staf_nerf.kernels.linear`."""

BATCHES = (1024, 4096, 16384, 65536, 262144)
WIDTHS = (32, 64, 128, 256, 512, 1024)
FREQUENCIES = (1, 2, 4, 8, 16, 32)
MOST_BROADCAST = 2**25
"""Largest number of values of a layer (batch x width x τ) at which the broadcast formula is timed."""


@dataclass(frozen=True)
class MlpBenchmark:
    """Times training steps of a 2-w-w-w-w-3 network and eikonal steps of a 3-w-w-w-w-1 network per activation."""

    batch: int = 16384
    """Batch size: number of points per training step."""
    width: int = 256
    """Width w of the hidden layers."""
    num_frequencies: tuple[int, ...] = (5, 20)
    """Numbers of sinusoids of STAF to time."""
    threads: tuple[int, ...] = (2, 1)
    """Numbers of threads, measured one after the other (CPU only)."""
    rounds: int = 11
    """Number of timings of each quantity. Median and quartiles are reported."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to compute on."""
    compiled: bool = True
    """Include a sine network compiled by torch.compile. On a CPU this needs a C++ compiler."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. By default they are printed."""


@dataclass(frozen=True)
class ScalingBenchmark:
    """Times training steps of a 2-w-w-w-w-3 network for several batch sizes, widths and numbers of sinusoids."""

    threads: int = 2
    """Number of threads (CPU only)."""
    rounds: int = 5
    """Number of timings of each quantity. Median and quartiles are reported."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device to compute on."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. By default they are printed."""
    picture: Path | None = None
    """File for a plot. Its suffix gives the format."""


def time_networks(benchmark: MlpBenchmark) -> dict[str, Any]:
    """Returns rows with median and quartiles in seconds, and ratios to torch's eager sine."""
    rows = []
    compared = baselines(benchmark.num_frequencies, compiled=benchmark.compiled)
    compared = {TORCH_ALONE: compared[BASELINE], **compared}
    for threads in benchmark.threads if benchmark.device == "cpu" else benchmark.threads[:1]:
        for kind in STEPS:
            # torch.compile does not differentiate twice; ReLU's second derivative is zero.
            names = [n for n, b in compared.items() if kind == "train" or not (b.compiled or n == "ReLU")]
            with on_threads(threads):
                steps = {n: make_step(kind, compared[n], benchmark, torch_alone=n == TORCH_ALONE) for n in names}
                times = interleave(steps, rounds=benchmark.rounds, warmup=1)
            for name in names:
                fused = is_fused(compared[name], benchmark.device, torch.float32)
                row = {"name": name, "measure": kind, "threads": threads, "fused": fused}
                row |= {"seconds": asdict(Spread.of(times[name])), "ratio": asdict(ratios(times, name, BASELINE))}
                rows.append(row)
    return {**environment(), **settings(benchmark), "baseline": BASELINE, "rows": rows}


def make_step(
    kind: str, baseline: Baseline, benchmark: MlpBenchmark, *, torch_alone: bool = False
) -> Callable[[], object]:
    """Returns a function that trains a new network by one step of Adam.

    Args:
        kind: "train": mean squared error of 3 values at points with 2 coordinates. "eikonal": a loss on the value
            and the gradient's length at points with 3 coordinates, as for a signed distance.
        baseline: The activation.
        benchmark: Batch size, width and device.
        torch_alone: Whether to use torch's own linear layers.
    """
    generator = torch.Generator().manual_seed(0)
    network = CoordinateMLP(
        *((2, 3) if kind == "train" else (3, 1)),
        hidden_features=benchmark.width,
        hidden_layers=HIDDEN_LAYERS,
        activation=lambda layer: baseline.make(benchmark.width),
        generator=generator,
    ).to(benchmark.device)
    model = _with_torch_alone(network) if torch_alone else network
    x = 2 * torch.rand(benchmark.batch, 2 if kind == "train" else 3, generator=generator).to(benchmark.device) - 1
    target = torch.rand(benchmark.batch, 3, generator=generator).to(benchmark.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    if baseline.compiled:
        network.compile()

    def train() -> None:
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def eikonal() -> None:
        points = x.requires_grad_()
        value = model(points)
        gradient = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
        loss = value.abs().mean() + (gradient.norm(dim=-1) - 1.0).square().mean()
        optimizer.zero_grad()
        loss.backward(inputs=list(network.parameters()))
        optimizer.step()

    return train if kind == "train" else eikonal


def _with_torch_alone(network: CoordinateMLP) -> nn.Sequential:
    """Returns the same network, with the same parameters, with torch's own linear layers."""
    hidden = [part for layer in network.layers for part in (_torch_linear(layer.linear), layer.activation)]
    return nn.Sequential(*hidden, _torch_linear(network.output))


def _torch_linear(linear: nn.Linear) -> nn.Linear:
    """Returns torch's own linear layer with the parameters of another one."""
    own = nn.Linear(linear.in_features, linear.out_features, device="meta")
    own.weight, own.bias = linear.weight, linear.bias
    return own


def time_scaling(benchmark: ScalingBenchmark) -> dict[str, Any]:
    """Times STAF, its broadcast formula and an eager sine along each axis, with the other two at their defaults."""
    base = MlpBenchmark()
    sweeps = {
        "batch": [(batch, base.width, 5) for batch in BATCHES],
        "width": [(base.batch, width, 5) for width in WIDTHS],
        "num_frequencies": [(base.batch, base.width, number) for number in FREQUENCIES],
    }
    rows = []
    for axis, cases in sweeps.items():
        for batch, width, number in cases:
            sizes = MlpBenchmark(batch=batch, width=width, device=benchmark.device)
            compared = baselines((number,))
            names = {"sine": BASELINE, "STAF": staf_name(number)}
            if batch * width * number <= MOST_BROADCAST:
                names["broadcast"] = broadcast_name(number)
            with on_threads(benchmark.threads):
                steps = {kind: make_step("train", compared[name], sizes) for kind, name in names.items()}
                times = interleave(steps, rounds=benchmark.rounds, warmup=1)
            for kind, values in times.items():
                point = {"batch": batch, "width": width, "num_frequencies": number}
                rows.append({"axis": axis, **point, "kind": kind, "seconds": asdict(Spread.of(values))})
    return {**environment(), **settings(benchmark), "rows": rows}


def plot(result: dict[str, Any], picture: Path) -> None:
    """Plots the result of `time_scaling`: step time over each axis."""
    from matplotlib.figure import Figure

    labels = {"batch": "batch size", "width": "width", "num_frequencies": "sinusoids τ"}
    styles = {
        "broadcast": ("STAF, broadcast formula", "s:"),
        "sine": ("sine, eager torch", "o--"),
        "STAF": ("STAF", "D-"),
    }
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for panel, (axis, label) in zip(axes, labels.items(), strict=True):
        for kind, (name, style) in styles.items():
            rows = [row for row in result["rows"] if row["axis"] == axis and row["kind"] == kind]
            seconds = [row["seconds"]["median"] for row in rows]
            panel.loglog([row[axis] for row in rows], seconds, style, label=name, markersize=4)
        panel.set_xlabel(label)
        panel.set_xscale("log", base=2)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("seconds per training step")
    axes[0].legend(frameon=False)
    machine = result["gpu"] if result["device"] == "cuda" else f"{result['cpu']}, {result['threads']} threads"
    figure.suptitle(f"2-w-w-w-w-3, Adam; {machine}", fontsize=9)
    figure.savefig(picture, dpi=150)


def main(benchmark: MlpBenchmark | ScalingBenchmark) -> None:
    """Runs the benchmark, prints a table or draws a plot, and writes JSON to the output file or the screen."""
    if isinstance(benchmark, ScalingBenchmark):
        result = time_scaling(benchmark)
        write_json(result, benchmark.output)
        if benchmark.picture is not None:
            plot(result, benchmark.picture)
        return
    result = time_networks(benchmark)
    for kind in STEPS:
        title = f"{kind} step, batch {benchmark.batch}, width {benchmark.width}: ms, and ratio to {BASELINE}"
        table = Table("network of", "fused", title=title)
        for threads in benchmark.threads if benchmark.device == "cpu" else ("a GPU's",):
            table.add_column(f"{threads} threads")
        rows = [row for row in result["rows"] if row["measure"] == kind]
        for name in dict.fromkeys(row["name"] for row in rows):
            timed = [row for row in rows if row["name"] == name]
            cells = [f"{1000 * row['seconds']['median']:.0f}  {Spread(**row['ratio'])}" for row in timed]
            table.add_row(name, "yes" if timed[0]["fused"] else "", *cells)
        Console().print(table)
    write_json(result, benchmark.output)
