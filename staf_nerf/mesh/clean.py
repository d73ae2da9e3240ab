"""Repair of meshes from files, and cleaning of extracted meshes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, Integers, TriangleMesh, weld

HOLE_SIZE = 0.05
"""Width up to which holes are filled, approximately, as a fraction of the bounding box's diagonal."""
SEAM_WIDTH, SEAM_PART = 1e-5, 0.1
"""Vertices on boundaries are merged if their distance is below this fraction of the bounding box's diagonal, and below
this fraction of the shortest adjacent edge."""


@dataclass(frozen=True)
class Repairs:
    """The defects of a mesh that were repaired, and those that remain."""

    repeated_vertices: int
    """Number of merged vertices at equal positions."""
    joined_vertices: int
    """Number of merged boundary vertices whose positions differed by rounding."""
    dropped_triangles: int
    """Number of dropped triangles: without area, or duplicates."""
    flipped_triangles: int
    """Number of triangles that faced inwards."""
    filled_holes: int
    boundary_edges: int
    """Number of remaining boundary edges."""
    shared_edges: int
    """Number of edges with more than two triangles, for example where two boxes touch."""
    closed_parts: int

    def lines(self) -> list[str]:
        """Returns messages for the user, one per kind of repair or defect."""
        found = []
        if self.repeated_vertices:
            found.append(f"merged {self.repeated_vertices} vertices at equal positions")
        if self.joined_vertices:
            found.append(f"closed seams by merging {self.joined_vertices} vertices that differed by rounding")
        if self.dropped_triangles:
            found.append(f"dropped {self.dropped_triangles} triangles without area or duplicated")
        if self.flipped_triangles:
            found.append(f"flipped {self.flipped_triangles} triangles that faced inwards")
        if self.filled_holes:
            found.append(f"filled {self.filled_holes} small holes")
        if self.boundary_edges:
            way = "winding numbers" if self.closed_parts else "a vote of rays"
            found.append(
                f"warning: the mesh is open, with {self.boundary_edges} boundary edges: the inside is determined by "
                f"{way}"
            )
        if self.shared_edges:
            found.append(f"{self.shared_edges} edges belong to more than two triangles")
        if self.closed_parts > 1:
            found.append(f"{self.closed_parts} closed parts: the inside is their union, without cavities")
        return found


def repair(mesh: TriangleMesh) -> tuple[TriangleMesh, Repairs]:
    """Merges vertices, drops degenerate triangles, fills small holes, and orients all triangles outwards.

    Raises:
        ValueError: If no triangle with a positive area is left.
    """
    welded = weld(mesh)
    whole = _without_seams(welded)
    sound = _without_useless(whole)
    if not len(sound.triangles):
        raise ValueError(f"a mesh needs triangles with a positive area, got none among {len(mesh.triangles)}")
    turned, flipped = _facing_outwards(sound)
    filled, holes = without_small_holes(turned)
    repairs = Repairs(
        repeated_vertices=len(np.unique(mesh.triangles)) - len(welded.vertices),
        joined_vertices=len(welded.vertices) - len(whole.vertices),
        dropped_triangles=len(mesh.triangles) - len(sound.triangles),
        flipped_triangles=flipped,
        filled_holes=holes,
        boundary_edges=filled.boundary_edges,
        shared_edges=int((filled.edges()[1] > 2).sum()),
        closed_parts=len(np.unique(filled.components[filled.closed])),
    )
    return filled, repairs


