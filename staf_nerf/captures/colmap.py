"""Reader of COLMAP's models: cameras, images and points, as text or binary (https://colmap.github.io/format.html).

Poses and points are in COLMAP's own coordinates. COLMAP stores world-to-camera poses with OpenCV axes (x right, y down,
looking along z), and the first camera's y axis points down. So `Listing.upright` turns -y to z, as nerfstudio does.

COLMAP writes a model for each group of images that it could connect. The model that has the most images is read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import PIL.Image

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing, SparsePoints
from staf_nerf.captures.files import check_content, counted, read_bytes, read_text
from staf_nerf.captures.lenses import MODELS
from staf_nerf.captures.locate import is_image

FILES = "cameras.bin or cameras.txt (COLMAP)"

FILE_NAMES = tuple(f"{name}{kind}" for name in ("cameras", "images", "points3D") for kind in (".bin", ".txt"))

FOLDERS = (
    *(".", "sparse/*", "sparse", "colmap/sparse/*", "colmap/sparse", "colmap", "colmap_text", "colmap_sparse/*"),
    *("undistorted/sparse/*", "undistorted/sparse", "dense/sparse/*", "dense/sparse", "dense/*/sparse"),
    *("distorted/sparse/*", "distorted/sparse", "sfm*/models/*", "sfm*", "outputs/sfm*", "models/*", "[0-9]*"),
)
"""Where models lie, seen from the capture's folder: in folders of COLMAP, nerfstudio, Gaussian splatting and hloc. Of
models with equally many images the first one is read."""
IMAGE_FOLDERS = (
    *("images", "rgb", "input", "images_2", "images_4", "images_8", "undistorted_images", "image", "photos"),
    *("sensors/records_data", "mapping", "."),
)
"""Where images lie, seen from the model's folder or one above it. The first that has the most of them is taken, and
among equals one whose images have the size of the model's cameras."""
ABOVE = 3
"""How many folders above a model its images may lie, if the model itself is given as the capture."""
PARTS = ("sparse", "colmap", "distorted", "undistorted", "dense")
"""Folders of models inside of captures. One that is given as the capture counts as the model itself."""

FOCAL_LENGTHS = ("fl_x", "fl_y")
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Turns COLMAP's world so that its -y becomes z."""

Camera = tuple[str, int, int, tuple[float, ...]]
"""Model, width, height and parameters."""


@dataclass(frozen=True)
class Image:
    """An image of the model."""

    number: int
    name: str
    camera: int
    rotation: tuple[float, float, float, float]
    """World-to-camera, as a quaternion (w, x, y, z)."""
    translation: tuple[float, float, float]


def find(data: Path) -> Path | None:
    """Returns the folder of the model with the most images that exist, or None if it is another format."""
    models = [data.parent] if data.name in FILE_NAMES and data.is_file() else _models(data)
    return max(models, key=lambda model: _worth(model, data)) if models else None  # the first of equal ones


def read(folder: Path, data: Path) -> Listing:
    """Returns what the model lists.

    Raises:
        CaptureError: If the model is damaged or lists no images.
    """
    cameras, images = _cameras(folder), sorted(_images(folder), key=lambda image: image.number)
    if not images:
        raise CaptureError(f"the COLMAP model in {folder} lists no images")
    for image in images:
        if image.camera not in cameras:
            raise CaptureError(f"{folder}: the camera {image.camera} of the image {image.name} is not listed")
    photos_folder = _photos(folder, data, _sizes(cameras, images)).folder
    photos = tuple(
        ListedPhoto(photos_folder / image.name, _pose(image, folder), _intrinsics(*cameras[image.camera], folder))
        for image in images
    )
    points, trouble = _sparse_points(folder, {image.number: i for i, image in enumerate(images)})
    notes = [*_other_models(folder, data), *_images_without_pose(photos, photos_folder), *trouble]
    return Listing(folder, photos, points=points, upright=UPRIGHT, notes=tuple(notes))


