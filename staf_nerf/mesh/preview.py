"""Preview images of a mesh by ray casting, without a graphics card or a display."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, TriangleMesh

AZIMUTHS = (30.0, 120.0, 210.0, 300.0)
"""Azimuth angles of the four views, in degrees."""
ELEVATION = 20.0
"""Elevation angle of the views, in degrees."""
PLAIN = np.array([0.72, 0.72, 0.74])
"""Colour of a mesh without colours."""
BACKGROUND = 1.0


def four_views(mesh: TriangleMesh, *, size: int = 480, up: Literal["y", "z"] = "y") -> NDArray[np.uint8]:
    """Renders four views around a mesh in parallel projection, (2 size, 2 size, 3).

    Raises:
        ValueError: If the mesh has no triangles.
    """
    if not len(mesh.triangles):
        raise ValueError("the mesh must have triangles to be rendered, got none")
    surface, normals = Surface(mesh), vertex_normals(mesh)
    views = [_view(mesh, surface, normals, size, _axes(azimuth, up)) for azimuth in AZIMUTHS]
    rows = [np.concatenate(views[:2], 1), np.concatenate(views[2:], 1)]
    return (255.0 * np.concatenate(rows, 0).clip(0.0, 1.0)).round().astype(np.uint8)


def save_preview(path: Path, mesh: TriangleMesh, *, size: int = 480, up: Literal["y", "z"] = "y") -> None:
    """Writes `four_views` to a PNG file."""
    import imageio.v3

    imageio.v3.imwrite(path, four_views(mesh, size=size, up=up))


def vertex_normals(mesh: TriangleMesh) -> Floats:
    """Returns unit normals (V, 3) at vertices: the area-weighted mean of the adjacent triangles' normals."""
    sums = np.zeros_like(mesh.vertices)
    for corner in range(3):
        np.add.at(sums, mesh.triangles[:, corner], mesh.normals * mesh.areas[:, None])
    return sums / np.linalg.norm(sums, axis=-1, keepdims=True).clip(1e-300)


def _axes(azimuth: float, up: str) -> tuple[Floats, Floats, Floats]:
    """Returns the axes right, up and towards the viewer, for a view from that azimuth."""
    a, e = np.radians(azimuth), np.radians(ELEVATION)
    back = np.array([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)])
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    axes = right, np.cross(back, right), back
    if up == "z":  # the axes for y up, rotated about x
        axes = tuple(np.array([x, -z, y]) for x, y, z in axes)
    return axes[0], axes[1], axes[2]


def _view(
    mesh: TriangleMesh, surface: Surface, normals: Floats, size: int, axes: tuple[Floats, Floats, Floats]
) -> Floats:
    """Renders one view, (size, size, 3) in [0, 1]."""
    right, upwards, back = axes
    radius = mesh.diagonal / 2
    steps = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    across, down = np.meshgrid(steps, -steps)
    start = mesh.bounds.mean(0) + radius * (across[..., None] * right + down[..., None] * upwards + 1.01 * back)
    hits = surface.first_hit(start.reshape(-1, 3), np.broadcast_to(-back, (size * size, 3)))
    met = hits.triangle >= 0
    corners, weights = mesh.triangles[hits.triangle[met]], hits.weights[met][..., None]
    normal = (normals[corners] * weights).sum(1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-300)
    albedo = PLAIN if mesh.colors is None else (mesh.colors[corners] * weights).sum(1)
    key = (back + 0.5 * upwards + 0.35 * right) / np.linalg.norm(back + 0.5 * upwards + 0.35 * right)
    light = 0.35 + 0.65 * np.abs(normal @ key)
    if mesh.colors is not None:
        light = 0.7 + 0.3 * light  # the colours already include the scene's lighting
    picture = np.full((size * size, 3), BACKGROUND)
    picture[met] = albedo * light[:, None]
    return picture.reshape(size, size, 3)
