"""Depth maps and colours that a trained model renders for its cameras, for surface reconstruction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras

from staf_nerf.mesh.fuse import View, pixel_size
from staf_nerf.mesh.triangles import Floats
from staf_nerf.plugin.cameras import pinhole
from staf_nerf.plugin.model import StafModel

SEEN = 0.5
"""Minimum accumulated opacity at which a ray counts as having met a surface."""


COARSE = 16
"""Longest side, in pixels, of the views that tell how fine larger ones are."""


def view_pixel(model: StafModel, cameras: Cameras, bounds: Floats, *, most_pixels: int) -> float:
    """Returns the size of the smallest pixel of `views` at the surfaces in a box (2, 3); see `pixel_size`."""
    sizes = torch.maximum(cameras.height, cameras.width).flatten().tolist()
    pixels = [pixel_size(view, bounds) for view in views(model, cameras, most_pixels=COARSE)]
    return min(p * min(COARSE, size) / min(most_pixels, size) for p, size in zip(pixels, sizes, strict=True))


@torch.no_grad()
def views(model: StafModel, cameras: Cameras, *, most_pixels: int) -> Iterator[View]:
    """Renders the view of each camera, as a pinhole camera with at most that many pixels per side."""
    for i in range(len(cameras)):
        camera = pinhole(cameras[i : i + 1], most_pixels)
        outputs = model.get_outputs_for_camera(camera.to(model.device))
        pose = np.eye(4)
        pose[:3] = camera.camera_to_worlds[0].cpu().double().numpy()
        pose[:3, 1:3] *= -1.0  # right, up, backward -> right, down, forward
        directions = camera.generate_rays(camera_indices=0, keep_shape=True).directions
        along_axis = (directions.double().cpu() @ torch.from_numpy(pose[:3, 2]))[..., None]
        depth = (outputs["depth"].cpu() * along_axis)[..., 0]
        depth = torch.where(outputs["accumulation"][..., 0].cpu() > SEEN, depth, 0.0)
        yield View(
            color=(255.0 * outputs["rgb"].clamp(0.0, 1.0)).round().byte().cpu().numpy(),
            depth=depth.float().numpy(),
            intrinsics=(float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy)),
            world_to_camera=np.linalg.inv(pose),
        )
