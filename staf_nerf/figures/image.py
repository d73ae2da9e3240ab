"""Figures of images: the picture itself, and its error."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.signals.raster import Pixels, Raster

LONGEST = 1200
"""Longest side, in pixels, of an image in a figure."""


def draw_error_map(path: Path, rendered: Pixels, truth: Pixels, raster: Raster) -> None:
    """Draws the absolute error of each pixel: the mean over channels, as a fraction of the image's range."""
    step = _step(raster)
    difference = rendered[::step, ::step].astype(np.float32) - truth[::step, ::step].astype(np.float32)
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


def _step(raster: Raster, pixels: Pixels | None = None) -> int:
    longest = max(raster.height, raster.width) if pixels is None else max(pixels.shape[:2])
    return -(-longest // LONGEST)
