"""Meshes whose sizes are known, and pictures of them."""

import numpy as np
import trimesh

from staf_nerf.mesh.fuse import View
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import TriangleMesh


def sphere(radius: float = 1.0, center=(0.0, 0.0, 0.0), subdivisions: int = 5) -> TriangleMesh:
    made = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return TriangleMesh(np.asarray(made.vertices) + center, np.asarray(made.faces, dtype=np.int64))


def box(size=(1.0, 1.0, 1.0), center=(0.0, 0.0, 0.0)) -> TriangleMesh:
    made = trimesh.creation.box(extents=size)
    return TriangleMesh(np.asarray(made.vertices) + center, np.asarray(made.faces, dtype=np.int64))


def square(height: float = 0.0, side: float = 1.0) -> TriangleMesh:
    vertices = side * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]]) + [0, 0, height]
    return TriangleMesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]))


def views_of(mesh: TriangleMesh, count: int = 24, size: int = 120):
    """What cameras around a mesh see, by rays; the colour is that of the place."""
    surface = Surface(mesh)
    v, u = np.mgrid[:size, :size] + 0.5
    local = np.stack([(u - size / 2) / size, (v - size / 2) / size, np.ones_like(u)], -1)
    for i in range(count):
        angle, height = 2.4 * i, 1.6 * (i + 0.5) / count - 0.8
        back = np.array([np.cos(angle) * np.sqrt(1 - height**2), np.sin(angle) * np.sqrt(1 - height**2), height])
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, -np.cross(back, right), -back], 1)
        pose[:3, 3] = 3.0 * back + mesh.bounds.mean(0)
        directions = local @ pose[:3, :3].T
        hits = surface.first_hit(np.broadcast_to(pose[:3, 3], (size * size, 3)), directions.reshape(-1, 3))
        depth = np.where(np.isfinite(hits.distance), hits.distance, 0.0).reshape(size, size)
        points = pose[:3, 3] + directions * depth[..., None]
        color = (255 * (0.5 + 0.4 * (points - mesh.bounds.mean(0)))).clip(0, 255).astype(np.uint8)
        camera = (float(size), float(size), size / 2, size / 2)
        yield View(color, depth.astype(np.float32), camera, np.linalg.inv(pose))
