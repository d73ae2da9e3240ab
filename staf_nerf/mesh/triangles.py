"""A triangle mesh and what can be computed from it alone.

Conventions: vertices (V, 3) float64 in the mesh's own units; triangles (T, 3) int64, counter-clockwise seen from
outside; colours (V, 3) in [0, 1], encoded as pictures are (sRGB).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TriangleMesh:
    """Vertices and triangles, and colours where there are any.

    Raises:
        ValueError: If a shape is wrong, an index points beyond the vertices, or a vertex is not finite.
    """

    vertices: Floats
    triangles: Integers
    colors: Floats | None = None

    def __post_init__(self) -> None:
        for name, values in (("vertices", self.vertices), ("triangles", self.triangles)):
            if values.ndim != 2 or values.shape[1] != 3:
                raise ValueError(f"{name} must have shape (n, 3), got {values.shape}")
        if not np.isfinite(self.vertices).all():
            bad = int((~np.isfinite(self.vertices)).any(1).sum())
            raise ValueError(f"vertices must be finite, got {bad} of {len(self.vertices)} that are not")
        if self.triangles.size and not 0 <= self.triangles.min() <= self.triangles.max() < len(self.vertices):
            raise ValueError(
                f"triangles must index {len(self.vertices)} vertices, got {self.triangles.min()} to "
                f"{self.triangles.max()}"
            )
        if self.colors is not None and self.colors.shape != self.vertices.shape:
            raise ValueError(f"colors must have the vertices' shape {self.vertices.shape}, got {self.colors.shape}")

    @property
    def corners(self) -> Floats:
        """(T, 3, 3): the three vertices of each triangle; not kept, it is the largest of all that can be computed."""
        return self.vertices[self.triangles]

    @cached_property
    def areas(self) -> Floats:
        """(T,)."""
        return 0.5 * np.linalg.norm(self._crosses, axis=-1)

    @cached_property
    def normals(self) -> Floats:
        """(T, 3), unit length; zero for a triangle without area."""
        lengths = np.linalg.norm(self._crosses, axis=-1, keepdims=True)
        return np.divide(self._crosses, lengths, out=np.zeros_like(self._crosses), where=lengths > 0)

    @cached_property
    def volume(self) -> float:
        """What the surface encloses; positive if its triangles face outwards."""
        a, b, c = (self.corners - self.corners[:1, :1]).swapaxes(0, 1)  # from a point of it: far away digits are lost
        return float((a * np.cross(b, c)).sum() / 6.0)

    @cached_property
    def bounds(self) -> Floats:
        """(2, 3): the least and largest coordinates."""
        return np.stack([self.vertices.min(0), self.vertices.max(0)])

    @cached_property
    def diagonal(self) -> float:
        """Of the box around it."""
        return float(np.linalg.norm(self.bounds[1] - self.bounds[0]))

    @cached_property
    def boundary_edges(self) -> int:
        """Edges of an odd number of triangles, of one as a rule: 0 if the surface encloses what is inside."""
        return int((self.edges()[1] % 2).sum())

    @cached_property
    def watertight(self) -> bool:
        """Whether each edge is one of two triangles: the surface is closed, and a manifold along its edges."""
        return bool((self.edges()[1] == 2).all())

    @cached_property
    def components(self) -> Integers:
        """The number (T,) of the connected part that each triangle belongs to, the largest area first.

        Triangles that share a vertex are connected.
        """
        from scipy import sparse

        ends = self.triangles[:, [0, 1, 0, 2]].astype(np.int32).reshape(-1, 2).T
        joined = sparse.coo_array((np.ones(ends.shape[1], dtype=bool), tuple(ends)), shape=(len(self.vertices),) * 2)
        _, label = sparse.csgraph.connected_components(joined, directed=False)
        label = np.unique(label[self.triangles[:, 0]], return_inverse=True)[1]  # vertices of no triangle are no part
        rank = np.argsort(np.argsort(-np.bincount(label, self.areas), kind="stable"))
        return rank[label]

    @cached_property
    def bodies(self) -> Integers:
        """The number (T,) of the part that each triangle belongs to, where those that share an edge are connected."""
        from scipy import sparse

        keys = self._edge_keys()
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(np.diff(keys[order]) == 0)
        ends = order[same] // 3, order[same + 1] // 3
        joined = sparse.coo_array((np.ones(len(same), dtype=bool), ends), shape=(len(self.triangles),) * 2)
        return sparse.csgraph.connected_components(joined, directed=False)[1].astype(np.int64)

    @cached_property
    def closed(self) -> NDArray[np.bool_]:
        """Whether each triangle (T,) is of a connected part without boundary."""
        edges, counts = self.edges()
        odd = np.zeros(len(self.vertices), dtype=bool)
        odd[edges[counts % 2 == 1]] = True
        opened = np.bincount(self.components, odd[self.triangles].any(1)) > 0
        return ~opened[self.components]

    def boxes(self, part: Integers) -> tuple[Floats, Floats]:
        """The least and the largest coordinates (P, 3) of each part, whose number (T,) each triangle has."""
        low, high = np.full((2, part.max(initial=-1) + 1, 3), [[[np.inf]], [[-np.inf]]])
        np.minimum.at(low, part, self.corners.min(1))
        np.maximum.at(high, part, self.corners.max(1))
        return low, high

    def edges(self) -> tuple[Integers, Integers]:
        """Pairs of vertices (E, 2), the lesser first, and how many triangles (E,) have each as an edge."""
        keys, counts = np.unique(self._edge_keys(), return_counts=True)
        return np.stack(np.divmod(keys, len(self.vertices)), -1), counts

    def _edge_keys(self) -> Integers:
        """The edges (3T,) of all triangles in turn, as one number each: millions of them are sorted in a tenth of the
        memory that rows of two vertices take."""
        a, b = self.triangles.reshape(-1), self.triangles[:, [1, 2, 0]].reshape(-1)
        return np.minimum(a, b) * len(self.vertices) + np.maximum(a, b)

    @cached_property
    def _crosses(self) -> Floats:
        a, b, c = self.corners.swapaxes(0, 1)
        return np.cross(b - a, c - a)

    def sample(self, count: int, generator: np.random.Generator) -> tuple[Floats, Integers]:
        """Points (count, 3) spread evenly over the surface, and the triangle (count,) that each lies on."""
        total = self.areas.sum()
        if not total > 0:
            raise ValueError(f"a mesh without area has no surface to sample, got {len(self.triangles)} triangles")
        index = generator.choice(len(self.triangles), size=count, p=self.areas / total)
        # Uniform over a triangle: the square root undoes the crowding at the first corner (Osada et al. 2002).
        u, v = np.sqrt(generator.random(count)), generator.random(count)
        weights = np.stack([1.0 - u, u * (1.0 - v), u * v], -1)
        return (weights[..., None] * self.vertices[self.triangles[index]]).sum(1), index


def box_around(corners: Floats, transform: Floats) -> Floats:
    """The box (2, 3) around another one's eight corners under an affine map (4, 4)."""
    eight = np.stack(np.meshgrid(*corners.T, indexing="ij"), -1).reshape(-1, 3)
    there = eight @ transform[:3, :3].T + transform[:3, 3]
    return np.stack([there.min(0), there.max(0)])


