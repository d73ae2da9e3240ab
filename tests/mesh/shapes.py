"""Meshes whose measures are known."""

import numpy as np
import trimesh

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
