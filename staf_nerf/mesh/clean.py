"""Repairs of meshes that come from elsewhere, and cleaning of meshes that were extracted."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, Integers, TriangleMesh, weld

HOLE_SIZE = 0.05
"""Holes up to about this wide are filled, in parts of the box's diagonal."""
SEAM_WIDTH, SEAM_PART = 1e-5, 0.1
"""Vertices of a rim are one if they are nearer to each other than this part of the box's diagonal, and than that
part of the shortest edge there."""


@dataclass(frozen=True)
class Repairs:
    """What was wrong with a mesh and could be put right; and what could not."""

    repeated_vertices: int
    """At the place of another one."""
    joined_vertices: int
    """Along rims, at the place of another one but for rounding."""
    dropped_triangles: int
    """Without area, or there twice."""
    flipped_triangles: int
    """That faced inwards."""
    filled_holes: int
    boundary_edges: int
    """That are left."""
    shared_edges: int
    """Of four triangles or more, as where two boxes touch."""
    closed_parts: int

    def lines(self) -> list[str]:
        """What a user should know, a sentence each."""
        found = []
        if self.repeated_vertices:
            found.append(f"made one of vertices at the same place: {self.repeated_vertices} fewer")
        if self.joined_vertices:
            found.append(f"closed seams between vertices that differed by rounding: {self.joined_vertices} fewer")
        if self.dropped_triangles:
            found.append(f"dropped {self.dropped_triangles} triangles without area or there twice")
        if self.flipped_triangles:
            found.append(f"turned {self.flipped_triangles} triangles that faced inwards")
        if self.filled_holes:
            found.append(f"filled {self.filled_holes} small holes")
        if self.boundary_edges:
            way = "how often it is wound around" if self.closed_parts else "a vote of rays"
            found.append(
                f"warning: the mesh is open, with {self.boundary_edges} boundary edges: what is inside is decided by "
                f"{way}"
            )
        if self.shared_edges:
            found.append(f"{self.shared_edges} edges belong to more than two triangles")
        if self.closed_parts > 1:
            found.append(f"{self.closed_parts} closed parts: inside is what any of them encloses, but for cavities")
        return found


def repair(mesh: TriangleMesh) -> tuple[TriangleMesh, Repairs]:
    """Joins vertices at one place, drops triangles that are none, fills small holes, and turns all to face outwards.

    Raises:
        ValueError: If nothing with an area is left.
    """
    welded = weld(mesh)
    whole = _without_seams(welded)
    sound = _without_useless(whole)
    if not len(sound.triangles):
        raise ValueError(f"a mesh needs triangles with an area, got {len(mesh.triangles)} triangles and none that has")
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
    """Makes one of vertices that lie on rims and differ by rounding alone."""
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
    vertices[rim] = vertices[rim[np.unique(label, return_index=True)[1]]][label]  # the place of the first of them
    return weld(TriangleMesh(vertices, mesh.triangles, mesh.colors))


