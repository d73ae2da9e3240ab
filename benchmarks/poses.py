"""How far poses are from others of the same photos: `python -m benchmarks.poses FOUND REFERENCE` (transforms files).

Both worlds are aligned by the similarity that fits the places of the cameras best (least squares).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class ComparePoses:
    """Compares the poses of two transforms files, photo by photo, and prints JSON."""

    found: Annotated[Positional[Path], tyro.conf.arg(metavar="FOUND")]
    """The transforms.json to judge, or its folder."""
    reference: Annotated[Positional[Path], tyro.conf.arg(metavar="REFERENCE")]
    """The transforms.json to compare with, or its folder. Photos are matched by their names without suffix."""


def run(job: ComparePoses) -> dict[str, Any]:
    """Returns the numbers of photos, and the errors of rotations (degrees) and places (% of the extent)."""
    found, reference = _poses(job.found), _poses(job.reference)
    names = sorted(found.keys() & reference.keys())
    if len(names) < 3:
        raise ValueError(f"{job.found} and {job.reference} share {len(names)} photos; at least 3 are needed")
    one, other = (np.stack([poses[name] for name in names]) for poses in (found, reference))
    rotations, places = errors(one, other)
    return {
        "photos": len(names),
        "only found": len(found) - len(names),
        "rotation_degrees": _summary(rotations),
        "position_percent": _summary(100 * places),
    }


def errors(found: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the angles (N,) in degrees between poses (N, 4, 4), and the distances, over the reference's extent.

    The extent is the largest distance between two cameras of the reference.
    """
    scale, rotation, offset = similarity(found[:, :3, 3], reference[:, :3, 3])
    moved = scale * found[:, :3, 3] @ rotation.T + offset
    places = reference[:, :3, 3]
    extent = np.linalg.norm(places[:, None] - places[None], axis=-1).max()
    differences = (rotation @ _orthonormal(found)).transpose(0, 2, 1) @ _orthonormal(reference)
    cosines = (np.trace(differences, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(cosines.clip(-1, 1))), np.linalg.norm(moved - places, axis=-1) / extent


def similarity(points: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns scale, rotation (3, 3) and offset (3,) that take points (N, 3) nearest to targets.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, TPAMI 1991.
    """
    centered, wanted = points - points.mean(0), targets - targets.mean(0)
    left, values, right = np.linalg.svd(wanted.T @ centered)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    scale = float((values * signs).sum() / (centered**2).sum())
    return scale, rotation, targets.mean(0) - scale * rotation @ points.mean(0)


def _orthonormal(poses: np.ndarray) -> np.ndarray:
    """Returns the rotations nearest to the axes of poses (N, 4, 4)."""
    left, _, right = np.linalg.svd(poses[:, :3, :3])
    return left @ right


def _poses(path: Path) -> dict[str, np.ndarray]:
    """Returns the poses of a transforms file by the photos' names without suffix."""
    file = path / "transforms.json" if path.is_dir() else path
    frames = json.loads(file.read_text(encoding="utf-8"))["frames"]
    return {Path(frame["file_path"]).stem: np.array(frame["transform_matrix"], dtype=np.float64) for frame in frames}


def _summary(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), "median": float(np.median(values)), "max": float(values.max())}


if __name__ == "__main__":
    print(json.dumps(run(tyro.cli(ComparePoses)), indent=1))