def _without_seams(mesh: TriangleMesh) -> TriangleMesh:
    """Merges boundary vertices that differ by rounding only."""
    from scipy import sparse
    from scipy.spatial import KDTree

    edges, counts = mesh.edges()
    rim = np.unique(edges[counts == 1])
    if not len(rim):
        return mesh
    length = np.linalg.norm(mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]], axis=-1)
    shortest = np.full(len(mesh.vertices), np.inf)
    np.minimum.at(shortest, edges, length[:, None])
    pairs = KDTree(mesh.vertices[rim]).query_pairs(SEAM_WIDTH * mesh.diagonal, output_type="ndarray")
    apart = np.linalg.norm(mesh.vertices[rim[pairs[:, 0]]] - mesh.vertices[rim[pairs[:, 1]]], axis=-1)
    pairs = pairs[apart < SEAM_PART * shortest[rim[pairs]].min(1)]
    if not len(pairs):
        return mesh
    joined = sparse.coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(len(rim),) * 2)
    _, label = sparse.csgraph.connected_components(joined, directed=False)
    vertices = mesh.vertices.copy()
    vertices[rim] = vertices[rim[np.unique(label, return_index=True)[1]]][label]  # the position of the first one
    return weld(TriangleMesh(vertices, mesh.triangles, mesh.colors))


