"""Triangle meshes: the data structure, its geometric properties, and reading from files.

Conventions: vertices (V, 3) are float64 in the mesh's own units. Triangles (T, 3) are int64 vertex indices,
counter-clockwise seen from outside. Colours (V, 3) are sRGB in [0, 1].
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
    """A triangle mesh with optional vertex colours.

    Raises:
        ValueError: If an array has a wrong shape, an index is out of range, or a vertex is not finite.
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
        """(T, 3, 3): the three vertices of each triangle. It is not cached, because it is large."""
        return self.vertices[self.triangles]

    @cached_property
    def areas(self) -> Floats:
        """(T,): area of each triangle."""
        return 0.5 * np.linalg.norm(self._crosses, axis=-1)

    @cached_property
    def normals(self) -> Floats:
        """(T, 3): unit normal of each triangle, zero for triangles without area."""
        lengths = np.linalg.norm(self._crosses, axis=-1, keepdims=True)
        return np.divide(self._crosses, lengths, out=np.zeros_like(self._crosses), where=lengths > 0)

    @cached_property
    def volume(self) -> float:
        """Enclosed volume, positive if the triangles face outwards."""
        a, b, c = (self.corners - self.corners[:1, :1]).swapaxes(0, 1)  # relative to a vertex, for precision
        return float((a * np.cross(b, c)).sum() / 6.0)

    @cached_property
    def bounds(self) -> Floats:
        """(2, 3): smallest and largest coordinates."""
        return np.stack([self.vertices.min(0), self.vertices.max(0)])

    @cached_property
    def diagonal(self) -> float:
        """Diagonal of the bounding box."""
        return float(np.linalg.norm(self.bounds[1] - self.bounds[0]))

    @cached_property
    def boundary_edges(self) -> int:
        """Number of edges with an odd number of triangles, usually one. It is 0 for a closed surface."""
        return int((self.edges()[1] % 2).sum())

    @cached_property
    def watertight(self) -> bool:
        """Whether each edge belongs to exactly two triangles: the surface is closed and edge-manifold."""
        return bool((self.edges()[1] == 2).all())

    @cached_property
    def components(self) -> Integers:
        """(T,): index of each triangle's connected component, ordered by area, the largest first.

        Triangles that share a vertex are connected.
        """
        from scipy import sparse

        ends = self.triangles[:, [0, 1, 0, 2]].astype(np.int32).reshape(-1, 2).T
        joined = sparse.coo_array((np.ones(ends.shape[1], dtype=bool), tuple(ends)), shape=(len(self.vertices),) * 2)
        _, label = sparse.csgraph.connected_components(joined, directed=False)
        label = np.unique(label[self.triangles[:, 0]], return_inverse=True)[1]  # unused vertices are not components
        rank = np.argsort(np.argsort(-np.bincount(label, self.areas), kind="stable"))
        return rank[label]

    @cached_property
    def bodies(self) -> Integers:
        """(T,): index of each triangle's component, where triangles that share an edge are connected."""
        from scipy import sparse

        keys = self._edge_keys()
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(np.diff(keys[order]) == 0)
        ends = order[same] // 3, order[same + 1] // 3
        joined = sparse.coo_array((np.ones(len(same), dtype=bool), ends), shape=(len(self.triangles),) * 2)
        return sparse.csgraph.connected_components(joined, directed=False)[1].astype(np.int64)

    @cached_property
    def closed(self) -> NDArray[np.bool_]:
        """(T,): whether each triangle belongs to a connected component without boundary."""
        edges, counts = self.edges()
        is_boundary = np.zeros(len(self.vertices), dtype=bool)
        is_boundary[edges[counts % 2 == 1]] = True
        is_open = np.bincount(self.components, is_boundary[self.triangles].any(1)) > 0
        return ~is_open[self.components]

    def boxes(self, part: Integers) -> tuple[Floats, Floats]:
        """Returns the smallest and largest coordinates (P, 3) of each part, given the part (T,) of each triangle."""
        low, high = np.full((2, part.max(initial=-1) + 1, 3), [[[np.inf]], [[-np.inf]]])
        np.minimum.at(low, part, self.corners.min(1))
        np.maximum.at(high, part, self.corners.max(1))
        return low, high

    def edges(self) -> tuple[Integers, Integers]:
        """Returns the edges (E, 2), smaller vertex index first, and the number of triangles (E,) at each."""
        keys, counts = np.unique(self._edge_keys(), return_counts=True)
        return np.stack(np.divmod(keys, len(self.vertices)), -1), counts

    def _edge_keys(self) -> Integers:
        """Returns the edges (3T,) of all triangles, each encoded as one integer.

        Sorting integers takes a tenth of the memory of sorting rows of two vertices.
        """
        a, b = self.triangles.reshape(-1), self.triangles[:, [1, 2, 0]].reshape(-1)
        return np.minimum(a, b) * len(self.vertices) + np.maximum(a, b)

    @cached_property
    def _crosses(self) -> Floats:
        a, b, c = self.corners.swapaxes(0, 1)
        return np.cross(b - a, c - a)

    def sample(self, count: int, generator: np.random.Generator) -> tuple[Floats, Integers]:
        """Draws points (count, 3) uniformly on the surface, and returns them with their triangles (count,).

        Raises:
            ValueError: If the mesh has no area.
        """
        total = self.areas.sum()
        if not total > 0:
            raise ValueError(f"sampling needs a mesh with a positive area, got {len(self.triangles)} triangles without")
        index = generator.choice(len(self.triangles), size=count, p=self.areas / total)
        # Uniform over a triangle: the square root undoes the crowding at the first corner (Osada et al. 2002).
        u, v = np.sqrt(generator.random(count)), generator.random(count)
        weights = np.stack([1.0 - u, u * (1.0 - v), u * v], -1)
        return (weights[..., None] * self.vertices[self.triangles[index]]).sum(1), index


