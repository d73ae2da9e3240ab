"""Signed distances from pictures with depth: what enough of them see past is free, the rest is solid.

The distances are along optical axes, so they are right in sign and near surfaces, and too long elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from staf_nerf.mesh.fuse import View


class Carving:
    """Solids carved out of all space by pictures with depth.

    One picture that is wrong about a depth does not decide: a point is as far outside as all but `doubts` of the
    pictures that see farthest past it agree on. Each pixel's depth is the least of those around it, so that what is
    thinner than a pixel is not carved away.

    Args:
        views: The pictures, of one size.
        doubts: Pictures that may be wrong at a point.
        device: Where points are.

    Raises:
        ValueError: If there are not more views than doubts, or their sizes differ.
    """

    def __init__(self, views: Sequence[View], *, doubts: int = 2, device: torch.device | str = "cpu") -> None:
        if not 0 <= doubts < len(views):
            raise ValueError(f"doubts must be between 0 and the number of views less 1, got {doubts} of {len(views)}")
        sizes = {view.depth.shape for view in views}
        if len(sizes) > 1:
            raise ValueError(f"views must be of one size, got {sorted(sizes)}")
        self.doubts = doubts
        depth = torch.from_numpy(np.stack([view.depth for view in views])).float()
        depth = torch.where(depth > 0, depth, torch.inf)  # nothing met: free as far as it looks
        self._nearest = -functional.max_pool2d(-depth[:, None], 3, stride=1, padding=1)[:, 0].to(device)
        self._poses = torch.from_numpy(np.stack([view.world_to_camera[:3] for view in views])).float().to(device)
        self._intrinsics = torch.tensor([view.intrinsics for view in views], device=device)

    def distance(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance (N,) of points (N, 3), negative in solids, and whether enough pictures show a point (N,)."""
        x, y, z = (points @ self._poses[:, :, :3].mT + self._poses[:, None, :, 3]).unbind(-1)  # each (views, N)
        fx, fy, cx, cy = self._intrinsics.T[..., None]
        height, width = self._nearest.shape[1:]
        column, row = ((f * v / z + c).floor() for f, v, c in ((fx, x, cx), (fy, y, cy)))
        shown = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        view = torch.arange(len(z), device=z.device)[:, None]
        pixel = (torch.where(shown, index, 0).long() for index in (row, column))
        free = torch.where(shown, self._nearest[view, *pixel] - z, -torch.inf)
        return free.topk(self.doubts + 1, dim=0).values[-1], shown.sum(0) > self.doubts


def seen_points(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """The points (N, 3) that a picture shows, in the world, their colours (N, 3) and the rays' directions (N, 3)."""
    fx, fy, cx, cy = view.intrinsics
    row, column = np.nonzero(view.depth > 0)
    rays = np.stack([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, np.ones(len(row))], -1)
    inverse = np.linalg.inv(view.world_to_camera)
    directions = rays @ inverse[:3, :3].T
    points = view.depth[row, column][:, None] * directions + inverse[:3, 3]
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    colors = view.color[row, column] / 255.0
    return tuple(torch.from_numpy(a).float() for a in (points, colors, directions))  # pyright: ignore[reportReturnType]
