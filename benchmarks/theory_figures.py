"""Figures of the theory page: `python benchmarks/theory_figures.py --output docs` takes a minute on one core."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Generator, Tensor

from staf_nerf.activations import STAF
from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.initialization import Initialization
from staf_nerf.jobs import ntk
from staf_nerf.mlp import CoordinateMLP
from staf_nerf.theory.infinite_width import analytic_ntk, wide_network
from staf_nerf.theory.ntk import empirical_ntk
from staf_nerf.theory.spectrum import count_frequencies, frequency_support
from staf_nerf.theory.variance import kolmogorov_smirnov, outputs_over_draws, variances_within

COLORS = 96
"""Number of colours in the palette of the written images, which keeps the files small."""
INITIALIZATIONS: tuple[Initialization, ...] = ("staf-theorem", "staf-published", "normalized")


@dataclass(frozen=True)
class TheoryFigures:
    """Draws the figures of the theory page and writes their numbers to theory.json."""

    output: Path = Path("docs")
    """Output folder for the figures and theory.json."""
    seeds: int = 100
    """Number of networks for the histograms of variances."""
    draws: int = 20_000
    """Number of draws of (C, Φ)."""


def run(job: TheoryFigures) -> dict[str, Any]:
    """Draws all figures and returns their numbers."""
    job.output.mkdir(parents=True, exist_ok=True)
    found = {
        "initialization": draw_initialization(job.output / "theory_initialization.png", job.seeds, job.draws),
        "spectrum": draw_spectrum(job.output / "theory_spectrum.png"),
        "width": draw_widths(job.output / "theory_width.png"),
        "kernels": draw_kernels(job.output),
    }
    for path in sorted(job.output.glob("theory_*.png")):
        shrink(path)
    (job.output / "theory.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def draw_initialization(path: Path, seeds: int, draws: int) -> dict[str, Any]:
    """Draws the distribution of σ(z) over draws, and the variance of each layer within one network."""
    figure, axes = new_figure(1, 3, (13.0, 3.6))
    z, found = 2.0 * torch.rand(draws, generator=Generator().manual_seed(0), dtype=torch.float64) - 1.0, {}
    edges = torch.linspace(-4.0, 4.0, 81).numpy()
    for name in INITIALIZATIONS:
        values = outputs_over_draws(name, 5, z, Generator().manual_seed(1))
        test = kolmogorov_smirnov(values)
        chance = f"p = {test.p_value:.2f}" if test.p_value > 0.01 else "p < 0.01"
        label = f"{name}: D = {test.distance:.3f}, {chance}"
        axes[0][0].hist(values, edges, density=True, histtype="step", label=label)
        found[name] = {"variance over draws": values.var().item(), **test._asdict()}
    axes[0][0].plot(edges, [math.exp(-0.5 * v * v) / math.sqrt(2.0 * math.pi) for v in edges], "k--", linewidth=0.8)
    axes[0][0].set_ylim(0.0, 1.4)
    axes[0][0].set_title("σ(z) over draws, τ = 5; dashed: N(0, 1)", fontsize=9)
    spread = {name: variances_within(name, seeds=seeds, hidden_features=256) for name in INITIALIZATIONS}
    for name, values in spread.items():
        found[name] |= {"within: mean": values.mean(0).tolist(), "within: deviation": values.std(0).tolist()}
    for layer, axis in ((0, axes[0][1]), (2, axes[0][2])):
        for name, values in spread.items():
            deviation = f"{values[:, layer].mean():.2f} ± {values[:, layer].std():.2f}"
            axis.hist(values[:, layer], torch.linspace(0, 3, 61).numpy(), alpha=0.6, label=f"{name}: {deviation}")
        axis.set_title(f"variance within one network, layer {layer + 1}: {seeds} seeds", fontsize=9)
    for axis in axes[0]:
        axis.legend(fontsize=7)
    save_figure(figure, path)
    return found


def draw_spectrum(path: Path) -> dict[str, Any]:
    """Draws measured and predicted spectral lines of a STAF and a sine network, and how their number grows."""
    figure, axes = new_figure(1, 3, (13.0, 3.6))
    found: dict[str, Any] = {}
    for axis, count in ((axes[0][0], 1), (axes[0][1], 3)):
        mlp = _periodic(count)
        x = torch.arange(2048, dtype=torch.float64)[:, None] * (2.0 * math.pi / 2048)
        with torch.no_grad():
            lines = torch.fft.rfft(mlp(x)[:, 0]).abs() / 1024
        support = frequency_support(mlp, threshold=1e-12)
        axis.semilogy(lines[:600].clamp(min=1e-18), linewidth=0.6, label="Fourier transform")
        inside = support.frequencies[:, 0].round().long().unique()
        inside = inside[inside < 600]
        axis.semilogy(inside, lines[inside], ".", markersize=3, label="predicted")
        axis.set_title(f"two layers of 2, τ = {count}, {len(support.frequencies)} lines", fontsize=9)
        axis.set_xlabel("frequency")
        outside = torch.ones(len(lines), dtype=torch.bool)
        outside[support.frequencies[:, 0].round().long().clamp(max=len(lines) - 1)] = False
        found[f"τ = {count}"] = {"lines": len(support.frequencies), "largest elsewhere": lines[outside].max().item()}
    for name in ("sine", "staf"):
        generator = Generator().manual_seed(0)
        mlp = CoordinateMLP(1, 1, hidden_features=4, hidden_layers=2, activation=name, generator=generator).double()
        support = frequency_support(mlp, order=4)
        found[f"{name}, width 4"] = {"lines to order 4": len(support.frequencies), "beyond": support.remainder}
    for count in (1, 2, 5):
        numbers = [count_frequencies(count * 16, order) for order in range(1, 9)]
        axes[0][2].semilogy(range(1, 9), numbers, ".-", label=f"τ = {count}")
        found[f"growth τ = {count}"] = numbers
    axes[0][2].set_title("possible lines of 16 features up to an order", fontsize=9)
    axes[0][2].set_xlabel("order")
    for axis in axes[0]:
        axis.legend(fontsize=7)
    save_figure(figure, path)
    return found


def _periodic(count: int) -> CoordinateMLP:
    """Returns a network with period 2π and small weights, in float64."""
    generator = Generator().manual_seed(0)
    mlp: Any = CoordinateMLP(
        1, 1, hidden_features=2, hidden_layers=2, generator=generator,
        activation=lambda layer: STAF(2, num_frequencies=count, omega=1.0, generator=generator),
    ).double()  # fmt: skip
    with torch.no_grad():
        first, second = mlp.layers
        first.linear.weight.copy_(torch.tensor([[1.0], [1.0]]))
        first.activation.frequency.copy_(torch.tensor([31.0, 73.0, 114.0])[:count])
        first.activation.amplitude.fill_(count**-0.5)
        second.linear.weight *= 0.05
    return mlp


def draw_widths(path: Path) -> dict[str, Any]:
    """Draws the distance of finite-width kernels from the closed form, for weights and for sinusoids."""
    generator, widths = Generator().manual_seed(0), (32, 64, 128, 256, 512, 1024)
    x = 2.0 * torch.rand(16, 2, generator=generator, dtype=torch.float64) - 1.0
    figure, axes = new_figure(1, 1, (5.4, 3.8))
    found: dict[str, Any] = {"widths": widths}
    cases = (("linear", "layer", "weights and biases"), ("sinusoids", "neuron", "C, Ω, Φ of each neuron"),
             ("sinusoids", "layer", "C, Ω, Φ of a layer"))  # fmt: skip
    for part, sharing, label in cases:
        errors = [_error(part, sharing, width, x, generator) for width in widths]
        axes[0][0].loglog(widths, errors, ".-", label=label)
        found[label] = errors
    for layers, omega in ((1, 6.0), (2, 6.0), (1, 30.0), (3, 30.0)):
        found[f"first layer taken for normal, layers {layers}, ω {omega:g}"] = _law_error(layers, omega, x)
    axes[0][0].loglog(widths, [1.6 / math.sqrt(width) for width in widths], "k--", linewidth=0.8, label="1/√width")
    axes[0][0].set(xlabel="width", ylabel="error of the closed form, relative")
    axes[0][0].legend(fontsize=7)
    save_figure(figure, path)
    return found


def _error(part: str, sharing: str, width: int, x: Tensor, generator: Generator, draws: int = 20) -> float:
    squares = []
    for _ in range(draws):
        mlp = CoordinateMLP(
            2, 1, hidden_features=width, hidden_layers=2, sharing=sharing, first_omega=6.0, hidden_omega=6.0,
            generator=generator,
        ).double()  # fmt: skip
        expected = getattr(analytic_ntk(wide_network(mlp), x, parts=True), part)
        found = getattr(empirical_ntk(mlp, x, parts=True), part)
        squares.append((found - expected).square().mean() / expected.square().mean())
    return torch.stack(squares).mean().sqrt().item()


def _law_error(layers: int, omega: float, x: Tensor) -> float:
    """Returns the relative change of the kernel if the first weights were Gaussian, at a width of 1024."""
    mlp = CoordinateMLP(2, 1, hidden_features=1024, hidden_layers=layers, first_omega=omega, hidden_omega=omega)
    network = wide_network(mlp)
    right, wrong = (analytic_ntk(replace(network, first_law=law), x) for law in ("uniform", "gaussian"))
    return ((wrong - right).norm() / right.norm()).item()


def draw_kernels(output: Path) -> dict[str, Any]:
    """Draws the figures of `staf ntk` with its default options."""
    with tempfile.TemporaryDirectory() as folder:
        found = ntk.compare_kernels(ntk.CompareKernels(output=Path(folder)))
        for name in ("spectra", "eigenfunctions", "decay", "parts"):
            (output / f"theory_{name}.png").write_bytes((Path(folder) / f"{name}.png").read_bytes())
    return {one.name: ntk.shown(one) for one in found}


def shrink(path: Path) -> None:
    """Rewrites an image with a small palette."""
    from PIL import Image

    Image.open(path).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    run(tyro.cli(TheoryFigures))
