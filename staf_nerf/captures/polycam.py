"""Reader of Polycam's raw data, as the app exports them in its developer mode.

`keyframes/cameras` has a JSON file for each image of `keyframes/images`: fx, fy, cx, cy, width, height, and the
camera-to-world matrix t_00 … t_23 with our axes, in metres. The y axis of the world points up. `corrected_cameras` and
`corrected_images`, where they exist, are what Polycam improved, and are read instead.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import ListedPhoto, Listing
from staf_nerf.captures.conventions import PERSPECTIVE, Y_UP
from staf_nerf.captures.files import read_json
from staf_nerf.captures.folders import (
    Images,
    check_photos,
    images_in,
    left_out,
    readable,
)

FILES = "keyframes/cameras (Polycam)"

PREFIXES = ("corrected_", "")
"""Start of the names of the two folders, the better ones first."""
INTRINSICS = {"fl_x": "fx", "fl_y": "fy", "cx": "cx", "cy": "cy", "w": "width", "h": "height"}


def find(data: Path) -> Path | None:
    """Returns the folder of the cameras, or None if it is another format."""
    for folder in (data / "keyframes", data):
        for prefix in PREFIXES:
            cameras = folder / f"{prefix}cameras"
            if images_in(folder / f"{prefix}images") and any(cameras.glob("*.json")):
                return cameras
    return None


def read(folder: Path, data: Path) -> Listing:
    """Returns what the files list.

    Raises:
        CaptureError: If a file is damaged, or no image has a camera.
    """
    images = folder.with_name(folder.name.replace("cameras", "images"))
    cameras = sorted(folder.glob("*.json"))
    photos = tuple(_photo(path, Images(images, (".",))) for path in cameras)
    check_photos(photos, folder, "Export the raw data of the capture again.")
    named = {path.stem for path in cameras}
    all_images = images_in(images)
    notes = left_out(sum(image.stem not in named for image in all_images), len(all_images), f"have no file in {folder}")
    return Listing(folder, photos, upright=Y_UP, notes=notes)


def _photo(path: Path, images: Images) -> ListedPhoto:
    with readable(path, "a camera of Polycam"):
        meta = read_json(path)
        pose = np.eye(4)
        pose[:3] = [[float(meta[f"t_{row}{column}"]) for column in range(4)] for row in range(3)]
        camera = {ours: meta[theirs] for ours, theirs in INTRINSICS.items()}
    return ListedPhoto(images.find(path.stem), pose, {"camera_model": PERSPECTIVE, **camera})
