"""Sparse points in PLY files, and which photo sees which of them."""

from __future__ import annotations

import dataclasses
import zipfile
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


def with_observations(points: SparsePoints, path: Path, photos: int) -> SparsePoints:
    """Returns points with which photo sees which, as `staf capture` writes it, if the file is there and fits.

    Args:
        points: The points.
        path: The file `observations.npz`.
        photos: Number of listed photos.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            seen = np.asarray(arrays["observations"], dtype=np.int64).reshape(-1, 2)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return points
    fits = len(seen) > 0 and seen.min() >= 0 and (seen.max(0) < (photos, len(points.positions))).all()
    return dataclasses.replace(points, observations=seen) if fits else points


def _read(path: Path) -> SparsePoints:
    import trimesh

    loaded = trimesh.load(path, file_type="ply", process=False)
    positions = np.asarray(getattr(loaded, "vertices", []), dtype=np.float64).reshape(-1, 3)
    if not len(positions) or not np.isfinite(positions).all():
        raise ValueError("it has no points, or some that are not finite")
    colors = getattr(loaded, "colors", None)
    has_colors = colors is not None and len(colors) == len(positions)
    return SparsePoints(positions, np.asarray(colors)[:, :3].astype(np.uint8) if has_colors else None)
