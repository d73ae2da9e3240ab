"""Where the cameras of a capture look."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from nerfstudio.cameras.cameras import Cameras


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


def camera_focus(cameras: Cameras) -> CameraFocus:
    """Returns where the cameras look: the point nearest to all optical axes (least squares)."""
    poses = cameras.camera_to_worlds.detach().cpu().double()
    origins, axes = poses[:, :, 3], -poses[:, :, 2]
    # Least squares over the projectors orthogonal to the axes.
    projectors = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    center = torch.linalg.lstsq(projectors.sum(0), (projectors @ origins[:, :, None]).sum(0)).solution[:, 0]
    offsets = center - origins
    x, y, z = center.tolist()
    distances = offsets.norm(dim=-1)
    half_view = 0.5 * torch.minimum(cameras.width / cameras.fx, cameras.height / cameras.fy).min()
    inwards = bool(((offsets * axes).sum(-1) > 0).double().mean() > 0.5)
    return CameraFocus((x, y, z), float(distances.min()), float(distances.max()), float(half_view), inwards)
