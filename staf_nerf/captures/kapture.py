"""Reader of kapture's folders (https://github.com/naver/kapture): `sensors/`, and `reconstruction/` if there is one.

Tables of text with commas. Cameras have COLMAP's models. A trajectory has the world-to-device quaternion (w, x, y, z)
and translation of a camera or a rig at a time, `rigs.txt` those from a rig to its cameras. `records_camera.txt` says
which image a camera took when. Axes are OpenCV's. Not tried on a file of kapture itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing, SparsePoints
from staf_nerf.captures.colmap import MODELS
from staf_nerf.captures.conventions import UNDISTORT, inverse, opengl_pose
from staf_nerf.captures.folders import check_photos, left_out, readable

FILES = "sensors/trajectories.txt (kapture)"

IMAGES = "records_data"
TABLES = ("sensors.txt", "trajectories.txt", "records_camera.txt")
"""Tables that a folder of sensors needs."""

T = TypeVar("T")


def find(data: Path) -> Path | None:
    """Returns the folder of the sensors, or None if it is another format."""
    folders = (data / "sensors", data / "mapping" / "sensors", data)
    return next((folder for folder in folders if all((folder / name).is_file() for name in TABLES)), None)


def read(folder: Path, data: Path) -> Listing:
    """Returns what the files list, with the sparse points.

    Raises:
        CaptureError: If a file is damaged, no image has a pose, or a camera cannot be used.
    """
    cameras = dict(filter(None, _table(folder, "sensors.txt", lambda row: _lens(row, folder))))
    poses = _poses(folder)
    records = _table(folder, "records_camera.txt", lambda row: (row[0], row[1], row[2]))
    posed = [(image, poses[time, camera], camera) for time, camera, image in records if (time, camera) in poses]
    photos = tuple(
        ListedPhoto(folder / IMAGES / image, opengl_pose(*inverse(pose[:3, :3], pose[:3, 3])), cameras[camera])
        for image, pose, camera in posed
    )
    check_photos(photos, folder, "Export the capture again, with its trajectories.")
    points = _points(folder.parent / "reconstruction", [image for image, _, _ in posed])
    notes = left_out(len(records) - len(posed), len(records), "have no pose in trajectories.txt")
    return Listing(folder, photos, points=points, notes=notes)


def _table(folder: Path, name: str, parse: Callable[[list[str]], T], needed: bool = True) -> list[T]:
    """Returns what the rows of a table mean, without comments and empty lines."""
    path = folder / name
    if not needed and not path.is_file():
        return []
    with readable(path, "a table of kapture"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [[word.strip() for word in line.split(",")] for line in lines if line.strip() and line[0] != "#"]
        return [parse(row) for row in rows]


def _lens(row: Sequence[str], folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Returns the id and camera in a row of `sensors.txt`: id, name, type, model, width, height, parameters."""
    if row[2] != "camera":
        return None
    model = MODELS.get(row[3])
    if model is None or len(model.parameters) != len(row) - 6:
        raise CaptureError(
            f"{folder / 'sensors.txt'} has a camera {', '.join(row[3:])}, which cannot be trained with.\n{UNDISTORT}"
        )
    values = dict(zip(model.parameters, map(float, row[6:]), strict=True))
    focal = values.pop("f", None)
    lengths = {} if focal is None else {"fl_x": focal, "fl_y": focal}
    return row[0], {"camera_model": row[3], "w": int(row[4]), "h": int(row[5]), **values, **lengths}


def _poses(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    """Returns world-to-device matrices (4, 4) by time and device: of the trajectories, and of the cameras on rigs."""
    listed = _table(folder, "trajectories.txt", lambda row: ((row[0], row[1]), _matrix(row[2:])))
    poses = {key: matrix for key, matrix in listed if matrix is not None}
    for rig, camera, on_rig in _table(folder, "rigs.txt", lambda row: (row[0], row[1], _matrix(row[2:])), needed=False):
        if on_rig is not None:
            poses |= {(time, camera): on_rig @ pose for (time, device), pose in list(poses.items()) if device == rig}
    return poses


def _matrix(numbers: Sequence[str]) -> np.ndarray | None:
    """Returns the matrix (4, 4) of a quaternion and a translation. None: one of them is not known."""
    from scipy.spatial.transform import Rotation

    if len(numbers) != 7:
        raise ValueError(f"a pose needs 7 numbers, got {', '.join(numbers)}")
    if not all(numbers):
        return None
    w, x, y, z, *translation = map(float, numbers)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat([x, y, z, w]).as_matrix(), translation
    return matrix


def _points(folder: Path, images: Sequence[str]) -> SparsePoints | None:
    rows = np.array(_table(folder, "points3d.txt", lambda row: [float(word) for word in row[:6]], needed=False))
    if not len(rows):
        return None
    photo_of = {image: i for i, image in enumerate(images)}
    listed = _table(folder, "observations.txt", lambda row: list(_observations(row, photo_of)), needed=False)
    seen = [pair for pairs in listed for pair in pairs]
    observations = np.array(seen, dtype=np.int64).reshape(-1, 2)
    return SparsePoints(rows[:, :3], rows[:, 3:].clip(0, 255).astype(np.uint8), observations)


def _observations(row: Sequence[str], photo_of: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Returns pairs of a photo and a point: a row has the point, in newer files a type, and images with a feature's."""
    images = row[1 + len(row[1:]) % 2 :: 2]
    return ((photo_of[image], int(row[0])) for image in images if image in photo_of)
