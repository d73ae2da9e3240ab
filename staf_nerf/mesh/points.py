"""Point clouds on a surface, with or without normals, read from files.

Conventions: points (N, 3) are float64 in the cloud's own units. Normals (N, 3) have unit length and point outwards, or
are zero for points without normal.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from staf_nerf.mesh.triangles import Floats

UNEVEN = 0.1
"""Largest relative difference of the lengths of normals in a text file."""
SUFFIXES = (".ply", ".xyz", ".npz")


@dataclass(frozen=True)
class PointCloud:
    """Points on a surface, with optional normals.

    Raises:
        ValueError: If an array has a wrong shape, a value is not finite, or there are fewer than 4 points.
    """

    points: Floats
    normals: Floats | None = None

    def __post_init__(self) -> None:
        for name, values in (("points", self.points), ("normals", self.normals)):
            if values is None:
                continue
            if values.shape != (len(self.points), 3):
                raise ValueError(f"{name} must have shape ({len(self.points)}, 3), got {values.shape}")
            if not np.isfinite(values).all():
                bad = int((~np.isfinite(values)).any(1).sum())
                raise ValueError(f"{name} must be finite, got {bad} of {len(values)} that are not")
        if len(self.points) < 4:
            raise ValueError(f"a surface needs at least 4 points, got {len(self.points)}")

    @cached_property
    def bounds(self) -> Floats:
        """(2, 3): smallest and largest coordinates."""
        return np.stack([self.points.min(0), self.points.max(0)])

    def lines(self) -> list[str]:
        """Returns messages for the user about missing or inward normals."""
        if self.normals is None:
            return ["no normals: the surface is fitted to the points alone"]
        messages, without = [], int((self.normals == 0).all(1).sum())
        if without:
            messages.append(f"{without} of {len(self.points)} points have no normal")
        if ((self.points - self.bounds.mean(0)) * self.normals).sum(-1).mean() < 0:  # outward if positive
            messages.append("warning: most normals point inwards, as in a room; flip them if the shape is not a room")
        return messages


def read_points(path: Path) -> PointCloud:
    """Reads a point cloud from PLY, XYZ (lines "x y z" or "x y z nx ny nz") or NPZ (arrays "points" and "normals").

    Normals are normalised to unit length, except for zero ones.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file cannot be read as a point cloud.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    reader = {".ply": _read_ply, ".xyz": _read_xyz, ".npz": _read_npz}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"the suffix of a point cloud must be one of {', '.join(SUFFIXES)}, got {path.name}")
    try:
        points, normals = reader(path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read points from {path}: {error}") from error
    if normals is not None:
        lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0) if lengths.any() else None
    return PointCloud(np.asarray(points, dtype=np.float64), normals)


def _read_ply(path: Path) -> tuple[Floats, Floats | None]:
    import open3d

    with path.open("rb") as file:
        if file.read(3) != b"ply":
            raise ValueError("it is not a PLY file")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):  # reported by the error below
        cloud = open3d.io.read_point_cloud(path)
    if not len(cloud.points):
        raise ValueError("it contains no points")
    return np.asarray(cloud.points), np.asarray(cloud.normals) if cloud.has_normals() else None


def _read_xyz(path: Path) -> tuple[Floats, Floats | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an empty file, reported by the error below
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if not rows.size:
        raise ValueError("it contains no points")
    if rows.shape[1] not in (3, 6):
        raise ValueError(f"its rows must have 3 or 6 numbers, got {rows.shape[1]}")
    if rows.shape[1] == 3:
        return rows, None
    lengths = np.linalg.norm(rows[:, 3:], axis=-1)
    if lengths.max() > (1 + UNEVEN) * lengths[lengths > 0].min(initial=np.inf):
        raise ValueError("the last three of its six columns must be normals of equal length, are they colours?")
    return rows[:, :3], rows[:, 3:]


def _read_npz(path: Path) -> tuple[Floats, Floats | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise ValueError(f"it must contain an array 'points', got {sorted(arrays)}")
        points, normals = (np.asarray(arrays[k], np.float64) if k in arrays else None for k in ("points", "normals"))
    assert points is not None
    return points, normals
