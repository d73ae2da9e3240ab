"""Draws cameras and sparse points from two sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.sfm.process import Model

POINTS = 20_000
"""The most points that are drawn."""
SIDES = (("from above", 0, 1), ("from the side", 0, 2))
"""Title of each view, and the world's axes that point right and up in it."""


def draw_cameras(model: Model, path: Path) -> None:
    """Draws the model from above and from the side, as PNG: points in their colours, cameras as red triangles."""
    centers = model.poses[:, :3, 3]
    step = max(len(model.positions) // POINTS, 1)
    points, colors = model.positions[::step], model.colors[::step] / 255.0
    low, high = _shown(points, centers)
    figure, axes = new_figure(1, 2, (12.0, 6.0))
    for axis, (title, right, up) in zip(axes.flat, SIDES, strict=True):
        axis.scatter(points[:, right], points[:, up], s=1.0, c=colors, linewidths=0)
        _draw_frusta(axis, model.poses, right, up, 0.04 * float(np.linalg.norm(high - low)))
        axis.set(title=title, xlabel="xyz"[right], ylabel="xyz"[up], aspect="equal")
        axis.set(xlim=(low[right], high[right]), ylim=(low[up], high[up]))
    save_figure(figure, path)


def _shown(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the box that is drawn: all cameras, and the points without the farthest."""
    kept = np.percentile(points, [2, 98], axis=0) if len(points) else centers
    both = np.concatenate([kept, centers])
    margin = 0.05 * np.ptp(both, axis=0).max()
    return both.min(0) - margin, both.max(0) + margin


def _draw_frusta(axis: Any, poses: np.ndarray, right: int, up: int, size: float) -> None:
    """Draws each camera as a triangle that opens to where it looks, and the first in another colour."""
    for number, pose in enumerate(poses):
        tip, ahead = pose[:3, 3], -pose[:3, 2] * size
        side = pose[:3, 0] * size / 2
        corners = np.stack([tip, tip + ahead + side, tip + ahead - side, tip])
        axis.plot(corners[:, right], corners[:, up], color="tab:blue" if number == 0 else "tab:red", lw=0.8, ls="-")