def _without_useless(mesh: TriangleMesh) -> TriangleMesh:
    """Without triangles that have no area, or are there twice; of walls between two parts, both sides go."""
    solid = mesh.triangles[mesh.areas > 0]
    _, group = np.unique(np.sort(solid, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    odd = _is_odd(solid)
    # One of each place and side; then those with two sides.
    _, first = np.unique(2 * group + odd, return_index=True)
    solid, group = solid[first], group[first]
    two_sided = np.bincount(group)[group] == 2
    once = np.zeros(len(solid), dtype=bool)
    once[np.unique(group, return_index=True)[1]] = True
    walls = two_sided & _touch(TriangleMesh(mesh.vertices, solid), two_sided)
    return weld(TriangleMesh(mesh.vertices, solid[once & ~walls], mesh.colors))


def _touch(mesh: TriangleMesh, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each of the triangles that were chosen hangs together, by edges of them, with others."""
    if not chosen.any() or chosen.all():
        return np.zeros(len(chosen), dtype=bool)
    part = TriangleMesh(mesh.vertices, mesh.triangles[chosen])
    of_others = np.zeros(len(mesh.vertices), dtype=bool)
    of_others[mesh.triangles[~chosen]] = True
    found = np.zeros(len(chosen), dtype=bool)
    shared = of_others[part.triangles].sum(1) >= 2  # an edge of it may be another's too
    found[chosen] = (np.bincount(part.components, shared) > 0)[part.components]
    return found


def _facing_outwards(mesh: TriangleMesh) -> tuple[TriangleMesh, int]:
    """Neighbours agree, and each closed part faces outwards, but for cavities; and how many triangles were turned.

    A part that lies within another is a cavity of it if the two faced different ways.
    """
    import trimesh

    found = trimesh.Trimesh(mesh.vertices, mesh.triangles.copy(), process=False)  # it changes them in place
    trimesh.repair.fix_normals(found, multibody=True)
    triangles = np.asarray(found.faces, dtype=np.int64)
    turned = _is_odd(mesh.triangles) != _is_odd(triangles)
    cavity = _cavities(TriangleMesh(mesh.vertices, triangles), found.face_adjacency, turned)
    triangles[cavity] = triangles[cavity, ::-1]
    result = TriangleMesh(mesh.vertices, triangles, mesh.colors)
    return result, int((_is_odd(mesh.triangles) != _is_odd(triangles)).sum())


def _cavities(mesh: TriangleMesh, neighbours: Integers, turned: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which triangles (T,) of parts that all face outwards are cavities': of a part that faced another way than what is
    around it, before some were turned."""
    import trimesh

    count = len(mesh.triangles)
    part = trimesh.graph.connected_component_labels(neighbours, node_count=count)
    whole = np.bincount(part, turned) == np.bincount(part)
    closed = np.bincount(part, np.bincount(neighbours.reshape(-1), minlength=count) == 3) == np.bincount(part)
    a, b, c = (mesh.corners - mesh.bounds[0]).swapaxes(0, 1)
    volume = np.abs(np.bincount(part, (a * np.cross(b, c)).sum(-1)))
    low, high = mesh.boxes(part)
    cavity = np.zeros(len(closed), dtype=bool)

    @functools.lru_cache(16)  # one may be around many; and of a thousand ray tracers Open3D holds no more
    def surface(j: int) -> Surface:
        return Surface(weld(TriangleMesh(mesh.vertices, mesh.triangles[part == j])))

    for i in np.argsort(-volume, kind="stable"):  # what is around a part comes before it
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
    """Fills holes up to about that wide, in parts of the box's diagonal; and says how many.

    A loose sheet all of whose vertices lie on its rim, such as a triangle alone, has no hole: it stays open.
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
    # What is new comes last, and runs along the rim as its neighbours do: it faces the other way.
    new = triangles[count:, ::-1]
    whole = np.concatenate([mesh.triangles, new[~_of_sheets(mesh, rims)[new].any(1)]])
    closed = TriangleMesh(mesh.vertices, whole, mesh.colors)
    return closed, len(rims) - len(boundary_parts(closed))


def _of_sheets(mesh: TriangleMesh, rims: list[Integers]) -> NDArray[np.bool_]:
    """The vertices (V,) of connected parts that have no others than those of one rim."""
    number = np.zeros(len(mesh.vertices), dtype=np.int64)
    number[mesh.triangles] = mesh.components[:, None]
    size, sheet = np.bincount(number), np.zeros(number.max() + 1, dtype=bool)
    for rim in rims:
        sheet[number[rim[0]]] = len(rim) == size[number[rim[0]]]
    return sheet[number]


def boundary_parts(mesh: TriangleMesh) -> list[Integers]:
    """The vertices of each connected part of the boundary."""
    import trimesh

    edges, counts = mesh.edges()
    return [np.asarray(part) for part in trimesh.graph.connected_components(edges[counts == 1])]


def without_floaters(mesh: TriangleMesh, *, smallest: float = 0.01, most: int | None = None) -> TriangleMesh:
    """Leaves out connected parts whose box's diagonal is less than `smallest` of the largest part's, or beyond `most`.

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
    """Leaves out connected parts that none of the rays (N, 3) meets first: they hide in or behind others."""
    if not len(mesh.triangles):
        return mesh
    number, met = mesh.components, Surface(mesh).first_hit(origins, directions).triangle
    seen = np.zeros(number.max() + 1, dtype=bool)
    seen[number[met[met >= 0]]] = True
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[seen[number]], mesh.colors))


def visible_part(mesh: TriangleMesh, eyes: Floats, *, detail: float = 0.01) -> TriangleMesh:
    """What of a surface one of the eyes (N, 3) sees from its front: of two parts that overlap, the outside.

    Triangles are divided until their edges are at most `detail` of the box's diagonal long, and judged by the middle.
    """
    from trimesh.remesh import subdivide_to_size

    divided: Any = subdivide_to_size(mesh.vertices, mesh.triangles, detail * mesh.diagonal, max_iter=30)
    fine = TriangleMesh(*divided)
    surface, middles, seen = Surface(mesh), fine.corners.mean(1), np.zeros(len(fine.triangles), dtype=bool)
    for eye in eyes:
        facing = ((eye - middles) * fine.normals).sum(-1) > 0
        left = np.flatnonzero(facing & ~seen)
        reached = surface.first_hit(np.broadcast_to(eye, (len(left), 3)), middles[left] - eye).distance
        seen[left] = reached > 1.0 - 1e-4  # of the way to the middle
    return weld(TriangleMesh(fine.vertices, fine.triangles[seen]))


def within_hull(mesh: TriangleMesh, points: Floats) -> TriangleMesh:
    """The triangles whose corners all lie in the convex hull of points (N, 3).

    Raises:
        ValueError: If the points lie in a plane.
    """
    import open3d

    if len(points) < 4 or np.linalg.matrix_rank(points - points.mean(0), tol=1e-6 * np.ptp(points)) < 3:
        raise ValueError(f"a hull needs points that do not lie in a plane, got {len(points)} points")
    hull, _ = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points)).compute_convex_hull()
    outline = TriangleMesh(np.asarray(hull.vertices), np.asarray(hull.triangles, dtype=np.int64))
    within = Surface(outline).inside(mesh.vertices)
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[within[mesh.triangles].all(1)], mesh.colors))