def _without_useless(mesh: TriangleMesh) -> TriangleMesh:
    """Drops triangles without area and duplicates. Of inner walls between two parts both sides are dropped."""
    solid = mesh.triangles[mesh.areas > 0]
    _, group = np.unique(np.sort(solid, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    odd = _is_odd(solid)
    # One triangle per position and side, then those with two sides.
    _, first = np.unique(2 * group + odd, return_index=True)
    solid, group = solid[first], group[first]
    two_sided = np.bincount(group)[group] == 2
    once = np.zeros(len(solid), dtype=bool)
    once[np.unique(group, return_index=True)[1]] = True
    walls = two_sided & _touch(TriangleMesh(mesh.vertices, solid), two_sided)
    return weld(TriangleMesh(mesh.vertices, solid[once & ~walls], mesh.colors))


def _touch(mesh: TriangleMesh, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns whether each chosen triangle is connected to other triangles through edges of chosen ones."""
    if not chosen.any() or chosen.all():
        return np.zeros(len(chosen), dtype=bool)
    part = TriangleMesh(mesh.vertices, mesh.triangles[chosen])
    of_others = np.zeros(len(mesh.vertices), dtype=bool)
    of_others[mesh.triangles[~chosen]] = True
    found = np.zeros(len(chosen), dtype=bool)
    shared = of_others[part.triangles].sum(1) >= 2  # it may share an edge with another triangle
    found[chosen] = (np.bincount(part.components, shared) > 0)[part.components]
    return found


def _facing_outwards(mesh: TriangleMesh) -> tuple[TriangleMesh, int]:
    """Orients neighbours consistently and closed parts outwards, and returns the number of flipped triangles.

    A part inside another one is a cavity if the two were oriented differently. Cavities face inwards.
    """
    import trimesh

    found = trimesh.Trimesh(mesh.vertices, mesh.triangles.copy(), process=False)  # changed in place
    trimesh.repair.fix_normals(found, multibody=True)
    triangles = np.asarray(found.faces, dtype=np.int64)
    turned = _is_odd(mesh.triangles) != _is_odd(triangles)
    cavity = _cavities(TriangleMesh(mesh.vertices, triangles), found.face_adjacency, turned)
    triangles[cavity] = triangles[cavity, ::-1]
    result = TriangleMesh(mesh.vertices, triangles, mesh.colors)
    return result, int((_is_odd(mesh.triangles) != _is_odd(triangles)).sum())


def _cavities(mesh: TriangleMesh, neighbours: Integers, turned: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns which triangles (T,) belong to cavities.

    A cavity is a part that was oriented differently from the part around it, before triangles were flipped.
    """
    import trimesh

    count = len(mesh.triangles)
    part = trimesh.graph.connected_component_labels(neighbours, node_count=count)
    whole = np.bincount(part, turned) == np.bincount(part)
    closed = np.bincount(part, np.bincount(neighbours.reshape(-1), minlength=count) == 3) == np.bincount(part)
    a, b, c = (mesh.corners - mesh.bounds[0]).swapaxes(0, 1)
    volume = np.abs(np.bincount(part, (a * np.cross(b, c)).sum(-1)))
    low, high = mesh.boxes(part)
    cavity = np.zeros(len(closed), dtype=bool)

    @functools.lru_cache(16)  # a part may contain many others; Open3D cannot hold a thousand ray tracers
    def surface(j: int) -> Surface:
        return Surface(weld(TriangleMesh(mesh.vertices, mesh.triangles[part == j])))

    for i in np.argsort(-volume, kind="stable"):  # a part comes after the parts around it
        around = np.flatnonzero(closed & closed[i] & (low < low[i]).all(1) & (high > high[i]).all(1))
        for j in around[np.argsort(volume[around])]:
            if surface(j).inside(mesh.vertices[np.unique(mesh.triangles[part == i])]).all():
                cavity[i] = cavity[j] ^ whole[i] ^ whole[j]
                break
    return cavity[part]


def _is_odd(triangles: Integers) -> np.ndarray:
    a, b, c = triangles.T
    return (a > b) ^ (b > c) ^ (a > c)


def without_small_holes(mesh: TriangleMesh, width: float = HOLE_SIZE) -> tuple[TriangleMesh, int]:
    """Fills holes up to about a width, as a fraction of the bounding box's diagonal, and returns their number.

    Loose sheets whose vertices all lie on the boundary, such as a single triangle, are not holes and stay open.
    """
    if not width or not mesh.boundary_edges:
        return mesh, 0
    import open3d

    rims = boundary_parts(mesh)
    tensor = open3d.t.geometry.TriangleMesh(
        open3d.core.Tensor.from_numpy((mesh.vertices - mesh.bounds.mean(0)).astype(np.float32)),
        open3d.core.Tensor.from_numpy(mesh.triangles.astype(np.int32)),
    )
    filled = tensor.fill_holes(hole_size=width * mesh.diagonal)
    triangles, count = filled.triangle.indices.numpy().astype(np.int64), len(mesh.triangles)
    if len(filled.vertex.positions) != len(mesh.vertices) or not np.array_equal(triangles[:count], mesh.triangles):
        return mesh, 0
    # New triangles come last. They run along the boundary like their neighbours, so they must be flipped.
    new = triangles[count:, ::-1]
    whole = np.concatenate([mesh.triangles, new[~_of_sheets(mesh, rims)[new].any(1)]])
    closed = TriangleMesh(mesh.vertices, whole, mesh.colors)
    return closed, len(rims) - len(boundary_parts(closed))


def _of_sheets(mesh: TriangleMesh, rims: list[Integers]) -> NDArray[np.bool_]:
    """Returns which vertices (V,) belong to connected parts whose vertices all lie on one boundary."""
    number = np.zeros(len(mesh.vertices), dtype=np.int64)
    number[mesh.triangles] = mesh.components[:, None]
    size, sheet = np.bincount(number), np.zeros(number.max() + 1, dtype=bool)
    for rim in rims:
        sheet[number[rim[0]]] = len(rim) == size[number[rim[0]]]
    return sheet[number]


def boundary_parts(mesh: TriangleMesh) -> list[Integers]:
    """Returns the vertices of each connected part of the boundary."""
    import trimesh

    edges, counts = mesh.edges()
    return [np.asarray(part) for part in trimesh.graph.connected_components(edges[counts == 1])]


def without_floaters(mesh: TriangleMesh, *, smallest: float = 0.01, most: int | None = None) -> TriangleMesh:
    """Removes small connected parts.

    Args:
        mesh: The mesh.
        smallest: Minimum diagonal of a part's bounding box, as a fraction of the largest one, in [0, 1].
        most: Maximum number of parts, the largest first.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 <= smallest <= 1:
        raise ValueError(f"smallest must be between 0 and 1, got {smallest}")
    if most is not None and most < 1:
        raise ValueError(f"most must be >= 1, got {most}")
    if not len(mesh.triangles):
        return mesh
    low, high = mesh.boxes(mesh.components)
    size = np.linalg.norm(high - low, axis=-1)
    kept = size >= smallest * size.max()
    if most is not None:
        kept[most:] = False
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[kept[mesh.components]], mesh.colors))


def without_unseen(mesh: TriangleMesh, origins: Floats, directions: Floats) -> TriangleMesh:
    """Removes connected parts that no ray (N, 3) hits first, because they are hidden inside or behind others."""
    if not len(mesh.triangles):
        return mesh
    number, met = mesh.components, Surface(mesh).first_hit(origins, directions).triangle
    seen = np.zeros(number.max() + 1, dtype=bool)
    seen[number[met[met >= 0]]] = True
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[seen[number]], mesh.colors))


def visible_part(mesh: TriangleMesh, eyes: Floats, *, detail: float = 0.01) -> TriangleMesh:
    """Returns the part of a surface that is visible from one of the eyes (N, 3), from its front side.

    Triangles are subdivided until their edges are at most `detail` times the bounding box's diagonal long. Visibility
    is tested at their centres.
    """
    from trimesh.remesh import subdivide_to_size

    divided: Any = subdivide_to_size(mesh.vertices, mesh.triangles, detail * mesh.diagonal, max_iter=30)
    fine = TriangleMesh(*divided)
    surface, middles, seen = Surface(mesh), fine.corners.mean(1), np.zeros(len(fine.triangles), dtype=bool)
    for eye in eyes:
        facing = ((eye - middles) * fine.normals).sum(-1) > 0
        left = np.flatnonzero(facing & ~seen)
        reached = surface.first_hit(np.broadcast_to(eye, (len(left), 3)), middles[left] - eye).distance
        seen[left] = reached > 1.0 - 1e-4  # as a fraction of the way to the centre
    return weld(TriangleMesh(fine.vertices, fine.triangles[seen]))


def within_hull(mesh: TriangleMesh, points: Floats) -> TriangleMesh:
    """Returns the triangles whose vertices all lie in the convex hull of points (N, 3).

    Raises:
        ValueError: If the points lie in a plane.
    """
    import open3d

    if len(points) < 4 or np.linalg.matrix_rank(points - points.mean(0), tol=1e-6 * np.ptp(points)) < 3:
        raise ValueError(f"a convex hull needs points that do not lie in a plane, got {len(points)} points in a plane")
    hull, _ = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points)).compute_convex_hull()
    outline = TriangleMesh(np.asarray(hull.vertices), np.asarray(hull.triangles, dtype=np.int64))
    within = Surface(outline).inside(mesh.vertices)
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[within[mesh.triangles].all(1)], mesh.colors))


def cropped(mesh: TriangleMesh, box: Floats) -> TriangleMesh:
    """Returns the triangles whose vertices all lie in a box (2, 3)."""
    within = ((mesh.vertices >= box[0]) & (mesh.vertices <= box[1])).all(1)
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[within[mesh.triangles].all(1)], mesh.colors))


def clamped(mesh: TriangleMesh, box: Floats) -> TriangleMesh:
    """Returns the mesh with vertices outside of a box (2, 3) moved onto its faces."""
    return TriangleMesh(mesh.vertices.clip(*box), mesh.triangles, mesh.colors)


def decimated(mesh: TriangleMesh, triangles: int) -> TriangleMesh:
    """Decimates a mesh to about that many triangles by quadric errors (Garland and Heckbert 1997).

    Each vertex gets the colour of the nearest original vertex.

    Raises:
        ValueError: If `triangles` is not positive.
    """
    if triangles < 1:
        raise ValueError(f"triangles must be >= 1, got {triangles}")
    if len(mesh.triangles) <= triangles:
        return mesh
    from fast_simplification import simplify
    from scipy.spatial import KDTree

    # The error limits assume a mesh of unit size. Low limits give better meshes, but may not reach the target.
    middle, size = mesh.bounds.mean(0), mesh.diagonal
    vertices, found = (mesh.vertices - middle) / size, mesh.triangles
    for aggression in (3.0, 5.0, 7.0, 10.0):
        if len(found) > triangles:
            simpler = simplify(vertices, found.astype(np.int32), target_count=triangles, agg=aggression)
            vertices, found = simpler[0], simpler[1].astype(np.int64)
    vertices = vertices * size + middle
    colors = None if mesh.colors is None else mesh.colors[KDTree(mesh.vertices).query(vertices)[1]]
    return weld(TriangleMesh(vertices, found, colors))
