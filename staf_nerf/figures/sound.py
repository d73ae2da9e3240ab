"""Figures of sounds: waveforms and spectrograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.metrics.sound import log_power
from staf_nerf.signals.audio import Sound

QUIET = -80.0
"""Lower end of a spectrogram's colour scale, in dB relative to the maximum."""


def draw_spectrograms(path: Path, rendered: Sound, truth: Sound, rate: int) -> None:
    """Draws spectrograms of the first channel: the original, the fit and their difference, in dB."""
    first, second = (log_power(sound[:, :1])[0] for sound in (truth, rendered))
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


def draw_waves(path: Path, rendered: Sound, truth: Sound, rate: int) -> None:
    """Draws the waveforms of the first channel and their difference."""
    step = max(len(truth) // 20000, 1)
    time = np.arange(0, len(truth), step) / rate
    figure, axes = new_figure(2, 1, (11.0, 4.0))
    axes[0][0].plot(time, truth[::step, 0], linewidth=0.4, label="original")
    axes[0][0].plot(time, rendered[::step, 0], linewidth=0.4, alpha=0.7, label="fit")
    axes[0][0].legend(loc="upper right", fontsize=8)
    axes[1][0].plot(time, (rendered - truth)[::step, 0], linewidth=0.4, color="tab:red")
    axes[1][0].set_ylabel("error")
    axes[1][0].set_xlabel("seconds")
    save_figure(figure, path)
