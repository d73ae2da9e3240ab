"""Where the cameras of a capture look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CameraFocus:
    """The point that the cameras look at, and their distances from it."""

    center: tuple[float, float, float]
    """The point that is nearest to all optical axes, in the least squares sense."""
    nearest: float
    """Distance from that point to the nearest camera."""
    farthest: float
    """Distance from that point to the farthest camera."""
    half_view: float
    """Tangent of the smallest half field of view."""
    inwards: bool
    """Whether most cameras look towards the point, as around an object. Otherwise they stand inside a room."""


def camera_focus(poses: np.ndarray, sides_per_focal_length: np.ndarray) -> CameraFocus:
    """Returns where the cameras look: the point nearest to all optical axes (least squares).

    Args:
        poses: Camera-to-world poses (N, 3 or 4, 4) with OpenGL axes.
        sides_per_focal_length: Width and height of each image, divided by its focal lengths, (N, 2).
    """
    origins, axes = poses[:, :3, 3].astype(np.float64), -poses[:, :3, 2].astype(np.float64)
    # Least squares over the projectors orthogonal to the axes.
    projectors = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    center = np.linalg.lstsq(projectors.sum(0), (projectors @ origins[:, :, None]).sum(0)[:, 0], rcond=None)[0]
    offsets = center - origins
    x, y, z = center.tolist()
    distances = np.linalg.norm(offsets, axis=-1)
    inwards = bool(np.mean((offsets * axes).sum(-1) > 0) > 0.5)
    half_view = 0.5 * float(sides_per_focal_length.min())
    return CameraFocus((x, y, z), float(distances.min()), float(distances.max()), half_view, inwards)
