"""Reader of OpenSfM's `reconstruction.json` (https://opensfm.org/docs/dataset.html), also in projects of ODM.

Poses are world-to-camera, a rotation vector and a translation, with OpenCV's axes. The world is metric, with z up.
Lengths of images count from the middle, by the longer side. Observations of the points are in `tracks.csv` beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing, SparsePoints
from staf_nerf.captures.conventions import FISHEYE, PERSPECTIVE, UNDISTORT, equirectangular, inverse, opengl_pose
from staf_nerf.captures.files import read_json
from staf_nerf.captures.folders import (
    Images,
    check_photos,
    find_file,
    folder_of,
    left_out,
    readable,
)

FILES = "reconstruction.json (OpenSfM, ODM)"

LENSES = {
    "perspective": (PERSPECTIVE, ("k1", "k2")),
    "simple_radial": (PERSPECTIVE, ("k1",)),
    "radial": (PERSPECTIVE, ("k1", "k2")),
    "brown": (PERSPECTIVE, ("k1", "k2", "k3", "p1", "p2")),
    "fisheye": (FISHEYE, ("k1", "k2")),
    "fisheye_opencv": (FISHEYE, ("k1", "k2", "k3", "k4")),
    "fisheye62": (FISHEYE, ("k1", "k2", "k3", "k4")),
    "fisheye624": (FISHEYE, ("k1", "k2", "k3", "k4")),
}
"""Kind and distortion of the projections that can be trained with. Other coefficients must be 0."""
ALL_AROUND = ("spherical", "equirectangular")
COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s0", "s1", "s2", "s3")


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, ("reconstruction.json", "opensfm/reconstruction.json"))


def read(path: Path, data: Path) -> Listing:
    """Returns what the largest reconstruction in the file lists, with the sparse points.

    Raises:
        CaptureError: If the file is damaged, has no reconstruction, or a lens that cannot be used.
    """
    with readable(path, "a reconstruction of OpenSfM"):
        reconstructions = sorted(read_json(path), key=lambda one: -len(one["shots"]))
        if not reconstructions:
            raise ValueError("it is empty, no photos were aligned")
        largest, *others = reconstructions
        cameras = {name: _lens(camera, path) for name, camera in largest["cameras"].items()}
        images = Images(folder_of(path))
        shots = dict(sorted(largest["shots"].items()))
        photos = tuple(_photo(images.find(name), shot, cameras) for name, shot in shots.items())
        points = _points(largest.get("points") or {})
    check_photos(photos, path, "Align the photos again.")
    tracks = path.with_name("tracks.csv")
    if points is not None and tracks.is_file():
        with readable(tracks, "OpenSfM's table of tracks"):
            seen = _observations(tracks, list(shots), list(largest["points"]))
            points = SparsePoints(points.positions, points.colors, seen)
    count = sum(len(one["shots"]) for one in reconstructions)
    notes = left_out(count - len(shots), count, f"are in {len(others)} smaller reconstructions of {path.name}")
    return Listing(path, photos, points=points, notes=notes)


def _photo(image: Path, shot: Mapping[str, Any], cameras: Mapping[str, dict[str, Any]]) -> ListedPhoto:
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(np.array(shot["rotation"], dtype=np.float64)).as_matrix()
    return ListedPhoto(image, opengl_pose(*inverse(rotation, shot["translation"])), cameras[shot["camera"]])


def _lens(camera: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns a camera by the names of `transforms.json`."""
    kind, width, height = camera.get("projection_type", "perspective"), int(camera["width"]), int(camera["height"])
    if kind in ALL_AROUND:
        return equirectangular(width, height, path)
    lens, allowed = LENSES.get(kind, (None, ()))
    beyond = [name for name in COEFFICIENTS if name not in allowed and camera.get(name)]
    if lens is None or beyond:
        raise CaptureError(
            f"{path} has a lens of type {kind!r}{' with ' if beyond else ''}{', '.join(beyond)}, "
            f"which cannot be trained with.\n{UNDISTORT}"
        )
    longer = max(width, height)
    focal_x = camera["focal_x"] if "focal_x" in camera else camera["focal"]
    return {
        "camera_model": lens,
        "w": width,
        "h": height,
        "fl_x": focal_x * longer,
        "fl_y": camera.get("focal_y", focal_x) * longer,
        "cx": 0.5 * width + camera.get("c_x", 0.0) * longer,
        "cy": 0.5 * height + camera.get("c_y", 0.0) * longer,
        **{name: float(camera[name]) for name in allowed if name in camera},
    }


def _points(listed: Mapping[str, Any]) -> SparsePoints | None:
    if not listed:
        return None
    positions = np.array([point["coordinates"] for point in listed.values()], dtype=np.float64)
    colors = np.array([point.get("color", (0, 0, 0)) for point in listed.values()])
    return SparsePoints(positions.reshape(-1, 3), colors.clip(0, 255).astype(np.uint8).reshape(-1, 3))


def _observations(tracks: Path, shots: list[str], points: list[str]) -> np.ndarray:
    """Returns pairs of a photo and a point: a line has an image's name and a track's, which is its point's."""
    photo_of = {name: i for i, name in enumerate(shots)}
    point_of = {name: i for i, name in enumerate(points)}
    pairs = ((photo_of.get(shot), point_of.get(point)) for shot, point in _tracks(tracks))
    return np.array([pair for pair in pairs if None not in pair], dtype=np.int64).reshape(-1, 2)


def _tracks(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            words = line.split("\t", 2)
            if len(words) == 3:  # the first line is a version
                yield words[0], words[1]
