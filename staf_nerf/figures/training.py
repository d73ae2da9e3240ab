"""Figures of a training: the learning curve, and the sinusoids over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from staf_nerf.activations import STAF
from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.fitting.loop import History


class SinusoidTrace:
    """Records the amplitudes, frequencies and phases of a model's STAF activations over time.

    For an activation with parameters of its own for each feature, the mean over the features is recorded.
    """

    NAMES = ("amplitude", "frequency", "phase")

    def __init__(self, model: nn.Module) -> None:
        self.activations = [module for module in model.modules() if isinstance(module, STAF)]
        self.steps: list[int] = []
        self.values: dict[str, list[list[np.ndarray]]] = {name: [] for name in self.NAMES}

    def record(self, step: int) -> None:
        """Records the present values, and drops earlier records of this step and later ones."""
        if not self.activations:
            return
        kept = sum(s < step for s in self.steps)
        self.steps = [*self.steps[:kept], step]
        for name in self.NAMES:
            now = [getattr(activation, name).detach().cpu() for activation in self.activations]
            values = [(v.mean(1) if v.ndim == 2 else v).numpy().copy() for v in now]
            self.values[name] = [*self.values[name][:kept], values]

    def load(self, path: Path) -> None:
        """Reads a file written by `save`."""
        with np.load(path) as saved:
            self.steps = saved["step"].tolist()
            self.values = {name: [list(row) for row in saved[name]] for name in self.NAMES}

    def save(self, path: Path) -> None:
        """Writes an NPZ file with "step" (n,) and "amplitude", "frequency", "phase" (n, layers, τ)."""
        np.savez_compressed(path, step=np.array(self.steps), **{k: np.array(v) for k, v in self.values.items()})

    def draw(self, path: Path) -> None:
        """Draws the records, one row per layer and one column per kind of parameter."""
        figure, axes = new_figure(len(self.activations), 3, (11.0, 2.2 * len(self.activations)))
        for column, name in enumerate(self.NAMES):
            values = np.array(self.values[name])
            for layer in range(len(self.activations)):
                axis = axes[layer][column]
                axis.plot(self.steps, values[:, layer], linewidth=1.0)
                axis.set_title(f"layer {layer + 1}: {name}", fontsize=9)
                axis.tick_params(labelsize=8)
        for axis in axes[-1]:
            axis.set_xlabel("step", fontsize=8)
        save_figure(figure, path)


def draw_curve(path: Path, history: History, peak: float | None) -> None:
    """Draws the loss over steps and seconds, as the PSNR of the batches if the field's values have a range `peak`."""
    figure, axes = new_figure(1, 2, (11.0, 3.5))
    for axis, key in zip(axes[0], ("step", "seconds"), strict=True):
        for name in history.latest:
            rows = [row for row in history.losses if row[name] > 0]
            values = np.array([row[name] for row in rows])
            label = "training" if peak else name
            axis.plot([row[key] for row in rows], _psnr(values, peak) if peak else values, linewidth=0.8, label=label)
        axis.set_xlabel(key)
        axis.set_ylabel("PSNR, dB" if peak else "loss")
        axis.set_yscale("linear" if peak else "log")
        axis.grid(alpha=0.3)
    if history.held_out and peak:
        errors = np.array([row["error"] for row in history.held_out])
        axes[0][0].plot([row["step"] for row in history.held_out], _psnr(errors, peak), label="held out")
    if len(axes[0][0].lines) > 1:
        axes[0][0].legend()
    save_figure(figure, path)


def _psnr(squared_error: np.ndarray, peak: float) -> np.ndarray:
    return -10.0 * np.log10(squared_error / peak**2)
