"""Quality of a capture's photos: which are blurred, which are exposed unlike the others, which show the same.

All is measured on small grey copies in linear light, so that hundreds of photos take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from staf_nerf.captures.capture import Photo
from staf_nerf.captures.images import as_rgb, opened

LONGEST_SIDE = 640
"""Longest side, in pixels, of the copies on which sharpness is measured."""
THUMBNAIL = 24
"""Side, in pixels, of the copies that are compared to find duplicates."""
BLURRED = 1 / 3
"""A photo is blurred if its sharpness is below this part of its neighbours' median."""
STOPS = 1.0
"""A photo is exposed unlike the others from this number of stops (factors of two) on, ..."""
DEVIATIONS = 4.0
"""... if that is also this number of median absolute deviations."""
NEIGHBOURS = 8
"""Number of photos, nearest by position and direction of view, that a photo's sharpness is compared with."""
SAME_PIXELS, SAME_ANGLE, SAME_PLACE = 0.01, 1.0, 0.01
"""Two photos show the same if their thumbnails differ by less than this (root mean square, white is 1), their
directions of view by less than this many degrees, and their places by less than this part of the cameras' extent."""


@dataclass(frozen=True)
class Quality:
    """What is odd about a capture's photos. Each entry names files."""

    blurred: tuple[Path, ...]
    """Photos that are much less sharp than those of about the same view."""
    dark: tuple[Path, ...]
    bright: tuple[Path, ...]
    """Photos that are darker or brighter than the others by a stop or more."""
    same: tuple[tuple[Path, Path], ...]
    """Pairs of photos that show the same from the same place."""


@dataclass(frozen=True, eq=False)
class _Measured:
    sharpness: float
    brightness: float
    thumbnail: np.ndarray


def measure_quality(photos: Sequence[Photo]) -> Quality:
    """Measures all photos of a capture.

    Raises:
        CaptureError: If an image cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(_measure, [photo.image for photo in photos]))
    poses = np.stack([photo.pose for photo in photos])
    blurred = _blurred(np.array([m.sharpness for m in measured]), poses)
    stops = _stops(np.array([m.brightness for m in measured]))
    return Quality(
        tuple(photos[i].image for i in blurred),
        tuple(photos[i].image for i in np.flatnonzero(stops < 0)),
        tuple(photos[i].image for i in np.flatnonzero(stops > 0)),
        tuple((photos[i].image, photos[j].image) for i, j in _same(np.stack([m.thumbnail for m in measured]), poses)),
    )


def _measure(path: Path) -> _Measured:
    with opened(path) as image:
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # JPEG: decoded at a smaller size, which is quicker
        grey = as_rgb(image, path).convert("L")
    grey.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64) / 255
    return _Measured(sharpness(np.asarray(grey)), float((small**2.2).mean()), small)


def sharpness(grey: np.ndarray) -> float:
    """Returns the mean squared Laplacian of an image (H, W), as a part of the image's variance."""
    values = grey.astype(np.float64)
    edges = laplacian(values)
    return float((edges**2).mean() / max(values.var(), 1.0)) if edges.size else 0.0


def laplacian(x: np.ndarray) -> np.ndarray:
    """Returns the Laplacian of an image (H, W) of floating point numbers, without its border, (H - 2, W - 2)."""
    return x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]


def _blurred(sharp: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Returns the indices of photos that are less sharp than those of about the same view."""
    place = poses[:, :3, 3] / max(_extent(poses), 1e-12)
    view = np.concatenate([place, poses[:, :3, 2]], 1)
    apart = np.linalg.norm(view[:, None] - view[None], axis=-1)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, 1 : NEIGHBOURS + 1]
    return np.flatnonzero(sharp < BLURRED * np.median(sharp[nearest], axis=1))


def _stops(brightness: np.ndarray) -> np.ndarray:
    """Returns -1 for photos that are too dark, 1 for those that are too bright, 0 for others."""
    stops = np.log2(np.maximum(brightness, 1e-4))
    off = stops - np.median(stops)
    limit = max(STOPS, DEVIATIONS * float(np.median(np.abs(off))))
    return np.where(np.abs(off) >= limit, np.sign(off), 0)


def _same(thumbnails: np.ndarray, poses: np.ndarray) -> list[tuple[int, int]]:
    """Returns pairs of photos with the same pixels and the same pose, nearly."""
    place = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1)
    cosine = np.einsum("ik,jk->ij", poses[:, :3, 2], poses[:, :3, 2])
    near = (place < SAME_PLACE * _extent(poses)) & (cosine > np.cos(np.radians(SAME_ANGLE)))
    pairs = np.argwhere(np.triu(near, 1))
    difference = (np.sqrt(((thumbnails[i] - thumbnails[j]) ** 2).mean()) for i, j in pairs)
    return [(int(i), int(j)) for (i, j), rms in zip(pairs, difference, strict=True) if rms < SAME_PIXELS]


def _extent(poses: np.ndarray) -> float:
    """Returns the largest side of the box around the cameras."""
    return float(np.ptp(poses[:, :3, 3], axis=0).max())
