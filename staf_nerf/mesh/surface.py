"""A mesh as something to ask: what is nearest to a point, whether it is inside, how far it is (Open3D's ray tracer)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.triangles import Floats, Integers, TriangleMesh

RAYS = 3
"""Rays that vote on whether a point is inside: more than one, for meshes with holes; an odd number."""


@dataclass(frozen=True)
class Hits:
    """Of N rays."""

    distance: Floats
    """(N,), infinite where nothing was met."""
    triangle: Integers
    """(N,), -1 where nothing was met."""
    weights: Floats
    """(N, 3), of the triangle's corners at the point that was met."""


class Surface:
    """The triangles of a mesh in a ray tracer.

    It works in float32: the mesh is moved and scaled so that its box has a diagonal of 1 about zero.
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        import open3d

        self._mesh = mesh
        self._center, self._scale = mesh.bounds.mean(0), max(mesh.diagonal, 1e-300)
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            open3d.core.Tensor.from_numpy(self._inward(mesh.vertices)),
            open3d.core.Tensor.from_numpy(mesh.triangles.astype(np.uint32)),
        )

    def closest(self, points: Floats) -> tuple[Floats, Integers]:
        """The nearest point (N, 3) of the surface to each of the points (N, 3), and the triangle (N,) it lies on."""
        found = self._scene.compute_closest_points(self._inward(points))
        return found["points"].numpy() * self._scale + self._center, found["primitive_ids"].numpy().astype(np.int64)

    @cached_property
    def winds(self) -> bool:
        """Whether winding numbers decide what is inside: where closed parts may share space or walls with others.

        Rays, which are quicker, vote about a single closed part, and about what is open.
        """
        mesh = self._mesh
        return bool(mesh.closed.any()) and (mesh.bodies.max() > 0 or not mesh.watertight)

    def inside(self, points: Floats, *, rays: int = RAYS) -> NDArray[np.bool_]:
        """Whether each of the points (N, 3) is inside: by a vote of an odd number of rays, or see `winds`."""
        if not self.winds:
            return self._scene.compute_occupancy(self._inward(points), nsamples=rays).numpy() > 0.5
        import igl

        numbers = igl.fast_winding_number(  # Barill et al. 2018
            np.ascontiguousarray(self._mesh.vertices - self._center),
            np.ascontiguousarray(self._mesh.triangles),
            np.ascontiguousarray(points - self._center, dtype=np.float64),
        )
        return np.abs(numbers) > 0.5  # whatever way all of it faces

    def signed_distance(self, points: Floats, *, rays: int = RAYS) -> Floats:
        """Distance (N,) to the surface, negative inside; see `inside`."""
        if self.winds:
            distance = self._scene.compute_distance(self._inward(points)).numpy().astype(np.float64)
            return np.where(self.inside(points), -distance, distance) * self._scale
        found = self._scene.compute_signed_distance(self._inward(points), nsamples=rays)
        return found.numpy().astype(np.float64) * self._scale

    def first_hit(self, origins: Floats, directions: Floats) -> Hits:
        """Where rays (N, 3) first meet the surface; distances are in lengths of `directions`."""
        rays = np.concatenate([self._inward(origins), (directions / self._scale).astype(np.float32)], -1)
        found = self._scene.cast_rays(rays)
        distance = found["t_hit"].numpy().astype(np.float64)
        triangle = np.where(np.isfinite(distance), found["primitive_ids"].numpy().astype(np.int64), -1)
        second, third = found["primitive_uvs"].numpy().astype(np.float64).T
        return Hits(distance, triangle, np.stack([1.0 - second - third, second, third], -1))

    def _inward(self, points: Floats) -> NDArray[np.float32]:
        return ((points - self._center) / self._scale).astype(np.float32)
