"""Reader of OpenMVG's `sfm_data.json` (https://openmvg.readthedocs.io/en/latest/software/SfM/SfM_OutputFormat/).

Poses are the world-to-camera rotation and the camera's position, with OpenCV's axes. OpenMVG undistorts images as if
pixels counted from the centre of the first one. Its distortions are OpenCV's. Not tried on a file of the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing, SparsePoints
from staf_nerf.captures.conventions import (
    FISHEYE,
    PERSPECTIVE,
    equirectangular,
    from_pixel_centers,
    opengl_pose,
)
from staf_nerf.captures.files import read_json
from staf_nerf.captures.folders import (
    IMAGE_FOLDERS,
    Images,
    check_photos,
    find_file,
    folder_of,
    left_out,
    readable,
)

FILES = "sfm_data.json (OpenMVG)"

BINARY = ("sfm_data.bin", "reconstruction*/sfm_data.bin")
"""The same in a binary form, which is not read."""
DISTORTIONS = {
    "disto_k1": (PERSPECTIVE, ("k1",)),
    "disto_k3": (PERSPECTIVE, ("k1", "k2", "k3")),
    "disto_t2": (PERSPECTIVE, ("k1", "k2", "k3", "p1", "p2")),
    "fisheye": (FISHEYE, ("k1", "k2", "k3", "k4")),
}
"""Kind and coefficients of a lens, by the name of their list. A lens without such a list has no distortion."""


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, ("sfm_data.json", "reconstruction*/sfm_data.json", *BINARY))


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists, with the sparse points.

    Raises:
        CaptureError: If the file is damaged, or has no image with a pose.
    """
    if path.suffix == ".bin":
        raise CaptureError(
            f"{path} is binary. Convert it: openMVG_main_ConvertSfM_DataFormat -V -I -E -S "
            f"-i {path} -o {path.with_suffix('.json')}"
        )
    with readable(path, "OpenMVG's file of a scene"):
        meta = read_json(path)
        lenses = {entry["key"]: _lens(_content(entry), path) for entry in meta["intrinsics"]}
        poses = {entry["key"]: _pose(entry["value"]) for entry in meta["extrinsics"]}
        views = [_content(entry) for entry in meta["views"]]
        posed = [view for view in views if view["id_pose"] in poses and view["id_intrinsic"] in lenses]
        root = str(meta.get("root_path") or ".").replace("\\", "/")
        images = Images(folder_of(path), (root, *IMAGE_FOLDERS))
        photos = tuple(
            ListedPhoto(images.find(_name(view)), poses[view["id_pose"]], lenses[view["id_intrinsic"]])
            for view in posed
        )
        points = _points(meta.get("structure") or [], {view["id_view"]: i for i, view in enumerate(posed)})
    check_photos(photos, path, "Export the scene after the reconstruction, with its extrinsics.")
    notes = left_out(len(views) - len(posed), len(views), f"have no pose in {path.name}")
    return Listing(path, photos, points=points, notes=notes)


def _content(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of an entry that stands behind a pointer. What it inherits may be nested in it."""
    content = dict(entry["value"]["ptr_wrapper"]["data"])
    for inherited in [value for value in content.values() if isinstance(value, dict)]:
        content |= inherited
    return content


def _name(view: Mapping[str, Any]) -> str:
    return str(Path(view.get("local_path", "")) / view["filename"])


def _lens(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns a camera by the names of `transforms.json`."""
    width, height = int(content["width"]), int(content["height"])
    if "focal_length" not in content:
        return equirectangular(width, height, path)
    kind, names, values = PERSPECTIVE, (), ()
    for listed, (lens, coefficients) in DISTORTIONS.items():
        if listed in content:
            kind, names, values = lens, coefficients, content[listed]
    cx, cy = content["principal_point"]
    return {
        "camera_model": kind,
        "w": width,
        "h": height,
        "fl_x": content["focal_length"],
        "fl_y": content["focal_length"],
        "cx": from_pixel_centers(cx, width),
        "cy": from_pixel_centers(cy, height),
        **dict(zip(names, values, strict=True)),
    }


def _pose(value: Mapping[str, Any]) -> np.ndarray:
    return opengl_pose(np.array(value["rotation"], dtype=np.float64).T, value["center"])


def _points(structure: list[dict[str, Any]], photo_of: Mapping[int, int]) -> SparsePoints | None:
    """Returns the points, and which photo sees which. OpenMVG stores no colours."""
    if not structure:
        return None
    positions = np.array([landmark["value"]["X"] for landmark in structure], dtype=np.float64).reshape(-1, 3)
    seen = [
        (photo_of[observation["key"]], point)
        for point, landmark in enumerate(structure)
        for observation in landmark["value"]["observations"]
        if observation["key"] in photo_of
    ]
    return SparsePoints(positions, observations=np.array(seen, dtype=np.int64).reshape(-1, 2))
