"""Figures of a fit: learning curve, error map, spectrograms and sinusoids over time (PNG files, by matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from staf_nerf.activations import STAF
from staf_nerf.fit import History
from staf_nerf.signals.audio import Sound, log_power
from staf_nerf.signals.image import Pixels, Raster

LONGEST = 1200
"""Longest side, in pixels, of an image in a figure."""
QUIET = -80.0
"""Lower end of a spectrogram's colour scale, in dB relative to the maximum."""


class SinusoidTrace:
    """Records the amplitudes, frequencies and phases of a model's STAF activations over time.

    For an activation with parameters of its own for each feature, the mean over the features is recorded.
    """

    NAMES = ("amplitude", "frequency", "phase")

    def __init__(self, model: nn.Module) -> None:
        found = [module for module in model.modules() if isinstance(module, STAF)]
        self.activations = list(dict.fromkeys(found))
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


def draw_curve(path: Path, history: History, peak: float, *, name: str = "squared error") -> None:
    """Draws the PSNR of the training points over steps and seconds; `peak` is the range of the field's values."""
    rows = [row for row in history.losses if row[name] > 0]
    values = -10.0 * np.log10(np.array([row[name] for row in rows]) / peak**2)
    figure, axes = new_figure(1, 2, (11.0, 3.5))
    for axis, key in zip(axes[0], ("step", "seconds"), strict=True):
        axis.plot([row[key] for row in rows], values, linewidth=0.8, label="training")
        axis.set_xlabel(key)
        axis.set_ylabel("PSNR, dB")
        axis.grid(alpha=0.3)
    if history.held_out:
        errors = np.array([row["error"] for row in history.held_out])
        axes[0][0].plot([row["step"] for row in history.held_out], -10.0 * np.log10(errors / peak**2), label="held out")
        axes[0][0].legend()
    save_figure(figure, path)


def draw_error_map(path: Path, found: Pixels, truth: Pixels, raster: Raster) -> None:
    """Draws the absolute error of each pixel: the mean over channels, as a fraction of the image's range."""
    step = _step(raster)
    difference = found[::step, ::step].astype(np.float32) - truth[::step, ::step].astype(np.float32)
    error = np.abs(difference).mean(2) / (raster.high - raster.low)
    figure, axes = new_figure(1, 1, (9.0, 1.0 + 8.0 * raster.height / raster.width))
    shown = axes[0][0].imshow(error, cmap="magma", vmin=0.0, vmax=max(float(np.quantile(error, 0.99)), 1e-6))
    axes[0][0].set_axis_off()
    figure.colorbar(shown, ax=axes[0][0], fraction=0.03, label="absolute error / range")
    save_figure(figure, path)


def draw_picture(path: Path, pixels: Pixels, raster: Raster) -> None:
    """Writes an image for display: 8 bits, at most 1200 pixels a side, floats scaled to their 99th percentile."""
    from PIL import Image

    step = _step(raster, pixels)
    shown = pixels[::step, ::step].astype(np.float32)
    if raster.dtype == "float32":
        shown = (shown / max(float(np.quantile(shown, 0.99)), 1e-12)).clip(0.0, 1.0) ** (1 / 2.2)
    else:
        shown = ((shown - raster.low) / (raster.high - raster.low)).clip(0.0, 1.0)
    eight = (255.0 * shown).round().astype(np.uint8)
    Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight).save(path)


def draw_spectrograms(path: Path, found: Sound, truth: Sound, rate: int) -> None:
    """Draws spectrograms of the first channel: the original, the fit and their difference, in dB."""
    first, second = (log_power(sound[:, :1])[0] for sound in (truth, found))
    top = float(first.max())
    extent = (0.0, len(truth) / rate, 0.0, rate / 2000.0)
    figure, axes = new_figure(1, 3, (13.0, 3.8))
    pictures = (("original", first), ("fit", second), ("fit - original", second - first))
    for axis, (title, values) in zip(axes[0], pictures, strict=True):
        limits: dict[str, Any] = {"vmin": top + QUIET, "vmax": top, "cmap": "magma"}
        if title == "fit - original":
            limits = {"vmin": -30.0, "vmax": 30.0, "cmap": "coolwarm"}
        shown = axis.imshow(values, origin="lower", aspect="auto", extent=extent, **limits)
        axis.set_title(f"{title}, dB", fontsize=9)
        axis.set_xlabel("seconds")
        figure.colorbar(shown, ax=axis, fraction=0.05)
    axes[0][0].set_ylabel("kHz")
    save_figure(figure, path)


def draw_waves(path: Path, found: Sound, truth: Sound, rate: int) -> None:
    """Draws the waveforms of the first channel and their difference."""
    step = max(len(truth) // 20000, 1)
    time = np.arange(0, len(truth), step) / rate
    figure, axes = new_figure(2, 1, (11.0, 4.0))
    axes[0][0].plot(time, truth[::step, 0], linewidth=0.4, label="original")
    axes[0][0].plot(time, found[::step, 0], linewidth=0.4, alpha=0.7, label="fit")
    axes[0][0].legend(loc="upper right", fontsize=8)
    axes[1][0].plot(time, (found - truth)[::step, 0], linewidth=0.4, color="tab:red")
    axes[1][0].set_ylabel("error")
    axes[1][0].set_xlabel("seconds")
    save_figure(figure, path)


def _step(raster: Raster, pixels: Pixels | None = None) -> int:
    longest = max(raster.height, raster.width) if pixels is None else max(pixels.shape[:2])
    return -(-longest // LONGEST)


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Returns a figure of that size in inches and its axes (rows, columns), drawn without a display.

    Its colour and line style cycle distinguishes 30 curves.
    """
    from matplotlib import color_sequences
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_prop_cycle(cycler(linestyle=("-", "--", ":")) * cycler(color=color_sequences["tab10"]))
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure in the format given by the file's suffix."""
    figure.savefig(path, dpi=110)
