"""The raster of an image: its size, range and type, and fields rendered on it at any scale.

Conventions: an image is (height, width, channels), rows downwards. Channels are grey, grey and alpha, RGB or RGBA, in
the values of the file. Coordinates are (x, y) in [-1, 1] with x to the right and y down. The edges of the longer side
lie at -1 and 1, pixels are square, and a pixel is evaluated at its centre. Field values are the image's values, mapped
to [-1, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staf_nerf.signals.sampling import in_chunks

Pixels = np.ndarray[Any, np.dtype[Any]]

DEPTHS = {"uint8": 255.0, "uint16": 65535.0}
"""Largest value of integer images. The range of a float image is that of its values."""
STRIP = 2**16
"""Approximate number of pixels that are rendered at a time."""


@dataclass(frozen=True)
class Raster:
    """The size, range and type of an image: everything that is needed to render a field as such an image."""

    height: int
    width: int
    channels: int
    low: float
    high: float
    dtype: str
    value_min: float = -1.0
    """Field value of the lowest image value. The highest is 1."""
    align_corners: bool = False
    """Whether the outermost pixel centres lie at -1 and 1 on both axes, as in published code."""

    @classmethod
    def of(cls, pixels: Pixels) -> Raster:
        """Returns the raster of an image, (height, width, channels) uint8, uint16 or float32.

        Raises:
            ValueError: If the image has no pixels, values that are not finite, or another type.
        """
        if pixels.ndim != 3 or not pixels.size:
            raise ValueError(f"an image must have shape (height, width, channels), got {pixels.shape}")
        if pixels.shape[2] > 4:
            raise ValueError(f"an image has 1 to 4 channels, got {pixels.shape[2]}")
        height, width, channels = pixels.shape
        name = pixels.dtype.name
        if name in DEPTHS:
            return cls(height, width, channels, 0.0, DEPTHS[name], name)
        if name != "float32":
            raise ValueError(f"an image must be uint8, uint16 or float32, got {name}")
        if bad := int((~np.isfinite(pixels)).sum()):
            raise ValueError(f"{bad} of the image's {pixels.size} values are NaN or infinite")
        low, high = float(pixels.min()), float(pixels.max())
        return cls(height, width, channels, low, high if high > low else low + 1.0, name)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def scaled(self, scale: float) -> Raster:
        """Returns the raster with `scale` times as many rows and columns, at least one of each."""
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        height, width = (max(round(scale * n), 1) for n in (self.height, self.width))
        return dataclasses.replace(self, height=height, width=width)

    def coordinates(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Returns coordinates (…, 2) for positions in pixels from the upper left corner. The first pixel is (½, ½)."""
        across, down = 2.0 * columns - self.width, 2.0 * rows - self.height
        if self.align_corners:
            return torch.stack([across / max(self.width - 1, 1), down / max(self.height - 1, 1)], -1)
        longest = max(self.height, self.width)
        return torch.stack([across / longest, down / longest], -1)

    def normalize(self, values: Tensor) -> Tensor:
        """Maps image values to [value_min, 1]."""
        return (values.float() - self.low) * ((1.0 - self.value_min) / (self.high - self.low)) + self.value_min

    def denormalize(self, values: Tensor) -> Tensor:
        """Maps [value_min, 1] to image values, clipped to the range of an integer image."""
        return self.clamped((values - self.value_min) * ((self.high - self.low) / (1.0 - self.value_min)) + self.low)

    def squared_error(self, predicted: Tensor, values: Tensor) -> Tensor:
        """Returns the squared error of field values, scaled to a range of [-1, 1]."""
        return ((predicted - values) * (2.0 / (1.0 - self.value_min))).square()

    def clamped(self, values: Tensor) -> Tensor:
        """Clips values to the range of an integer image."""
        return values.clamp(self.low, self.high) if self.dtype in DEPTHS else values


@torch.no_grad()
def render_strips(field: nn.Module, raster: Raster, *, device: torch.device | str) -> Iterator[Tensor]:
    """Yields strips (rows, width, channels) of the image from the top, in image values, float32, not rounded."""
    step = max(STRIP // raster.width, 1)
    for start in range(0, raster.height, step):
        rows = torch.arange(start, min(start + step, raster.height)) + 0.5
        columns = torch.arange(raster.width) + 0.5
        points = raster.coordinates(*torch.meshgrid(rows, columns, indexing="ij")).to(device)
        yield raster.denormalize(in_chunks(field, points.reshape(-1, 2))).reshape(len(rows), raster.width, -1).cpu()


def render(field: nn.Module, raster: Raster, *, scale: float = 1.0, device: torch.device | str = "cpu") -> Pixels:
    """Renders a field as an image at `scale` times its size, in the type of the original."""
    raster = raster.scaled(scale)
    pixels = np.empty((raster.height, raster.width, raster.channels), raster.dtype)
    fill(pixels, render_strips(field, raster, device=device))
    return pixels


def fill(pixels: Pixels, strips: Iterable[Tensor]) -> None:
    """Writes strips of an image into an array from its top, rounded if it holds integers."""
    start = 0
    for strip in strips:
        values = strip.round() if pixels.dtype.name in DEPTHS else strip
        pixels[start : start + len(strip)] = values.numpy().astype(pixels.dtype)
        start += len(strip)
