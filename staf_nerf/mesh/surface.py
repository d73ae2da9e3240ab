"""A mesh as something to ask: what is nearest to a point, whether it is inside, how far it is (Open3D's ray tracer)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.triangles import Floats, Integers, TriangleMesh, weld

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
    def parts_overlap(self) -> bool:
        """Whether this is a closed surface of several parts whose boxes meet: they may share space, or lie within.

        How often a ray meets all of them does not say whether it began inside one.
        """
        if self._mesh.boundary_edges:
            return False
        low, high = self._mesh.boxes()
        order = np.argsort(low[:, 0])
        low, high = low[order], high[order]
        for i in range(len(low) - 1):  # those that begin, along x, before this one ends
            others = slice(i + 1, np.searchsorted(low[:, 0], high[i, 0], "right"))
            if ((low[others] <= high[i]) & (low[i] <= high[others])).all(1).any():
                return True
        return False

    def inside(self, points: Floats, *, rays: int = RAYS) -> NDArray[np.bool_]:
        """Whether each of the points (N, 3) is inside, by a vote of an odd number of rays.

        Where closed parts meet, inside is what more of them enclose facing outwards than facing inwards.
        """
        if not self.parts_overlap:
            return self._scene.compute_occupancy(self._inward(points), nsamples=rays).numpy() > 0.5
        enclosed = np.zeros(len(points), dtype=np.int64)
        for part, facing in self._parts:
            near = np.flatnonzero(((points >= part._mesh.bounds[0]) & (points <= part._mesh.bounds[1])).all(1))
            if len(near):
                enclosed[near[part.inside(points[near], rays=rays)]] += facing
        return enclosed > 0

    def signed_distance(self, points: Floats, *, rays: int = RAYS) -> Floats:
        """Distance (N,) to the surface, negative inside; see `inside`."""
        if self.parts_overlap:
            distance = self._scene.compute_distance(self._inward(points)).numpy().astype(np.float64)
            return np.where(self.inside(points, rays=rays), -distance, distance) * self._scale
        found = self._scene.compute_signed_distance(self._inward(points), nsamples=rays)
        return found.numpy().astype(np.float64) * self._scale

    @cached_property
    def _parts(self) -> list[tuple[Surface, int]]:
        """Each connected part, and 1 or -1: whether it faces as the whole does, which is outwards, or is a cavity."""
        mesh, order = self._mesh, np.argsort(self._mesh.components, kind="stable")
        groups = np.split(mesh.triangles[order], np.flatnonzero(np.diff(mesh.components[order])) + 1)
        parts = [weld(TriangleMesh(mesh.vertices, triangles)) for triangles in groups]
        return [(Surface(part), 1 if (part.volume > 0) == (mesh.volume > 0) else -1) for part in parts]

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