def moved(mesh: TriangleMesh, transform: Floats) -> TriangleMesh:
    """The mesh under an affine map (4, 4) that does not mirror."""
    return TriangleMesh(mesh.vertices @ transform[:3, :3].T + transform[:3, 3], mesh.triangles, mesh.colors)


def read_mesh(path: Path, *, as_stored: bool = False) -> TriangleMesh:
    """Reads OBJ, PLY, STL, GLB and what else trimesh reads; a scene's parts become one mesh.

    Args:
        path: The file.
        as_stored: Whether vertices stay as the file repeats them, for each triangle (STL) or along the seams of a
            texture (OBJ); if not, those at one place become one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no triangles, or cannot be read.
    """
    import trimesh

    if not path.is_file():
        raise FileNotFoundError(f"no mesh {path}")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: it holds no triangles")
    try:
        loaded: Any = trimesh.load(path, process=False, force="mesh")
    except Exception as error:  # trimesh's readers raise what they happen to meet
        raise ValueError(f"could not read the mesh {path}: {error}") from error
    triangles = np.asarray(getattr(loaded, "faces", ()), dtype=np.int64).reshape(-1, 3)
    if not len(triangles):
        raise ValueError(f"{path} holds no triangles")
    colors = None
    if getattr(loaded.visual, "kind", None) == "vertex":
        colors = np.asarray(loaded.visual.vertex_colors[:, :3], dtype=np.float64) / 255.0
        if path.suffix.lower() in (".glb", ".gltf"):
            colors = srgb_from_linear(colors)
    mesh = TriangleMesh(np.asarray(loaded.vertices, dtype=np.float64), triangles, colors)
    return mesh if as_stored else weld(mesh)


def linear_from_srgb(colors: Floats) -> Floats:
    """Light from the numbers of a picture, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(light: Floats) -> Floats:
    """The inverse of `linear_from_srgb`."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def weld(mesh: TriangleMesh) -> TriangleMesh:
    """Makes one vertex of those at exactly one place (with the colour of the first), and drops those of no triangle."""
    used = np.unique(mesh.triangles)
    vertices, first, place = np.unique(mesh.vertices[used], axis=0, return_index=True, return_inverse=True)
    moved = np.zeros(len(mesh.vertices), dtype=np.int64)
    moved[used] = place.reshape(-1)
    return TriangleMesh(vertices, moved[mesh.triangles], None if mesh.colors is None else mesh.colors[used[first]])
