"""Colours of a mesh: at its vertices, or in a texture.

Conventions: a colour function maps points (N, 3) and outward unit normals (N, 3) to sRGB colours (N, 3) in [0, 1].
Texture coordinates (u, v) lie in [0, 1] with v upwards. The first row of the image is v = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.preview import vertex_normals
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, TriangleMesh

ColorFunction = Callable[[Floats, Floats], Floats]

MOST_TRIANGLES = 400_000
"""Largest number of triangles. Beyond it xatlas takes hours."""
SMALLEST, LARGEST = 64, 8192
"""Smallest and largest side length of a texture in pixels."""
BAND = 2**22
"""Number of pixels that are painted at a time."""
PADDING = 4
"""Number of pixels between the charts of a texture."""


@dataclass(frozen=True)
class Texture:
    """A texture image and the texture coordinates of a mesh."""

    image: NDArray[np.uint8]
    """(size, size, 3)."""
    coordinates: Floats
    """(T, 3, 2): texture coordinates of each triangle's corners."""


def with_vertex_colors(mesh: TriangleMesh, color: ColorFunction) -> TriangleMesh:
    """Returns the mesh with vertex colours from a colour function."""
    return TriangleMesh(mesh.vertices, mesh.triangles, color(mesh.vertices, vertex_normals(mesh)).clip(0.0, 1.0))


def bake(mesh: TriangleMesh, color: ColorFunction, *, size: int = 2048) -> Texture:
    """Bakes a texture: unwraps a mesh with xatlas and fills an image with the colours of its surface.

    Args:
        mesh: The mesh, with at most 400,000 triangles.
        color: The colour function.
        size: Side length of the image in pixels, 64 to 8192.

    Raises:
        ValueError: If the mesh has too many triangles, or `size` is out of range.
    """
    import xatlas

    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size must be between {SMALLEST} and {LARGEST} pixels, got {size}")
    if len(mesh.triangles) > MOST_TRIANGLES:
        raise ValueError(
            f"a texture needs a mesh of at most {MOST_TRIANGLES} triangles, got {len(mesh.triangles)}: decimate it"
        )
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.astype(np.float32), mesh.triangles.astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = size, PADDING, True
    atlas.generate(pack_options=options)
    _, corners, uv = atlas.get_mesh(0)
    coordinates = uv[corners].astype(np.float64)
    image, covered = _painted(mesh, coordinates, color, size)
    return Texture(_filled(image, covered), coordinates)


def _painted(
    mesh: TriangleMesh, coordinates: Floats, color: ColorFunction, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Returns the image and which of its pixels a triangle covers, by rays onto the unwrapped mesh."""
    count = len(coordinates)
    flat = np.concatenate([coordinates, np.zeros((count, 3, 1))], -1).reshape(-1, 3)
    unwrapped = Surface(TriangleMesh(flat, np.arange(3 * count).reshape(-1, 3)))
    normals, centers = vertex_normals(mesh), (np.arange(size) + 0.5) / size
    image, covered = np.zeros((size, size, 3), dtype=np.uint8), np.zeros((size, size), dtype=bool)
    rows = max(BAND // size, 1)
    for first in range(0, size, rows):
        u, v = np.meshgrid(centers, 1.0 - centers[first : first + rows])
        origins = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3)
        hits = unwrapped.first_hit(origins, np.broadcast_to([0.0, 0.0, -1.0], origins.shape))
        hit = hits.triangle >= 0
        corners, weights = mesh.triangles[hits.triangle[hit]], hits.weights[hit][..., None]
        points, directions = ((values[corners] * weights).sum(1) for values in (mesh.vertices, normals))
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True).clip(1e-300)
        hit = hit.reshape(u.shape)
        image[first : first + rows][hit] = (255.0 * color(points, directions).clip(0.0, 1.0)).round().astype(np.uint8)
        covered[first : first + rows] = hit
    return image, covered


def _filled(image: NDArray[np.uint8], covered: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Gives the other pixels the colour of the nearest covered one, so that no gaps appear at seams."""
    import cv2

    if not covered.any():
        return image
    _, nearest = cv2.distanceTransformWithLabels(
        (~covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    label = np.asarray(nearest, dtype=np.int64)
    colors = np.zeros((label.max() + 1, 3), dtype=np.uint8)
    colors[label[covered]] = image[covered]
    return colors[label]
