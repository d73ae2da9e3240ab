"""Clouds of points on a surface, with or without normals, read from files.

Conventions: points (N, 3) float64 in the cloud's own units; normals (N, 3) of unit length, pointing outwards,
or zero where a point has none.
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
"""By how much the lengths of what a text file says to be normals may differ."""
SUFFIXES = (".ply", ".xyz", ".npz")


@dataclass(frozen=True)
class PointCloud:
    """Points of a surface.

    Raises:
        ValueError: If a shape is wrong, or a value is not finite.
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
        """(2, 3): the least and largest coordinates."""
        return np.stack([self.points.min(0), self.points.max(0)])

    def lines(self) -> list[str]:
        """What a user should know, a sentence each."""
        if self.normals is None:
            return ["no normals: the surface is found from the points alone"]
        found, without = [], int((self.normals == 0).all(1).sum())
        if without:
            found.append(f"{without} of {len(self.points)} points have no normal")
        if ((self.points - self.bounds.mean(0)) * self.normals).sum(-1).mean() < 0:  # outward: their volume, thrice
            found.append("warning: most normals point inwards, as in a room; if it is none, they are to be turned")
        return found


def read_points(path: Path) -> PointCloud:
    """Reads a cloud: PLY; XYZ, rows of text "x y z" or "x y z nx ny nz"; NPZ with arrays "points" and "normals".

    Normals are made one long, but for those that are zero.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read as points.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    reader = {".ply": _read_ply, ".xyz": _read_xyz, ".npz": _read_npz}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"points must be in a file that ends in one of {', '.join(SUFFIXES)}, got {path.name}")
    try:
        points, normals = reader(path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"could not read points from {path}: {error}") from error
    if normals is not None:
        lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0) if lengths.any() else None
    return PointCloud(np.asarray(points, dtype=np.float64), normals)


def _read_ply(path: Path) -> tuple[Floats, Floats | None]:
    import open3d

    with path.open("rb") as file:
        if file.read(3) != b"ply":
            raise ValueError("it is no PLY file, and holds no points")
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):  # the error says it
        cloud = open3d.io.read_point_cloud(path)
    if not len(cloud.points):
        raise ValueError("it holds no points")
    return np.asarray(cloud.points), np.asarray(cloud.normals) if cloud.has_normals() else None


def _read_xyz(path: Path) -> tuple[Floats, Floats | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty file: the error says it
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if not rows.size:
        raise ValueError("it holds no points")
    if rows.shape[1] not in (3, 6):
        raise ValueError(f"its rows must hold 3 or 6 numbers, got {rows.shape[1]}")
    if rows.shape[1] == 3:
        return rows, None
    lengths = np.linalg.norm(rows[:, 3:], axis=-1)
    if lengths.max() > (1 + UNEVEN) * lengths[lengths > 0].min(initial=np.inf):
        raise ValueError("the last three of its six columns are not normals: their lengths differ (are they colours?)")
    return rows[:, :3], rows[:, 3:]


def _read_npz(path: Path) -> tuple[Floats, Floats | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise ValueError(f"it must hold an array 'points', got {sorted(arrays)}")
        points, normals = (np.asarray(arrays[k], np.float64) if k in arrays else None for k in ("points", "normals"))
    assert points is not None
    return points, normals
