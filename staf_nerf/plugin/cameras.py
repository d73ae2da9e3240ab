"""nerfstudio's cameras: where they look, the same without distortion, and new ones for a film.

Poses are camera-to-world with OpenGL axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.region import CameraFocus, RegionOfInterest, camera_focus


def refuse_one_place(metadata: Mapping[str, Any]) -> None:
    """Raises CaptureError if a capture, by the metadata of its data parser, has no depth."""
    region = metadata.get("region")
    if region is not None and region.cameras == "one place":
        raise CaptureError(
            "all cameras of the capture are in one place, and depth cannot be found from there: there is no surface. "
            "Take photos from several places"
        )


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


def turntable(cameras: Cameras, count: int, region: RegionOfInterest | None = None) -> Cameras:
    """Returns cameras for a film that shows the scene from where the given cameras saw it.

    They go around on a circle, at the mean height and distance of the given ones. Where those stand on one side only,
    the new ones swing to and fro on that side. Where those stand inside, the new ones turn in the middle of them.

    Args:
        cameras: The cameras of the photos. The z axis points up.
        count: Number of new cameras.
        region: The region of interest. None: the new cameras go around the point that the given ones look at.
    """
    positions = cameras.camera_to_worlds[:, :, 3].cpu().double()
    turns = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    if region is not None and region.cameras in ("inside", "one place"):
        back = torch.stack([turns.cos(), turns.sin(), torch.zeros_like(turns)], -1)
        return _looking(positions.mean(0).expand(count, 3), back, cameras[0])
    center = torch.tensor(focus_of(cameras).center if region is None else region.center, dtype=torch.float64)
    offsets = positions - center
    radius, height = offsets[:, :2].norm(dim=-1).mean(), offsets[:, 2].mean()
    angles = turns if region is None or region.cameras == "around" else _swing(offsets, turns)
    directions = torch.stack([radius * angles.cos(), radius * angles.sin(), height.expand(count)], -1)
    return _looking(center + directions, directions, cameras[0])


def _swing(offsets: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Returns angles that go to and fro between those of the given cameras, one period as turns go around."""
    angles = torch.atan2(offsets[:, 1], offsets[:, 0])
    middle = torch.atan2(angles.sin().mean(), angles.cos().mean())
    aside = torch.remainder(angles - middle + math.pi, 2 * math.pi) - math.pi
    low, high = aside.quantile(0.05), aside.quantile(0.95)  # without the outermost cameras
    return middle + 0.5 * (low + high) + 0.5 * (high - low) * turns.sin()


def _looking(positions: torch.Tensor, backwards: torch.Tensor, first: Cameras) -> Cameras:
    """Returns upright cameras at positions (N, 3) that look away from `backwards` (N, 3), with one camera's lens."""
    back = torch.nn.functional.normalize(backwards, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([[0.0, 0.0, 1.0]]).double(), back), dim=-1)
    up = torch.linalg.cross(back, right)
    return Cameras(
        camera_to_worlds=torch.stack([right, up, back, positions], -1).float(),
        fx=float(first.fx),
        fy=float(first.fy),
        cx=float(first.cx),
        cy=float(first.cy),
        width=int(first.width),
        height=int(first.height),
    )