def cropped(mesh: TriangleMesh, box: Floats) -> TriangleMesh:
    """The triangles whose corners all lie in a box (2, 3)."""
    within = ((mesh.vertices >= box[0]) & (mesh.vertices <= box[1])).all(1)
    return weld(TriangleMesh(mesh.vertices, mesh.triangles[within[mesh.triangles].all(1)], mesh.colors))


def clamped(mesh: TriangleMesh, box: Floats) -> TriangleMesh:
    """The mesh with vertices outside of a box (2, 3) moved to its side."""
    return TriangleMesh(mesh.vertices.clip(*box), mesh.triangles, mesh.colors)


def decimated(mesh: TriangleMesh, triangles: int) -> TriangleMesh:
    """About that many triangles, or all where there are no more: by quadric errors (Garland and Heckbert 1997).

    A colour is that of the nearest vertex that there was.

    Raises:
        ValueError: If `triangles` is not positive.
    """
    if triangles < 1:
        raise ValueError(f"triangles must be >= 1, got {triangles}")
    if len(mesh.triangles) <= triangles:
        return mesh
    from fast_simplification import simplify
    from scipy.spatial import KDTree

    # Its errors are those of a mesh of unit size: allowing less of them is better, but may not reach the target.
    middle, size = mesh.bounds.mean(0), mesh.diagonal
    vertices, found = (mesh.vertices - middle) / size, mesh.triangles
    for aggression in (3.0, 5.0, 7.0, 10.0):
        if len(found) > triangles:
            simpler = simplify(vertices, found.astype(np.int32), target_count=triangles, agg=aggression)
            vertices, found = simpler[0], simpler[1].astype(np.int64)
    vertices = vertices * size + middle
    colors = None if mesh.colors is None else mesh.colors[KDTree(mesh.vertices).query(vertices)[1]]
    return weld(TriangleMesh(vertices, found, colors))
