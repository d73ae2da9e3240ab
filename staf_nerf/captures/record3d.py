"""Reader of Record3D's folders: the export "EXR + RGB sequence", or an unpacked .r3d file.

`metadata.json` (`metadata` in .r3d files) has the size w, h, the camera matrix K column by column, and for each image a
pose: a quaternion x, y, z, w and a position, camera-to-world with our axes, in metres. The y axis of the world points
up. Newer files have focal lengths and principal point of each image. Images are 0, 1, 2 … in `rgb` or `rgbd`.
Not tried on a file of the app itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.captures.capture import ListedPhoto, Listing
from staf_nerf.captures.conventions import PERSPECTIVE, Y_UP, intrinsics
from staf_nerf.captures.files import read_json
from staf_nerf.captures.folders import check_photos, find_file, images_in, left_out, readable

FILES = "metadata.json with rgb or rgbd (Record3D)"

NAMES = ("metadata.json", "metadata")
IMAGE_FOLDERS = ("rgb", "rgbd")


def find(data: Path) -> Path | None:
    """Returns the file with the poses, or None if it is another format."""
    path = find_file(data, NAMES)
    is_record3d = path is not None and _images(path) and b'"poses"' in path.read_bytes()
    return path if is_record3d else None


def _images(path: Path) -> list[Path]:
    """Returns the images, named 0, 1, 2 …, in this order. Copies such as "12(3)" are none."""
    folders = (images_in(path.parent / name) for name in IMAGE_FOLDERS)
    images = next(filter(None, folders), [])
    return sorted((image for image in images if image.stem.isdigit()), key=lambda image: int(image.stem))


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists.

    Raises:
        CaptureError: If the file is damaged, or no image has a pose.
    """
    images = _images(path)
    with readable(path, "Record3D's metadata"):
        meta = read_json(path)
        poses = np.array(meta["poses"], dtype=np.float64).reshape(-1, 7)
        posed = [image for image in images if int(image.stem) < len(poses)]
        photos = tuple(_photo(image, poses[int(image.stem)], meta) for image in posed)
    check_photos(photos, path, "Export the recording again.")
    notes = left_out(len(images) - len(posed), len(images), f"have no pose in {path.name}")
    return Listing(path, photos, upright=Y_UP, notes=notes)


def _photo(image: Path, numbers: np.ndarray, meta: Mapping[str, Any]) -> ListedPhoto:
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(numbers[:4]).as_matrix(), numbers[4:]
    camera = intrinsics(np.array(meta["K"], dtype=np.float64).reshape(3, 3).T)
    if each := meta.get("perFrameIntrinsicCoeffs"):
        camera = dict(zip(camera, map(float, each[int(image.stem)]), strict=True))
    return ListedPhoto(image, pose, {"camera_model": PERSPECTIVE, "w": meta["w"], "h": meta["h"], **camera})
