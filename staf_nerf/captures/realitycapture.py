"""Reader of RealityCapture's (RealityScan's) "Internal/External camera parameters" in CSV.

A line for each image: x, y, alt of the camera with z up; heading, pitch, roll in degrees, which are all 0 for a camera
that looks down with y of the world up in the image; the focal length for a sensor whose longer side has 36 mm; the
principal point from the image's middle, by the longer side; Brown's distortion k1 k2 k3 k4 t1 t2, whose t1 and t2 have
each other's places in OpenCV's formula. The file does not tell Brown's models from the division model.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing
from staf_nerf.captures.conventions import PERSPECTIVE
from staf_nerf.captures.folders import (
    Images,
    check_photos,
    find_file,
    folder_of,
    readable,
    size_of,
)

FILES = "*.csv with heading, pitch and roll (RealityCapture)"

SENSOR = 36.0
"""Longer side of the sensor that the focal length belongs to, in millimetres."""
NEEDED = ("x", "y", "alt", "heading", "pitch", "roll", "f")
DISTORTION = {"k1": "k1", "k2": "k2", "k3": "k3", "k4": "k4", "t1": "p2", "t2": "p1"}
"""Our names of RealityCapture's coefficients."""
AGAIN = 'Export it again as "Internal/External camera parameters", with the distortion model Brown3 or Brown4.'


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, ("*.csv",), b"alt,heading,pitch,roll") or find_file(
        data, ("*.csv",), b"alt;heading;pitch;roll"
    )


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists.

    Raises:
        CaptureError: If the file is damaged or lacks columns.
    """
    with readable(path, "RealityCapture's list of cameras"):
        lines = path.read_text(encoding="utf-8-sig").lstrip("#").splitlines()
        rows = list(csv.DictReader(lines, delimiter=";" if ";" in lines[0] else ","))
        missing = [name for name in ("name", *NEEDED) if rows and name not in rows[0]]
        if missing:
            raise CaptureError(f"{path} has no column {', '.join(missing)}. {AGAIN}")
        images = Images(folder_of(path))
        photos = tuple(_photo(row, images) for row in rows)
    check_photos(photos, path, AGAIN)
    only_k1 = any(photo.camera["k1"] for photo in photos) and not any(
        photo.camera[name] for photo in photos for name in ("k2", "k3", "k4", "p1", "p2")
    )
    notes = (f"{path.name} is read as Brown's distortion. If it was the division model: {AGAIN}",) if only_k1 else ()
    return Listing(path, photos, notes=notes)


def _photo(row: Mapping[str, str], images: Images) -> ListedPhoto:
    numbers = {name: float(value) for name, value in row.items() if name and name != "name" and value}
    image = images.find(row["name"])
    camera: dict[str, object] = {"camera_model": PERSPECTIVE}
    camera |= {ours: numbers.get(theirs, 0.0) for theirs, ours in DISTORTION.items()}
    if (size := size_of(image)) is not None:
        longer = max(size)
        camera |= {"fl_x": numbers["f"] / SENSOR * longer, "fl_y": numbers["f"] / SENSOR * longer}
        camera |= {"cx": 0.5 * size[0] + numbers.get("px", 0.0) * longer}
        camera |= {"cy": 0.5 * size[1] + numbers.get("py", 0.0) * longer}
    pose = np.eye(4)
    pose[:3, :3] = axes(numbers["heading"], numbers["pitch"], numbers["roll"])
    pose[:3, 3] = numbers["x"], numbers["y"], numbers["alt"]
    return ListedPhoto(image, pose, camera)


def axes(heading: float, pitch: float, roll: float) -> np.ndarray:
    """Returns a camera's axes in the world (OpenGL's), one a column. Angles are in degrees, the heading clockwise."""
    return _turn(2, -heading) @ _turn(0, pitch) @ _turn(1, roll)


def _turn(axis: int, degrees: float) -> np.ndarray:
    """Returns the right-handed rotation about an axis of the coordinates."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[[first, second], [first, second]] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix
