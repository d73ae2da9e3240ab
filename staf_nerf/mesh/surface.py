"""Queries on a mesh with Open3D's ray tracer: nearest points, inside or outside, signed distances and ray hits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.triangles import Floats, Integers, TriangleMesh

RAYS = 3
"""Number of rays that vote on whether a point is inside. It is odd, and more than one for meshes with holes."""


@dataclass(frozen=True)
class Hits:
    """Hits of N rays with a surface."""

    distance: Floats
    """(N,): distance to the hit, infinite without one."""
    triangle: Integers
    """(N,): triangle of the hit, -1 without one."""
    weights: Floats
    """(N, 3): barycentric weights of the hit in its triangle."""


class Surface:
    """A mesh in a ray tracer, for queries.

    The ray tracer computes in float32. The mesh is therefore centred and scaled to a bounding box diagonal of 1.
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        import open3d

        self._mesh = mesh
        self._center, self._scale = mesh.bounds.mean(0), max(mesh.diagonal, 1e-300)
        self._scene: Any = open3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            open3d.core.Tensor.from_numpy(self._normalized(mesh.vertices)),
            open3d.core.Tensor.from_numpy(mesh.triangles.astype(np.uint32)),
        )

    def closest(self, points: Floats) -> tuple[Floats, Integers]:
        """Returns the nearest points (N, 3) of the surface to points (N, 3), and their triangles (N,)."""
        nearest = self._scene.compute_closest_points(self._normalized(points))
        triangles = nearest["primitive_ids"].numpy().astype(np.int64)
        return nearest["points"].numpy() * self._scale + self._center, triangles

    @cached_property
    def uses_winding_numbers(self) -> bool:
        """Whether winding numbers say what is inside, because closed parts may overlap or share walls.

        For a single closed part, and for open meshes, it is a vote of rays, which is faster.
        """
        mesh = self._mesh
        return bool(mesh.closed.any()) and (mesh.bodies.max() > 0 or not mesh.watertight)

    def inside(self, points: Floats, *, rays: int = RAYS) -> NDArray[np.bool_]:
        """Returns whether points (N, 3) are inside, by a vote of an odd number of rays or by `uses_winding_numbers`."""
        if not self.uses_winding_numbers:
            return self._scene.compute_occupancy(self._normalized(points), nsamples=rays).numpy() > 0.5
        import igl

        numbers = igl.fast_winding_number(  # Barill et al. 2018
            np.ascontiguousarray(self._mesh.vertices - self._center),
            np.ascontiguousarray(self._mesh.triangles),
            np.ascontiguousarray(points - self._center, dtype=np.float64),
        )
        return np.abs(numbers) > 0.5  # for either orientation of the mesh

    def signed_distance(self, points: Floats, *, rays: int = RAYS) -> Floats:
        """Returns the signed distance (N,) to the surface, negative inside; see `inside`."""
        if self.uses_winding_numbers:
            distance = self._scene.compute_distance(self._normalized(points)).numpy().astype(np.float64)
            return np.where(self.inside(points), -distance, distance) * self._scale
        signed = self._scene.compute_signed_distance(self._normalized(points), nsamples=rays)
        return signed.numpy().astype(np.float64) * self._scale

    def first_hit(self, origins: Floats, directions: Floats) -> Hits:
        """Returns the first hits of rays (N, 3). Distances are in units of the length of `directions`."""
        rays = np.concatenate([self._normalized(origins), (directions / self._scale).astype(np.float32)], -1)
        hits = self._scene.cast_rays(rays)
        distance = hits["t_hit"].numpy().astype(np.float64)
        triangle = np.where(np.isfinite(distance), hits["primitive_ids"].numpy().astype(np.int64), -1)
        second, third = hits["primitive_uvs"].numpy().astype(np.float64).T
        return Hits(distance, triangle, np.stack([1.0 - second - third, second, third], -1))

    def _normalized(self, points: Floats) -> NDArray[np.float32]:
        return ((points - self._center) / self._scale).astype(np.float32)
