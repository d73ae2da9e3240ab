"""Reader of LLFF's `poses_bounds.npy` (https://github.com/Fyusion/LLFF), as in the forward-facing scenes of NeRF.

A row of 17 numbers for each image, in the order of the images' names: a matrix of 3x5, row by row, and the nearest and
farthest depth. The matrix has the camera's axes down, right and backwards, its position, and height, width and focal
length of the full image. The principal point is the middle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing
from staf_nerf.captures.conventions import PERSPECTIVE
from staf_nerf.captures.folders import find_file, folder_of, images_in, readable, size_of

FILES = "poses_bounds.npy (LLFF)"

IMAGE_FOLDERS = ("images", "images_2", "images_4", "images_8", "rgb", "input", ".")
"""Folders of images. Those with a number have reduced copies."""
COLUMNS = 17


def find(data: Path) -> Path | None:
    """Returns the file with the poses, or None if it is another format."""
    return find_file(data, ("poses_bounds.npy",))


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists.

    Raises:
        CaptureError: If the file is damaged, or its poses and the images differ in number.
    """
    with readable(path, "LLFF's array of poses"):
        rows = np.load(path, allow_pickle=False).astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != COLUMNS or not len(rows):
            raise ValueError(f"its shape must be (images, {COLUMNS}), got {rows.shape}")
    images = _images(folder_of(path), path, len(rows))
    photos = tuple(_photo(image, row[:15].reshape(3, 5)) for image, row in zip(images, rows, strict=True))
    return Listing(path, photos)


def _images(data: Path, path: Path, count: int) -> list[Path]:
    """Returns the images of the first folder that has as many as there are poses."""
    found = {name: images for name in IMAGE_FOLDERS if (images := images_in(data / name))}
    for images in found.values():
        if len(images) == count:
            return images
    held = ", ".join(f"{len(images)} in {data / name}" for name, images in found.items())
    raise CaptureError(
        f"{path} has {count} poses, but there are {held or 'no images in ' + str(data / 'images')}.\n"
        "The poses belong to the images in the order of their names: put exactly those images there."
    )


def _photo(image: Path, matrix: np.ndarray) -> ListedPhoto:
    down, right, back, position, (height, width, focal) = matrix.T
    pose = np.eye(4)
    pose[:3] = np.stack([right, -down, back, position], -1)
    size = size_of(image)
    assert size is not None
    camera = {"w": size[0], "h": size[1], "fl_x": focal * size[0] / width, "fl_y": focal * size[1] / height}
    return ListedPhoto(image, pose, {"camera_model": PERSPECTIVE, **camera})
