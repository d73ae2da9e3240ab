"""Photos of the corner of a room with patterned walls, traced ray by ray, with exact poses.

The walls are the planes x = 0, y = 0 and the floor z = 0. z points up.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (400, 300)
FOCAL = 380.0
TEXELS = 320
"""Texels of the pattern for a unit of length."""


@functools.cache
def pattern(number: int) -> np.ndarray:
    """A pattern of a wall, 3 units by 3: noise of several grain sizes, which has details at all distances."""
    generator = np.random.default_rng(number)
    side = 3 * TEXELS
    layers = [cv2.resize(generator.random((side // grain, side // grain, 3)), (side, side)) for grain in (4, 12, 40)]
    total = sum(layer - 0.5 for layer in layers)
    return (255 * (0.5 + 0.5 * total)).clip(0, 255).astype(np.float32)


def pose(position, target) -> np.ndarray:
    """A camera-to-world pose (4, 4) with OpenGL axes: level, at a position, looking at a target."""
    back = np.subtract(position, target) / np.linalg.norm(np.subtract(position, target))
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    found = np.eye(4)
    found[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return found


def walk(count: int) -> list[np.ndarray]:
    """Poses along an arc before the corner, up and down."""
    angles = np.linspace(0.25, 1.3, count)
    places = [(2.1 * math.cos(a), 2.1 * math.sin(a), 1.0 + 0.35 * math.sin(5 * a)) for a in angles]
    return [pose(place, (0.35, 0.35, 0.5)) for place in places]


def photo(camera: np.ndarray, *, size=SIZE, focal=FOCAL) -> np.ndarray:
    """The picture (H, W, 3) uint8 of a camera with a pose."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    rays = np.stack([x / focal, -y / focal, -np.ones_like(x)], -1) @ camera[:3, :3].T
    origin = camera[:3, 3]
    with np.errstate(divide="ignore"):
        distances = -origin / rays
    distances[(distances <= 0) | ~np.isfinite(distances)] = np.inf
    nearest = distances.argmin(-1)
    points = origin + rays * distances.min(-1, keepdims=True)
    found = np.zeros((height, width, 3), np.float32)
    for axis in range(3):
        u, v = (TEXELS * points[..., other] - 0.5 for other in range(3) if other != axis)
        seen = cv2.remap(pattern(axis), u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
        found[nearest == axis] = seen[nearest == axis]
    return found.round().astype(np.uint8)


def write_photos(folder: Path, poses, **options) -> list[Path]:
    """Writes a photo of each pose as JPEG, by EXIF-less names in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo_{number:02d}.jpg" for number in range(len(poses))]
    for path, camera in zip(paths, poses, strict=True):
        Image.fromarray(photo(camera)).save(path, quality=92, **options)
    return paths
