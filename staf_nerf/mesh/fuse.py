"""Fusion of depth maps to a mesh: truncated signed distances, averaged in Open3D's sparse voxel grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.triangles import Floats, TriangleMesh, weld

LEAST_WEIGHT = 0.5
"""Minimum weight of a voxel that a view has seen."""
TRUNCATION = 4.0
"""Truncation distance in voxels, before and behind a surface (Curless and Levoy 1996)."""


@dataclass(frozen=True)
class View:
    """A depth map with colours from a pinhole camera."""

    color: NDArray[np.uint8]
    """(H, W, 3), sRGB."""
    depth: NDArray[np.float32]
    """(H, W): depth along the optical axis. 0 if unknown."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""
    world_to_camera: Floats
    """(4, 4), to camera axes right, down, forward."""


def fuse(
    views: Iterable[View],
    *,
    bounds: Floats,
    resolution: int = 256,
    count: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> TriangleMesh:
    """Fuses views to a coloured mesh.

    Args:
        views: Depth maps with colours, in the coordinates of `bounds`.
        bounds: The box that the mesh is cropped to, (2, 3).
        resolution: Number of voxels along the longest side of the box. Only voxels near surfaces are stored.
        count: Number of views, for `progress`.
        progress: Called with the fraction done.

    Raises:
        ValueError: If `resolution` is not positive, or no view shows a surface in the box.
    """
    import open3d

    if resolution < 1:
        raise ValueError(f"resolution must be >= 1, got {resolution}")
    voxel = float(np.ptp(bounds, axis=0).max()) / resolution
    geometry: Any = open3d.t.geometry
    volume = geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(open3d.core.float32,) * 3,
        attr_channels=((1,), (1,), (3,)),
        voxel_size=voxel,
        block_resolution=8,
        block_count=4096,  # initial size, it grows
    )
    seen = False
    for done, view in enumerate(views, 1):
        depth = _within(view, bounds)
        seen |= bool((depth > 0).any()) and _integrate(volume, view, depth)
        if progress is not None and count:
            progress(done / count)
    surface = volume.extract_triangle_mesh(weight_threshold=LEAST_WEIGHT) if seen else None
    if surface is None or not len(surface.triangle):
        raise ValueError(
            f"no view shows a surface in the box {bounds.round(3).tolist()} of the model. Train longer, or name a box "
            "that holds what the photos show (--box)"
        )
    vertices, colors = (surface.vertex[name].numpy().astype(np.float64) for name in ("positions", "colors"))
    triangles = surface.triangle.indices.numpy().astype(np.int64)
    return weld(TriangleMesh(vertices, triangles, colors.clip(0.0, 1.0)))


def pixel_size(view: View, bounds: Floats) -> float:
    """Returns the size of a view's pixels at the surfaces in a box (2, 3), in its coordinates: at their median depth.

    Infinity if the view shows no surface there.
    """
    depth = _within(view, bounds)
    seen = depth[depth > 0]
    return float(np.median(seen)) / max(view.intrinsics[:2]) if len(seen) else math.inf


def _integrate(volume: Any, view: View, depth: NDArray[np.float32]) -> bool:
    """Adds a view; False if it has too few pixels with depth for Open3D, which looks at every fourth one."""
    import open3d

    tensor: Any = open3d.core.Tensor
    fx, fy, cx, cy = view.intrinsics
    intrinsics = tensor(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]))
    extrinsics = tensor(view.world_to_camera)
    image = open3d.t.geometry.Image(tensor(depth))
    color = open3d.t.geometry.Image(tensor(view.color.astype(np.float32) / 255.0))
    reach = (1.0, 2.0 * float(depth.max()), TRUNCATION)  # depth scale 1, and no depth limit
    try:
        blocks = volume.compute_unique_block_coordinates(image, intrinsics, extrinsics, *reach)
    except RuntimeError as error:
        if "No block is touched" not in str(error):
            raise
        return False
    volume.integrate(blocks, image, color, intrinsics, extrinsics, *reach)
    return True


def _within(view: View, bounds: Floats) -> NDArray[np.float32]:
    """Returns the depth of points inside the box, and 0 for others, because far voxels would cost memory."""
    fx, fy, cx, cy = view.intrinsics
    height, width = view.depth.shape
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    camera = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) * view.depth[..., None]
    inverse = np.linalg.inv(view.world_to_camera)
    points = camera @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((points >= bounds[0]) & (points <= bounds[1])).all(-1)
    return np.where(inside & np.isfinite(view.depth), view.depth, 0.0).astype(np.float32)