# --- folders ---------------------------------------------------------------------------------------------------------


def _models(data: Path) -> list[Path]:
    """Returns the folders below a capture's that hold a model, or a part of one."""
    if not data.is_dir():
        return []
    found = (folder for pattern in FOLDERS for folder in _in_order(data, pattern))
    return [folder for folder in dict.fromkeys(found) if _kind(folder) is not None]


def _in_order(data: Path, pattern: str) -> list[Path]:
    """Returns the folders that fit a pattern, 2 before 10."""
    folders = [data] if pattern == "." else [path for path in data.glob(pattern) if path.is_dir()]
    return sorted(folders, key=lambda path: [(len(part), part) for part in path.parts])


def _kind(folder: Path) -> str | None:
    """Returns the suffix of a model's files: binary if both files are there, as COLMAP does. None: it has no model."""
    cameras = [kind for kind in (".bin", ".txt") if (folder / f"cameras{kind}").is_file()]
    both = [kind for kind in cameras if (folder / f"images{kind}").is_file()]
    alone = [".bin"] if (folder / "images.bin").is_file() else []
    return next(iter(both or cameras or alone), None)


def _count(folder: Path) -> int:
    """Returns how many images a model has. -1: it cannot be read."""
    try:
        return len(_sizes(_cameras(folder), list(_images(folder))))
    except CaptureError:
        return -1


def _worth(folder: Path, data: Path) -> tuple[int, bool, int]:
    """Returns by what a model is preferred: its images that exist, whether their size is right, and all its images."""
    try:
        sizes = _sizes(_cameras(folder), list(_images(folder)))
    except CaptureError:
        return -1, False, -1
    photos = _photos(folder, data, sizes)
    return photos.count, photos.right_size, len(sizes)


def _other_models(folder: Path, data: Path) -> list[str]:
    """Returns a note on the models that are not read."""
    models = _models(data)
    others = {other: _count(other) for other in models if other != folder}
    if folder not in models or not others:
        return []
    named = (f"{path.relative_to(data)} ({count if count >= 0 else 'damaged'})" for path, count in others.items())
    return [
        f"The COLMAP model in {folder.relative_to(data)} is read, with {counted(_count(folder), 'image')}. "
        f"Not read: {', '.join(named)}."
    ]


Sizes = Mapping[str, tuple[int, int]]
"""Width and height of each image of a model, by its name."""


def _sizes(cameras: Mapping[int, Camera], images: Sequence[Image]) -> Sizes:
    return {image.name: cameras[image.camera][1:3] for image in images if image.camera in cameras}


@dataclass(frozen=True)
class Photos:
    """A folder that may hold the images of a model."""

    folder: Path
    count: int
    """How many of the images it holds."""
    right_size: bool
    """Whether the first of them has the size of its camera."""


def _photos(folder: Path, data: Path, sizes: Sizes) -> Photos:
    """Returns the folder that holds the most images of a model, and of the listed size if there are several."""
    candidates = [path for base in _bases(folder, data) for name in IMAGE_FOLDERS if (path := base / name).is_dir()]
    photos = [_in_folder(path, sizes) for path in candidates]
    best = max(photos, key=lambda photos: (photos.count, photos.right_size), default=None)
    if best is None or best.count == 0:  # other suffixes, or none: what is missing is found or named later
        return Photos(
            next((data / name for name in IMAGE_FOLDERS if (data / name).is_dir()), data / "images"), 0, False
        )
    return best


def _bases(folder: Path, data: Path) -> list[Path]:
    """Returns the folders that may hold a folder of images: the model's, and those above it."""
    above = [folder, *folder.parents]
    if data not in above:
        return [*above[: ABOVE + 1], data]
    inside = above[: above.index(data) + 1]
    is_part = data == folder or data.name in PARTS
    return above[: len(inside) + ABOVE] if is_part else inside


