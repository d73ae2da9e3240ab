"""Space carving: signed distances from depth maps. Points that enough cameras see past are free, the rest is solid.

Distances are measured along optical axes. Signs, and values near surfaces, are correct. Other values are too large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from staf_nerf.mesh.fuse import View


class Carving:
    """Solids that are carved out of space by depth maps.

    The carving is robust to wrong depths: of the views that see past a point, the `doubts` ones that see farthest are
    ignored. The depth of a pixel is the minimum over 3 x 3 pixels, so that parts thinner than a pixel are kept.

    Args:
        views: The depth maps, all of one size.
        doubts: Number of views that may be wrong at a point.
        device: Device of the points.

    Raises:
        ValueError: If there are not more views than `doubts`, or their sizes differ.
    """

    def __init__(self, views: Sequence[View], *, doubts: int = 2, device: torch.device | str = "cpu") -> None:
        if not 0 <= doubts < len(views):
            raise ValueError(f"doubts must be >= 0 and less than the number of views, got {doubts} of {len(views)}")
        sizes = {view.depth.shape for view in views}
        if len(sizes) > 1:
            raise ValueError(f"views must all have the same size, got {sorted(sizes)}")
        self.doubts = doubts
        depth = torch.from_numpy(np.stack([view.depth for view in views])).float()
        depth = torch.where(depth > 0, depth, torch.inf)  # no surface was hit: all of the ray is free
        self._nearest = -functional.max_pool2d(-depth[:, None], 3, stride=1, padding=1)[:, 0].to(device)
        self._poses = torch.from_numpy(np.stack([view.world_to_camera[:3] for view in views])).float().to(device)
        self._intrinsics = torch.tensor([view.intrinsics for view in views], device=device)

    def distance(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns signed distances (N,) of points (N, 3), negative in solids, and whether enough views see (N,)."""
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
    """Returns the points (N, 3) that a view shows, in world coordinates, their colours (N, 3) and view directions."""
    fx, fy, cx, cy = view.intrinsics
    row, column = np.nonzero(view.depth > 0)
    rays = np.stack([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, np.ones(len(row))], -1)
    inverse = np.linalg.inv(view.world_to_camera)
    directions = rays @ inverse[:3, :3].T
    points = view.depth[row, column][:, None] * directions + inverse[:3, 3]
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    colors = view.color[row, column] / 255.0
    return tuple(torch.from_numpy(a).float() for a in (points, colors, directions))  # pyright: ignore[reportReturnType]