def box_around(corners: Floats, transform: Floats) -> Floats:
    """Returns the bounding box (2, 3) of a box after an affine map (4, 4)."""
    eight = np.stack(np.meshgrid(*corners.T, indexing="ij"), -1).reshape(-1, 3)
    mapped = eight @ transform[:3, :3].T + transform[:3, 3]
    return np.stack([mapped.min(0), mapped.max(0)])


def moved(mesh: TriangleMesh, transform: Floats) -> TriangleMesh:
    """Returns the mesh after an affine map (4, 4) without reflection."""
    return TriangleMesh(mesh.vertices @ transform[:3, :3].T + transform[:3, 3], mesh.triangles, mesh.colors)


def read_mesh(path: Path, *, as_stored: bool = False) -> TriangleMesh:
    """Reads a mesh from OBJ, PLY, STL, GLB and other formats of trimesh. The parts of a scene become one mesh.

    Args:
        path: The file.
        as_stored: Whether to keep repeated vertices of the file, per triangle (STL) or along the seams of a texture
            (OBJ). By default vertices at the same position are merged.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file contains no triangles or cannot be read.
    """
    import trimesh

    if not path.is_file():
        raise FileNotFoundError(f"the mesh {path} does not exist")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    try:
        loaded: Any = trimesh.load(path, process=False, force="mesh")
    except Exception as error:  # trimesh's readers raise many types of errors
        raise ValueError(f"cannot read the mesh {path}: {error}") from error
    triangles = np.asarray(getattr(loaded, "faces", ()), dtype=np.int64).reshape(-1, 3)
    if not len(triangles):
        raise ValueError(f"{path} contains no triangles")
    colors = None
    if getattr(loaded.visual, "kind", None) == "vertex":
        colors = np.asarray(loaded.visual.vertex_colors[:, :3], dtype=np.float64) / 255.0
        if path.suffix.lower() in (".glb", ".gltf"):
            colors = srgb_from_linear(colors)
    mesh = TriangleMesh(np.asarray(loaded.vertices, dtype=np.float64), triangles, colors)
    return mesh if as_stored else weld(mesh)


def linear_from_srgb(colors: Floats) -> Floats:
    """Returns linear light for sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(light: Floats) -> Floats:
    """Returns sRGB values for linear light, the inverse of `linear_from_srgb`."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def weld(mesh: TriangleMesh) -> TriangleMesh:
    """Merges vertices at exactly the same position (with the colour of the first) and drops unused vertices."""
    used = np.unique(mesh.triangles)
    vertices, first, inverse = np.unique(mesh.vertices[used], axis=0, return_index=True, return_inverse=True)
    merged = np.zeros(len(mesh.vertices), dtype=np.int64)
    merged[used] = inverse.reshape(-1)
    return TriangleMesh(vertices, merged[mesh.triangles], None if mesh.colors is None else mesh.colors[used[first]])