def _in_folder(folder: Path, sizes: Sizes) -> Photos:
    held = [name for name in sizes if (folder / name).is_file()]
    return Photos(folder, len(held), bool(held) and _size(folder / held[0]) == sizes[held[0]])


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with PIL.Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError):
        return None


def _images_without_pose(photos: Sequence[ListedPhoto], folder: Path) -> list[str]:
    """Returns a note on the images beside the photos that the model lacks."""
    listed = {photo.image for photo in photos}
    places = {photo.image.parent for photo in photos if photo.image.parent.is_dir()}
    present = {path for place in places for path in place.iterdir() if is_image(path)}
    lacking = [path for path in present - listed if "mask" not in path.name.lower()]
    if not lacking or not present & listed:
        return []
    return [f"{counted(len(lacking), 'image')} of {folder} are not in the COLMAP model, and are not used."]


# --- cameras and poses -----------------------------------------------------------------------------------------------


def _intrinsics(name: str, width: int, height: int, values: tuple[float, ...], folder: Path) -> Mapping[str, Any]:
    """Returns intrinsics and distortion of a camera by the names of `transforms.json`."""
    listed = {"camera_model": name, "w": width, "h": height}
    model = MODELS.get(name)
    if model is None or model.lens is None:
        return listed  # refused by name when the photo is checked
    if len(values) != len(model.parameters):
        count = len(model.parameters)
        raise CaptureError(f"{folder}: a camera of model {name} has {count} parameters, got {len(values)}")
    named = dict(zip(model.parameters, values, strict=True))
    if "f" in named:
        named |= dict.fromkeys(FOCAL_LENGTHS, named.pop("f"))
    return {**named, **listed}


def _pose(image: Image, folder: Path) -> np.ndarray:
    """Returns the camera-to-world pose (4, 4) with OpenGL axes."""
    quaternion = np.array(image.rotation)
    length = np.linalg.norm(quaternion)
    if not 0 < length < np.inf:
        raise CaptureError(f"{folder}: the rotation of the image {image.name} is no quaternion: {image.rotation}")
    w, x, y, z = quaternion / length
    to_camera = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = to_camera.T, -to_camera.T @ image.translation
    return pose @ OPENCV_TO_OPENGL


# --- text or binary --------------------------------------------------------------------------------------------------


def _cameras(folder: Path) -> dict[int, Camera]:
    kind = _kind(folder)
    return dict(_text_cameras(folder / "cameras.txt") if kind == ".txt" else _binary_cameras(folder / "cameras.bin"))


def _images(folder: Path) -> Iterator[Image]:
    if _kind(folder) == ".txt":
        return _text_images(folder / "images.txt")
    return _binary_images(folder / "images.bin")


def _sparse_points(folder: Path, photos: Mapping[int, int]) -> tuple[SparsePoints | None, list[str]]:
    """Returns the points, if there are any, and what is wrong with their file. `photos` are indices by number."""
    path = next((path for kind in (".bin", ".txt") if (path := folder / f"points3D{kind}").is_file()), None)
    if path is None or path.stat().st_size == 0:
        return None, []
    try:
        listed = list(_text_points(path) if path.suffix == ".txt" else _binary_points(path))
    except CaptureError as error:
        return None, [f"There are no sparse points: {error}."]
    if not listed:
        return None, []
    seen = [(photos[number], i) for i, (_, _, track) in enumerate(listed) for number in track if number in photos]
    positions = np.array([position for position, _, _ in listed], dtype=np.float64)
    colors = np.array([color for _, color, _ in listed], dtype=np.uint8)
    return SparsePoints(positions, colors, np.array(seen, dtype=np.int64).reshape(-1, 2)), []


Point = tuple[tuple[float, ...], tuple[int, ...], Sequence[int]]
"""Position, colour, and the numbers of the images that see it."""


# --- text files ------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns the lines without comments, with their numbers. Empty lines are kept: an image without points has one."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if not line.startswith("#")]


