"""nerfstudio's cameras: where they look, the same without distortion, and new ones on a circle.

Poses are camera-to-world with OpenGL axes.
"""

from __future__ import annotations

import math

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from staf_nerf.captures.region import CameraFocus, camera_focus


def focus_of(cameras: Cameras) -> CameraFocus:
    """Returns where cameras look."""
    sides = torch.cat([cameras.width / cameras.fx, cameras.height / cameras.fy], -1)
    return camera_focus(cameras.camera_to_worlds.detach().cpu().double().numpy(), sides.cpu().numpy())


def pinhole(camera: Cameras, most_pixels: int) -> Cameras:
    """Returns the camera without lens distortion, reduced to at most that many pixels per side."""
    factor = min(most_pixels / max(int(camera.height), int(camera.width)), 1.0)
    return Cameras(
        camera_to_worlds=camera.camera_to_worlds.cpu(),
        fx=camera.fx.cpu() * factor,
        fy=camera.fy.cpu() * factor,
        cx=camera.cx.cpu() * factor,
        cy=camera.cy.cpu() * factor,
        width=max(round(int(camera.width) * factor), 1),
        height=max(round(int(camera.height) * factor), 1),
        camera_type=CameraType.PERSPECTIVE,
    )


def turntable(cameras: Cameras, count: int) -> Cameras:
    """Returns cameras on a circle around the point that the given ones look at, at their mean height and distance.

    The z axis points up.
    """
    center = torch.tensor(focus_of(cameras).center, dtype=torch.float64)
    offsets = cameras.camera_to_worlds[:, :, 3].cpu().double() - center
    radius, height = offsets[:, :2].norm(dim=-1).mean(), offsets[:, 2].mean()
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    directions = torch.stack([radius * angles.cos(), radius * angles.sin(), height.expand(count)], -1)
    back = torch.nn.functional.normalize(directions, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([[0.0, 0.0, 1.0]]).double(), back), dim=-1)
    up = torch.linalg.cross(back, right)
    first = cameras[0]
    return Cameras(
        camera_to_worlds=torch.stack([right, up, back, center + directions], -1).float(),
        fx=float(first.fx),
        fy=float(first.fy),
        cx=float(first.cx),
        cy=float(first.cy),
        width=int(first.width),
        height=int(first.height),
    )
