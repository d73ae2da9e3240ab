"""What the poses of a capture's cameras say about the scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from nerfstudio.cameras.cameras import Cameras


@dataclass(frozen=True)
class Attention:
    """Where cameras look."""

    center: tuple[float, float, float]
    """The point nearest to all optical axes."""
    nearest: float
    """Distance of the nearest camera from it."""
    farthest: float
    """Distance of the farthest one."""
    half_view: float
    """Tangent of the narrowest angle from an optical axis to the edge of a picture."""
    inwards: bool
    """Whether most cameras have it before them: they stand around it, and not within a room."""


def attention(cameras: Cameras) -> Attention:
    """Where cameras look: the point is that of least squares."""
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
    return Attention((x, y, z), float(distances.min()), float(distances.max()), float(half_view), inwards)