def _refuse_line(path: Path, number: int, meaning: str, error: Exception) -> NoReturn:
    raise CaptureError(f"{path}, line {number}, is not {meaning}: {error}") from error


def _text_cameras(path: Path) -> Iterator[tuple[int, Camera]]:
    for at, line in _lines(path):
        if not line:
            continue
        try:
            number, name, width, height, *values = line.split()
            camera = name, int(width), int(height), tuple(map(float, values))
            yield int(number), camera
        except ValueError as error:
            _refuse_line(path, at, "a camera", error)


def _text_images(path: Path) -> Iterator[Image]:
    for at, line in _lines(path):
        if not line or _are_points(line):
            continue
        try:
            number, w, x, y, z, tx, ty, tz, camera, name = line.split(maxsplit=9)
            rotation, translation = (float(w), float(x), float(y), float(z)), (float(tx), float(ty), float(tz))
            yield Image(int(number), name, int(camera), rotation, translation)
        except ValueError as error:
            _refuse_line(path, at, "an image", error)


def _are_points(line: str) -> bool:
    """Returns whether a line holds the points of an image, which are x, y and a whole number each.

    Some programs leave out the line of an image without points. So lines are told apart by what they hold.
    """
    entries = line.split()
    return len(entries) % 3 == 0 and re.fullmatch(r"-?\d+", entries[-1]) is not None


def _text_points(path: Path) -> Iterator[Point]:
    for at, line in _lines(path):
        if not line:
            continue
        try:
            _, x, y, z, red, green, blue, _, *track = line.split()
            color = int(red), int(green), int(blue)
            yield (float(x), float(y), float(z)), color, [int(number) for number in track[::2]]
        except ValueError as error:
            _refuse_line(path, at, "a point", error)


# --- binary files: little-endian -------------------------------------------------------------------------------------


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    size = struct.calcsize(f"<{layout}")
    content = file.read(size)
    if len(content) < size:
        raise CaptureError(f"{file.name} is truncated: copy or download it again")
    return struct.unpack(f"<{layout}", content)


def _binary_cameras(path: Path) -> Iterator[tuple[int, Camera]]:
    check_content(path)
    names = {model.number: name for name, model in MODELS.items()}
    with path.open("rb") as file:
        (count,) = _unpack(file, "Q")
        for _ in range(count):
            number, model, width, height = _unpack(file, "iiQQ")
            if model not in names:
                raise CaptureError(f"{path}: the camera model with the number {model} is not known")
            yield number, (names[model], width, height, _unpack(file, f"{len(MODELS[names[model]].parameters)}d"))


def _binary_images(path: Path) -> Iterator[Image]:
    check_content(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        (count,) = _unpack(file, "Q")
        for _ in range(count):
            number, w, x, y, z, tx, ty, tz, camera = _unpack(file, "i7di")
            name = b"".join(iter(lambda: _unpack(file, "c")[0], b"\0")).decode("utf-8", "surrogateescape")
            (points,) = _unpack(file, "Q")
            if file.tell() + points * struct.calcsize("<ddq") > size:
                raise CaptureError(f"{path} is truncated: copy or download it again")
            file.seek(points * struct.calcsize("<ddq"), 1)
            yield Image(number, name, camera, (w, x, y, z), (tx, ty, tz))


def _binary_points(path: Path) -> Iterator[Point]:
    content, head = read_bytes(path), struct.Struct("<Q3d3BdQ")
    at = struct.calcsize("<Q")
    try:
        (count,) = struct.unpack_from("<Q", content)
        for _ in range(count):
            _, x, y, z, red, green, blue, _, length = head.unpack_from(content, at)
            at += head.size
            track = np.frombuffer(content, "<i4", 2 * length, at)
            at += track.nbytes
            yield (x, y, z), (red, green, blue), track[::2].tolist()
    except (struct.error, ValueError) as error:
        raise CaptureError(f"{path} is truncated: copy or download it again") from error
