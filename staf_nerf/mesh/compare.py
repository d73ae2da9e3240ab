"""Distances between two surfaces.

Let p be uniform points on A, q uniform points on B, d(p, B) the distance from p to the nearest point of B, and n the
normals::

    chamfer_l1          mean d(p, B) + mean d(q, A); `chamfer_l1_parts` are the two terms
    chamfer_squared     mean d(p, B)² + mean d(q, A)²; `chamfer_squared_parts` are the two terms
    f_score(r)          2PR / (P + R), P = fraction of p with d(p, B) < r, R = fraction of q with d(q, A) < r
    normal_consistency  mean of |n(p) · n(nearest of B)| and of |n(q) · n(nearest of A)|, averaged
    iou                 volume of A ∩ B / volume of A ∪ B, by points in the bounding box of both

Distances are to surfaces and not to samples of them, so that they do not depend on the density of samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, TriangleMesh

THRESHOLDS = (0.005, 0.01)
"""Radii of the F-scores, as fractions of the diagonal of the reference's bounding box."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of a mesh with a reference, in the reference's units; see the module for the formulas."""

    chamfer_l1: float
    chamfer_l1_parts: tuple[float, float]
    """From the mesh to the reference, and back."""
    chamfer_squared: float
    chamfer_squared_parts: tuple[float, float]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f_score: tuple[float, ...]
    """F-scores at the radii of `thresholds`."""
    thresholds: tuple[float, ...]
    normal_consistency: float
    iou: float | None
    """None if one of the surfaces is not closed."""
    diagonal: float
    """Diagonal of the reference's bounding box."""


def compare(
    mesh: TriangleMesh,
    reference: TriangleMesh,
    *,
    points: int = 200_000,
    thresholds: tuple[float, ...] = THRESHOLDS,
    seed: int = 0,
) -> Comparison:
    """Compares a mesh with a reference.

    Args:
        mesh: The mesh, A.
        reference: The reference, B.
        points: Number of points on each surface, and in the box for the volumes.
        thresholds: Radii of the F-scores, as fractions of the diagonal of the reference's bounding box.
        seed: Random seed of the points.

    Raises:
        ValueError: If a mesh has no area.
    """
    generator = np.random.default_rng(seed)
    surface, reference_surface = Surface(mesh), Surface(reference)
    forward, forward_agreement = _distances(mesh, reference, reference_surface, points, generator)
    backward, backward_agreement = _distances(reference, mesh, surface, points, generator)
    radii = [t * reference.diagonal for t in thresholds]
    precision = tuple(float((forward < r).mean()) for r in radii)
    recall = tuple(float((backward < r).mean()) for r in radii)
    corners = np.concatenate([mesh.bounds, reference.bounds])
    box = np.stack([corners.min(0), corners.max(0)])
    closed = mesh.boundary_edges == 0 and reference.boundary_edges == 0
    lengths = float(forward.mean()), float(backward.mean())
    squares = float((forward**2).mean()), float((backward**2).mean())
    return Comparison(
        chamfer_l1=sum(lengths),
        chamfer_l1_parts=lengths,
        chamfer_squared=sum(squares),
        chamfer_squared_parts=squares,
        precision=precision,
        recall=recall,
        f_score=tuple(2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)),
        thresholds=thresholds,
        normal_consistency=float((forward_agreement.mean() + backward_agreement.mean()) / 2),
        iou=_intersection_over_union(surface, reference_surface, box, points, generator) if closed else None,
        diagonal=reference.diagonal,
    )


def align(mesh: TriangleMesh, reference: TriangleMesh, *, points: int = 50_000, seed: int = 0) -> TriangleMesh:
    """Aligns a mesh rigidly with a reference by Open3D's iterative closest point algorithm (point to plane).

    The result is a local optimum. The two must be aligned roughly already, within a tenth of the box's diagonal.

    Raises:
        ValueError: If a mesh has no area, or no points of the two are that close.
    """
    import open3d

    generator = np.random.default_rng(seed)
    center = reference.bounds.mean(0)  # rotations are about the origin, so move it to the reference
    clouds = []
    for surface in (mesh, reference):
        samples, index = surface.sample(points, generator)
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(samples - center))
        cloud.normals = open3d.utility.Vector3dVector(surface.normals[index])
        clouds.append(cloud)
    transformation = np.eye(4)
    for reach in (0.1, 0.02):  # coarse, then fine
        result = open3d.pipelines.registration.registration_icp(
            *clouds,
            reach * reference.diagonal,
            transformation,
            open3d.pipelines.registration.TransformationEstimationPointToPlane(),
            open3d.pipelines.registration.ICPConvergenceCriteria(1e-9, 1e-9, 100),
        )
        if not len(result.correspondence_set):
            raise ValueError(
                f"alignment needs meshes within {reach:g} of the reference's diagonal of each other "
                f"({reach * reference.diagonal:.4g}), got no points that close: align them roughly first"
            )
        transformation = result.transformation
    aligned = (mesh.vertices - center) @ transformation[:3, :3].T + transformation[:3, 3]
    return TriangleMesh(aligned + center, mesh.triangles, mesh.colors)


def _distances(
    source: TriangleMesh, target: TriangleMesh, surface: Surface, points: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Returns distances (points,) from one surface to another, and the agreement of normals in [0, 1]."""
    samples, index = source.sample(points, generator)
    nearest, triangle = surface.closest(samples)
    agreement = np.abs((source.normals[index] * target.normals[triangle]).sum(-1))
    return np.linalg.norm(samples - nearest, axis=-1), agreement


def _intersection_over_union(
    mesh: Surface, reference: Surface, box: Floats, points: int, generator: np.random.Generator
) -> float:
    """Returns the intersection over union of two volumes, by random points in a box (2, 3) around both."""
    query = box[0] + (box[1] - box[0]) * generator.random((points, 3))
    a, b = mesh.inside(query), reference.inside(query)
    return float((a & b).sum() / max((a | b).sum(), 1))
