"""Metrics of fitted shapes, compared with the mesh or point cloud that they were fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from staf_nerf.config import ShapeConfig
from staf_nerf.mesh.compare import compare
from staf_nerf.mesh.points import PointCloud
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import TriangleMesh
from staf_nerf.signals.sampling import CHUNK, in_chunks
from staf_nerf.signals.shape import Cells, Frame, known_everywhere, level, value_and_gradient

PAPER_GRID = 512
"""Number of points along an axis of the grid on which the paper evaluates occupancy."""
STRAY_PART, STRAY_SPACINGS = 0.02, 4.0
"""A point of the surface is stray if its distance from the cloud exceeds both this fraction of the diagonal and
this many times the usual distance between neighbouring points."""


def measure_shape(
    field: nn.Module,
    config: ShapeConfig,
    frame: Frame,
    mesh: TriangleMesh,
    reference: TriangleMesh,
    *,
    points: int = 200_000,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Compares a fitted field, and the mesh extracted from it, with the mesh that it was fitted to.

    Args:
        field: The field.
        config: The configuration of the field.
        frame: The coordinate frame of the field.
        mesh: The surface of the field, in the reference's coordinates.
        reference: The mesh that the field was fitted to.
        points: Number of points on each surface, and in space.
        seed: Random seed of the points.
        progress: Called with the fraction done of an evaluation on a grid.

    Returns:
        The entries of `staf_nerf.mesh.compare.Comparison`, and "field_iou": the intersection over union of the insides
        of field and reference, at points in the reference's box enlarged by 10 % (None if the reference has no inside).
        For a signed distance also "eikonal_error", the mean of ``|‖∇f‖ - 1|`` over these points, and "distance_error",
        the mean of ``|f - d|`` at points near the surface.
        For occupancy also "squared_error" and "grid_iou", over all cells of the training grid (the paper's protocol) or
        else over `points` random points of a grid of 512³ in the cube.
    """
    known = known_everywhere(field, config, frame)
    metrics: dict[str, Any] = asdict(compare(mesh, reference, points=points, seed=seed))
    surface, random = Surface(reference), np.random.default_rng(seed)
    middle, half = reference.bounds.mean(0), 0.55 * np.ptp(reference.bounds, axis=0)
    query = middle + half * random.uniform(-1.0, 1.0, (points, 3))
    metrics["field_iou"] = _iou(_inside(known, config, frame.normalize(query)), surface.inside(query))
    if config.quantity == "occupancy":
        if config.grid:
            return metrics | measure_cells(field, config, frame, surface, progress=progress)
        drawn = Cells.of(Frame((0.0, 0.0, 0.0), 1.0), PAPER_GRID).draw(points, random)
        return metrics | _measure_layers(known, config, frame, surface, [drawn], 1, progress)
    metrics["eikonal_error"] = _eikonal_error(field, frame.normalize(query))
    near = reference.sample(points, random)[0] + 0.01 * reference.diagonal * random.standard_normal((points, 3))
    error = _values(known, frame.normalize(near)) * frame.scale - surface.signed_distance(near)
    metrics["distance_error"] = float(np.abs(error).mean())
    return metrics


def measure_cells(
    field: nn.Module,
    config: ShapeConfig,
    frame: Frame,
    surface: Surface,
    *,
    progress: Callable[[float], None] | None = None,
) -> dict[str, float | None]:
    """Returns "grid_iou" and "squared_error" of an occupancy over all cells of its training grid."""
    cells = Cells.of(frame, config.grid)
    return _measure_layers(field, config, frame, surface, cells.layers(), int(cells.counts[0]), progress)


def _measure_layers(
    field: nn.Module,
    config: ShapeConfig,
    frame: Frame,
    surface: Surface,
    layers: Iterable[np.ndarray],
    count: int,
    progress: Callable[[float], None] | None,
) -> dict[str, float | None]:
    """Returns metrics of an occupancy at cell centres, which are given in layers (N, 3)."""
    surface_value, _ = level(config)
    intersection = union = occupied = cells = 0
    squared_error = 0.0
    for done, centers in enumerate(layers, 1):
        truth, values = surface.inside(frame.denormalize(centers)), _values(field, centers)
        predicted = values > surface_value
        intersection += int((truth & predicted).sum())
        union += int((truth | predicted).sum())
        occupied += int(truth.sum())
        squared_error += float(((values - truth) ** 2).sum())
        cells += len(centers)
        if progress is not None:
            progress(done / count)
    return {"grid_iou": intersection / union if occupied else None, "squared_error": squared_error / cells}


def measure_points(
    field: nn.Module, frame: Frame, mesh: TriangleMesh, cloud: PointCloud, *, seed: int = 0
) -> dict[str, Any]:
    """Compares a fitted surface with the point cloud that it was fitted to.

    Returns:
        "mean_distance" and "largest_distance" from the points to the surface, in the cloud's units.
        "surface_distance", the mean distance from points on the surface to the nearest point of the cloud.
        "stray_part", the fraction of these points that are further away than 2 % of the diagonal and than four times
        the usual distance between neighbours.
        "normal_agreement", the mean of n(p) · n(nearest point of the surface), None without normals.
        "diagonal", the diagonal of the cloud's bounding box.
        "eikonal_error", the mean of ``|‖∇f‖ - 1|`` over points in the box.
    """
    from scipy.spatial import KDTree

    nearest, triangle = Surface(mesh).closest(cloud.points)
    distance = np.linalg.norm(cloud.points - nearest, axis=-1)
    agreement = None
    if cloud.normals is not None:
        known = cloud.normals.any(1)
        agreement = float((cloud.normals * mesh.normals[triangle])[known].sum(-1).mean())
    low, high = cloud.bounds
    random, diagonal = np.random.default_rng(seed), float(np.linalg.norm(high - low))
    query = low + (high - low) * random.random((CHUNK, 3))
    tree = KDTree(cloud.points)
    spacing = float(np.median(tree.query(cloud.points, k=2)[0][:, 1]))
    to_cloud = np.asarray(tree.query(mesh.sample(CHUNK, random)[0])[0])
    return {
        "mean_distance": float(distance.mean()),
        "largest_distance": float(distance.max()),
        "surface_distance": float(to_cloud.mean()),
        "stray_part": float((to_cloud > max(STRAY_PART * diagonal, STRAY_SPACINGS * spacing)).mean()),
        "normal_agreement": agreement,
        "diagonal": diagonal,
        "eikonal_error": _eikonal_error(field, frame.normalize(query)),
    }


def _iou(predicted: np.ndarray, truth: np.ndarray) -> float | None:
    """Returns the intersection over union, or None if the truth has no inside."""
    return float((predicted & truth).sum() / (predicted | truth).sum()) if truth.any() else None


def _inside(field: nn.Module, config: ShapeConfig, x: np.ndarray) -> np.ndarray:
    surface_value, side = level(config)
    values = _values(field, x)
    return values < surface_value if side == "below" else values > surface_value


def _values(field: nn.Module, x: np.ndarray) -> np.ndarray:
    like = next(field.parameters())
    return in_chunks(field, torch.from_numpy(x).to(like))[:, 0].cpu().double().numpy()


def _eikonal_error(field: nn.Module, x: np.ndarray) -> float:
    like, total = next(field.parameters()), 0.0
    for chunk in torch.from_numpy(x).to(like).split(CHUNK):
        _, gradient = value_and_gradient(field, chunk)
        total += float((gradient.detach().norm(dim=-1) - 1.0).abs().sum())
    return total / len(x)
