"""Reader of Middlebury's `*_par.txt` (https://vision.middlebury.edu/mview/data/), as of the temple and the dinosaur.

The number of images, then a line for each: its name, and K (3x3), R (3x3) and t of the projection K [R | t], row by
row. The camera has OpenCV's axes. "The image origin is top-left": the principal point is taken to count from the
corner. Not tried on a file of the data set itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import ListedPhoto, Listing
from staf_nerf.captures.conventions import PERSPECTIVE, check_shear, intrinsics, inverse, opengl_pose
from staf_nerf.captures.folders import (
    IMAGE_FOLDERS,
    Images,
    check_photos,
    find_file,
    folder_of,
    readable,
    size_of,
)

FILES = "*_par.txt (Middlebury)"

NUMBERS = 21


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, ("*_par.txt",))


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists.

    Raises:
        CaptureError: If the file is damaged, or has a camera that cannot be used.
    """
    with readable(path, "Middlebury's list of cameras"):
        count, *lines = filter(str.strip, path.read_text(encoding="utf-8-sig").splitlines())
        if int(count) != len(lines):
            raise ValueError(f"it should list {int(count)} images, and lists {len(lines)}")
        images = Images(folder_of(path), (".", *IMAGE_FOLDERS))
        photos = tuple(_photo(line, images, path) for line in lines)
    check_photos(photos, path, "Download it again.")
    return Listing(path, photos)


def _photo(line: str, images: Images, path: Path) -> ListedPhoto:
    name, *values = line.rsplit(maxsplit=NUMBERS)
    if len(values) != NUMBERS:
        raise ValueError(f"a line needs a name and {NUMBERS} numbers, got {line!r}")
    numbers = np.array(values, dtype=np.float64)
    matrix, rotation, translation = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3), numbers[18:]
    image = images.find(name)
    camera = {"camera_model": PERSPECTIVE, **intrinsics(matrix / matrix[2, 2])}
    if (size := size_of(image)) is not None:
        check_shear(matrix[0, 1] / matrix[2, 2], camera, size[1], path)
    return ListedPhoto(image, opengl_pose(*inverse(rotation, translation)), camera)
