"""Sparse points in PLY files, and which photo sees which of them."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import CaptureError, SparsePoints
from staf_nerf.captures.files import check_content


def read_ply(path: Path) -> tuple[SparsePoints | None, str | None]:
    """Returns the points of a PLY file, or None and a sentence that says why there are none.

    A capture can be used without them, so a damaged file is no error.
    """
    try:
        check_content(path)
        return _read(path), None
    except ModuleNotFoundError:
        return None, f"The sparse points in {path.name} are not used: trimesh is not installed."
    except CaptureError as error:
        return None, f"There are no sparse points: {error}."
    except Exception as error:  # a damaged file raises errors of many kinds in trimesh
        return None, f"The sparse points in {path} cannot be read: {error}."


def with_observations(points: SparsePoints, path: Path, images: Sequence[Path]) -> SparsePoints:
    """Returns points with which photo sees which, as `staf capture` writes it, if the file is there and fits.

    Args:
        points: The points.
        path: The file `observations.npz`. It names images as the listing beside it does.
        images: The images of the listed photos. What others see is left out.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, seen = arrays["images"].tolist(), np.asarray(arrays["observations"], dtype=np.int64).reshape(-1, 2)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return points
    if not len(seen) or seen.min() < 0 or (seen.max(0) >= (len(names), len(points.positions))).any():
        return points
    places = {image: place for place, image in enumerate(images)}
    photos = np.array([places.get(path.parent / name, -1) for name in names])[seen[:, 0]]
    return dataclasses.replace(points, observations=np.stack([photos, seen[:, 1]], 1)[photos >= 0])


def _read(path: Path) -> SparsePoints:
    import trimesh

    loaded = trimesh.load(path, file_type="ply", process=False)
    positions = np.asarray(getattr(loaded, "vertices", []), dtype=np.float64).reshape(-1, 3)
    if not len(positions) or not np.isfinite(positions).all():
        raise ValueError("it has no points, or some that are not finite")
    colors = getattr(loaded, "colors", None)
    has_colors = colors is not None and len(colors) == len(positions)
    return SparsePoints(positions, np.asarray(colors)[:, :3].astype(np.uint8) if has_colors else None)
