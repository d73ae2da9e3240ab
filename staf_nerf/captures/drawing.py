"""Pictures of a capture: its cameras, sparse points and region of interest, as a PNG and as a page for a browser."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from staf_nerf.captures.capture import Photo, SparsePoints
from staf_nerf.captures.images import as_rgb, opened

SHOWN_POINTS = 20_000
"""Number of sparse points in a picture. Others are left out evenly."""
SHOWN_PHOTOS = 300
"""Number of photos of which the page holds a small copy."""
THUMBNAIL = 160
"""Longest side of these copies, in pixels."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What is drawn, in a world whose z axis points up."""

    frustums: np.ndarray
    """(N, 5, 3): of each camera its position and the corners of its image, from the top left on, clockwise."""
    names: tuple[str, ...]
    points: np.ndarray
    """(M, 3)."""
    colors: np.ndarray
    """(M, 3) uint8."""
    center: np.ndarray
    """Middle of the region of interest, (3,)."""
    radius: float
    """Radius of the region of interest."""


def scene_of(
    photos: Sequence[Photo],
    points: SparsePoints | None,
    *,
    center: Sequence[float],
    radius: float,
    upright: np.ndarray | None = None,
) -> Scene:
    """Returns what is drawn of a capture.

    Args:
        photos: The photos.
        points: Sparse points, in the world of the poses.
        center: Middle of the region of interest, in the world of the poses.
        radius: Radius of the region of interest.
        upright: Rotation (3, 3) to a world whose z axis points up. None: it does already.
    """
    turn = np.eye(3) if upright is None else np.asarray(upright, np.float64)
    middle = turn @ np.asarray(center, np.float64)
    positions = np.stack([photo.pose[:3, 3] for photo in photos]) @ turn.T
    length = 0.15 * float(np.median(np.linalg.norm(positions - middle, axis=-1)))
    frustums = np.stack([frustum(photo, length) for photo in photos]) @ turn.T
    shown = np.zeros((0, 3)) if points is None else points.positions
    every = max(-(-len(shown) // SHOWN_POINTS), 1)
    known = points is not None and points.colors is not None
    colors = np.asarray(points.colors) if points is not None and known else np.full((len(shown), 3), 110, np.uint8)
    names = tuple(photo.image.name for photo in photos)
    return Scene(frustums, names, shown[::every] @ turn.T, colors[::every], middle, float(radius))


def frustum(photo: Photo, length: float) -> np.ndarray:
    """Returns the position of a photo's camera and the corners of its image, (5, 3), in the world of the poses.

    Args:
        photo: The photo. Its distortion is left out.
        length: Distance of the image from the camera.
    """
    camera = photo.camera
    x = (np.array([0, camera.width, camera.width, 0]) - camera.cx) / camera.fx
    y = (camera.cy - np.array([0, 0, camera.height, camera.height])) / camera.fy
    corners = np.stack([x, y, -np.ones(4)], -1).clip(-2, 2) * length  # wide lenses: as wide as a picture can show
    return np.concatenate([np.zeros((1, 3)), corners]) @ photo.pose[:3, :3].T + photo.pose[:3, 3]


def draw(scene: Scene, path: Path, *, marked: frozenset[str] = frozenset()) -> None:
    """Writes a picture (PNG) from above and from the side. Cameras whose names are in `marked` are red."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=110, layout="constrained")
    low, high = _limits(scene)
    axes = figure.subplots(1, 2)
    for axis, (a, b, title) in zip(axes, ((0, 1, "from above"), (0, 2, "from the side")), strict=True):
        order = np.argsort(scene.points[:, 3 - a - b]) if a + b == 1 else np.argsort(-scene.points[:, 1])
        axis.scatter(*scene.points[order][:, [a, b]].T, s=1.5, c=scene.colors[order] / 255.0, linewidths=0)
        lines = scene.frustums[:, [0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]][:, :, [a, b]]
        colors = ["#d03030" if name in marked else "#2060c0" for name in scene.names]
        axis.add_collection(LineCollection(list(lines), colors=colors, linewidths=0.7))
        angle = np.linspace(0, 2 * np.pi, 181)
        circle = scene.center[[a, b], None] + scene.radius * np.stack([np.cos(angle), np.sin(angle)])
        axis.plot(*circle, color="#208040", linewidth=1.2, linestyle="--", label="region of interest")
        axis.set(xlim=(low[a], high[a]), ylim=(low[b], high[b]), aspect="equal", title=title)
        axis.set(xlabel="xyz"[a], ylabel="xyz"[b])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    figure.savefig(path, bbox_inches="tight")


def _limits(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Returns the corners of the box that a picture shows: all cameras and the region, and most of the points."""
    shown = [scene.frustums.reshape(-1, 3), scene.center - scene.radius, scene.center + scene.radius]
    if len(scene.points):
        shown.append(np.percentile(scene.points, (5, 95), axis=0))
    corners = np.vstack(shown)
    low, high = corners.min(0), corners.max(0)
    margin = 0.05 * float((high - low).max())
    return low - margin, high + margin


def write_page(scene: Scene, photos: Sequence[Photo], path: Path, *, title: str, marked: frozenset[str]) -> None:
    """Writes a page that shows a scene from all sides, with a small copy of the photo under the pointer.

    The page needs no network and no other file.
    """
    with ThreadPoolExecutor() as pool:
        thumbnails = list(pool.map(_thumbnail, [photo.image for photo in photos[:SHOWN_PHOTOS]]))
    content = {
        "frustums": _rounded(scene.frustums.reshape(len(scene.frustums), 15), scene.radius),
        "names": scene.names,
        "marked": [name in marked for name in scene.names],
        "thumbnails": thumbnails,
        "points": _rounded(scene.points, scene.radius),
        "colors": scene.colors.tolist(),
        "box": [corner.tolist() for corner in _limits(scene)],
        "center": scene.center.tolist(),
        "radius": scene.radius,
    }
    template = (files("staf_nerf.captures") / "cameras.html").read_text(encoding="utf-8")
    data = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    path.write_text(template.replace("{{title}}", html.escape(title)).replace("{{data}}", data), encoding="utf-8")


def _rounded(values: np.ndarray, radius: float) -> list[Any]:
    """Returns numbers with as many digits as a picture can show."""
    digits = max(4 - int(np.floor(np.log10(max(radius, 1e-12)))), 0)
    return np.round(values, digits).tolist()


def _thumbnail(path: Path) -> str:
    """Returns a small copy of a photo as text: a JPEG in base64."""
    with opened(path) as image:
        image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        small = as_rgb(image, path).convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    held = io.BytesIO()
    small.save(held, format="JPEG", quality=70)
    return base64.b64encode(held.getvalue()).decode()
