"""Reader of Bundler's `bundle.out` (https://www.cs.cornell.edu/~snavely/bundler/bundler-v0.4-manual.html).

For each image of `list.txt` it has the focal length, the radial distortion k1 and k2, and the world-to-camera rotation
and translation. A focal length of 0 is that of an image without a pose. The camera has our axes: x right, y up, looking
along -z. Pixels count from the image's middle. Then come the points: position, colour, and the images that see them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing, SparsePoints
from staf_nerf.captures.conventions import PERSPECTIVE, inverse
from staf_nerf.captures.folders import (
    Images,
    check_photos,
    find_file,
    folder_of,
    left_out,
    readable,
)

FILES = "bundle.out with list.txt (Bundler)"

HEADER = b"# Bundle file"
LISTS = ("list.txt", "*list*.txt", "*.lst", "*image*.txt")
"""Files that may list the images, a line each, the best first."""


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, ("bundle.out", "bundle/bundle.out", "*.out", "bundle/*.out"), HEADER)


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists, with the sparse points.

    Raises:
        CaptureError: If the file is damaged, has no image with a pose, or there is no list of its images.
    """
    with readable(path, "a file of Bundler"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        numbers = iter(" ".join(line for line in lines if not line.startswith("#")).split())
        count, points = map(int, _take(numbers, 2))
        cameras = [np.array(_take(numbers, 15), dtype=np.float64) for _ in range(count)]
        sparse, seen = _points(numbers, points)
    names = _names(path, count)
    kept = [i for i, camera in enumerate(cameras) if camera[0] > 0]
    images = Images(folder_of(path))
    photos = tuple(_photo(images.find(names[i]), cameras[i]) for i in kept)
    check_photos(photos, path, "Compute the cameras again, from photos that overlap more.")
    place = {camera: photo for photo, camera in enumerate(kept)}
    observations = np.array([(place[i], point) for i, point in seen if i in place], dtype=np.int64).reshape(-1, 2)
    sparse = SparsePoints(sparse[:, :3], sparse[:, 3:].astype(np.uint8), observations)
    notes = left_out(count - len(kept), count, f"have no pose in {path.name}")
    return Listing(path, photos, points=sparse if points else None, notes=notes)


def _take(numbers: Iterator[str], count: int) -> list[str]:
    taken = list(islice(numbers, count))
    if len(taken) < count:
        raise ValueError("it is cut off")
    return taken


def _points(numbers: Iterator[str], count: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Returns position and colour of each point, (N, 6), and pairs of an image and a point that it sees."""
    rows, seen = np.empty((count, 6)), []
    for point in range(count):
        *row, views = _take(numbers, 7)
        rows[point] = row
        for _ in range(int(views)):
            seen.append((int(_take(numbers, 4)[0]), point))
    return rows, seen


def _names(path: Path, count: int) -> list[str]:
    """Returns the names of the images, from the first list beside the file or above it that has as many lines."""
    for folder in (path.parent, path.parent.parent):
        for pattern in LISTS:
            for file in sorted(folder.glob(pattern)):
                lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                names = [line.strip() for line in lines if line.strip()]
                if len(names) == count:
                    return [_name(line) for line in names]
    raise CaptureError(
        f"{path} has {count} cameras, and no list of its {count} images lies beside it.\n"
        "Put list.txt there: a line with the name of each image, in the order of the cameras."
    )


def _name(line: str) -> str:
    """Returns the name of an image in a line of the list, which may have the focal length after it."""
    words = line.split()
    return " ".join(words[:-2]) if len(words) > 2 and _is_number(words[-1]) and _is_number(words[-2]) else line


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()


def _photo(image: Path, camera: np.ndarray) -> ListedPhoto:
    focal, k1, k2 = camera[:3]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = inverse(camera[3:12].reshape(3, 3), camera[12:])
    lens = {"camera_model": PERSPECTIVE, "fl_x": focal, "fl_y": focal, "k1": k1, "k2": k2}
    return ListedPhoto(image, pose, lens)
