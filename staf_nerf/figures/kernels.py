"""Figures of tangent kernels: spectra, eigenfunctions, decay of the error, contributions of parameters (PNG files)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.theory.descent import Compared

LEAST = 1e-14
"""Smallest eigenvalue shown, relative to the largest. Smaller ones are rounding errors."""


def draw_spectra(path: Path, networks: Sequence[Compared]) -> None:
    """Draws eigenvalues relative to the largest, and their cumulative sum, for all networks."""
    figure, axes = new_figure(1, 2, (11.0, 4.2))
    for network in networks:
        values = network.spectrum.values
        number = torch.arange(1, len(values) + 1)
        kept = values > LEAST * values[0]
        (line,) = axes[0][0].loglog(number[kept], (values / values[0])[kept], label=network.name)
        fraction = values.cumsum(0) / values.sum()
        label = f"{network.name}: rank {network.effective_rank:.0f}"
        axes[0][1].semilogx(number, fraction, color=line.get_color(), label=label)
    axes[0][0].set_ylabel("eigenvalue / largest")
    axes[0][1].set_ylabel("cumulative sum / trace")
    for axis in axes[0]:
        axis.set_xlabel("number")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_figure(figure, path)


def draw_eigenfunctions(path: Path, networks: Sequence[Compared], shape: tuple[int, ...], columns: int = 8) -> None:
    """Draws eigenfunctions 1, 2, 4, 8, … as images of that shape, one row per network."""
    count = shape[0] * shape[1]
    numbers = [2**i for i in range(columns) if 2**i <= count]
    figure, axes = new_figure(len(networks), len(numbers), (1.35 * len(numbers), 1.5 * len(networks) + 0.2))
    for row, network in zip(axes, networks, strict=True):
        for axis, number in zip(row, numbers, strict=True):
            picture = network.spectrum.vectors[:, number - 1].reshape(shape)
            most = float(picture.abs().max())
            axis.imshow(picture, cmap="RdBu", vmin=-most, vmax=most)
            axis.set(xticks=[], yticks=[])
            share = float(network.spectrum.values[number - 1] / network.spectrum.values[0])
            axis.set_title(f"{number}: {share:.1e}", fontsize=7)
        row[0].set_ylabel(network.name, fontsize=8)
    save_figure(figure, path)


def draw_decay(path: Path, networks: Sequence[Compared], groups: Sequence[slice]) -> None:
    """Draws the squared error in groups of eigenvectors over steps, one plot per network; dashed: predicted."""
    columns = min(len(networks), 4)
    rows = -(-len(networks) // columns)
    figure, axes = new_figure(rows, columns, (3.6 * columns, 3.4 * rows))
    flat = axes.reshape(-1)
    for axis, network in zip(flat, networks, strict=False):
        for group in groups:
            start = float(network.measured[0, group].sum())
            label = f"{group.start + 1} to {group.stop}"
            (line,) = axis.semilogy((network.measured[:, group].sum(1) / start).clamp(min=1e-6), label=label)
            axis.semilogy((network.predicted[:, group].sum(1) / start).clamp(min=1e-6), "--", color=line.get_color())
        axis.set_title(network.name, fontsize=9)
        axis.set_xlabel("steps of gradient descent", fontsize=8)
        axis.grid(alpha=0.3)
    flat[0].set_ylabel("squared error / initial")
    flat[0].legend(title="eigenvectors", fontsize=7, title_fontsize=7)
    for axis in flat[len(networks) :]:
        axis.set_axis_off()
    save_figure(figure, path)


def draw_parts(path: Path, networks: Sequence[Compared]) -> None:
    """Draws the contribution of C, Ω and Φ to each eigenvalue, for networks that have these parameters."""
    figure, axes = new_figure(1, 2, (11.0, 4.2))
    for network in networks:
        if not bool((network.along > 0.0).any()):
            continue
        values, number = network.spectrum.values, torch.arange(1, len(network.along) + 1)
        kept = values > LEAST * values[0]
        (line,) = axes[0][0].loglog(number[kept], values[kept], label=f"{network.name}: whole")
        axes[0][0].loglog(number[kept], network.along[kept], ":", color=line.get_color(), label="from C, Ω, Φ")
        part = (network.along / values)[kept]
        axes[0][1].loglog(number[kept], part, ".", markersize=2, color=line.get_color(), label=network.name)
    axes[0][0].set_ylabel("eigenvalue")
    axes[0][1].set_ylabel("fraction from C, Ω, Φ")
    for axis in axes[0]:
        axis.set_xlabel("number")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    save_figure(figure, path)
