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
AXES = (("x", (200, 40, 40)), ("y", (40, 140, 60)), ("z", (40, 80, 210)))
"""Names and colours of the axes that are drawn in a corner."""
AXIS_LENGTH, AXES_CENTER = 0.07, 0.12
"""Length of such an axis, and distance of their origin from the left and the lower side, in parts of a view's size."""


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


def save_preview(
    path: Path, mesh: TriangleMesh, *, size: int = 480, up: Literal["y", "z"] = "y", axes: Floats | None = None
) -> None:
    """Writes `four_views` with axes to a PNG file. The axes (`with_axes`) are those of the mesh, if none are given."""
    import imageio.v3

    picture = four_views(mesh, size=size, up=up)
    imageio.v3.imwrite(path, with_axes(picture, np.eye(3) if axes is None else axes, up=up))


def with_axes(picture: NDArray[np.uint8], axes: Floats, *, up: Literal["y", "z"] = "y") -> NDArray[np.uint8]:
    """Draws axes with their names into the lower left corner of each of `four_views`.

    Args:
        picture: The four views, (2 size, 2 size, 3).
        axes: Unit vectors (3, 3) along x, y and z, in the coordinates of the mesh.
        up: Axis of the mesh that points up, as in `four_views`.
    """
    from PIL import Image, ImageDraw, ImageFont

    image, size = Image.fromarray(picture), len(picture) // 2
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(0.5 * AXIS_LENGTH * size)
    for view, azimuth in enumerate(AZIMUTHS):
        right, upwards, back = _axes(azimuth, up)
        row, column = divmod(view, 2)
        origin = size * np.array([column + AXES_CENTER, row + 1 - AXES_CENTER])
        on_picture = AXIS_LENGTH * size * np.stack([axes @ right, -axes @ upwards], -1)
        for axis in np.argsort(axes @ back):  # the nearest last, above the others
            name, color = AXES[axis]
            draw.line([*origin, *(origin + on_picture[axis])], fill=color, width=max(size // 160, 1))
            draw.text(tuple(origin + 1.35 * on_picture[axis]), name, fill=color, font=font, anchor="mm")
    return np.asarray(image)


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
