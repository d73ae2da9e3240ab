"""Sparse points in PLY files."""

from __future__ import annotations

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


def _read(path: Path) -> SparsePoints:
    import trimesh

    loaded = trimesh.load(path, file_type="ply", process=False)
    positions = np.asarray(getattr(loaded, "vertices", []), dtype=np.float64).reshape(-1, 3)
    if not len(positions) or not np.isfinite(positions).all():
        raise ValueError("it has no points, or some that are not finite")
    colors = getattr(loaded, "colors", None)
    has_colors = colors is not None and len(colors) == len(positions)
    return SparsePoints(positions, np.asarray(colors)[:, :3].astype(np.uint8) if has_colors else None)
