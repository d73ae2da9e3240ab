"""Reader of COLMAP's models: cameras and images, as text or binary (https://colmap.github.io/format.html).

COLMAP stores world-to-camera poses with OpenCV axes (x right, y down, looking along z), and the first camera's y axis
points down. As in nerfstudio, the world is turned so that this direction is -z.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing

FILES = "cameras.bin or cameras.txt (COLMAP)"

FOLDERS = ("colmap/sparse/0", "sparse/0", "sparse", ".")
IMAGE_FOLDERS = ("images", "rgb", "input", ".")

PINHOLE, FISHEYE = "OPENCV", "OPENCV_FISHEYE"
"""The two kinds of lenses, by nerfstudio's names."""


@dataclass(frozen=True)
class Model:
    """A camera model of COLMAP."""

    number: int
    """Its number in binary files."""
    lens: str
    parameters: tuple[str, ...]
    """Its parameters in order. "f" is the focal length of both axes."""


MODELS = {
    "SIMPLE_PINHOLE": Model(0, PINHOLE, ("f", "cx", "cy")),
    "PINHOLE": Model(1, PINHOLE, ("fl_x", "fl_y", "cx", "cy")),
    "SIMPLE_RADIAL": Model(2, PINHOLE, ("f", "cx", "cy", "k1")),
    "RADIAL": Model(3, PINHOLE, ("f", "cx", "cy", "k1", "k2")),
    "OPENCV": Model(4, PINHOLE, ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": Model(5, FISHEYE, ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4")),
    "SIMPLE_RADIAL_FISHEYE": Model(8, FISHEYE, ("f", "cx", "cy", "k1")),
    "RADIAL_FISHEYE": Model(9, FISHEYE, ("f", "cx", "cy", "k1", "k2")),
}
"""The camera models that can be trained with. Others have distortions that nerfstudio's cameras do not have."""

OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
WORLD_UP = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""Turns COLMAP's world so that its -y becomes z."""


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
    """Returns the folder of the model, or None if it is another format."""
    folders = (data / folder for folder in FOLDERS)
    return next((f for f in folders if (f / "cameras.bin").is_file() or (f / "cameras.txt").is_file()), None)


def read(folder: Path, data: Path) -> Listing:
    """Returns what the model lists.

    Raises:
        CaptureError: If the model is damaged, lists no images, or has cameras that are not supported.
    """
    as_text = (folder / "cameras.txt").is_file()
    try:
        cameras = dict(_text_cameras(folder / "cameras.txt") if as_text else _binary_cameras(folder / "cameras.bin"))
        images = list(_text_images(folder / "images.txt") if as_text else _binary_images(folder / "images.bin"))
        described = {number: _intrinsics(*camera) for number, camera in cameras.items()}
        lenses = {MODELS[cameras[image.camera][0]].lens for image in images}
    except (ValueError, IndexError, KeyError, OverflowError, OSError, struct.error) as error:
        raise CaptureError(f"{folder} is not a usable COLMAP model: {_reason(error)}") from error
    if len(lenses) != 1:
        reason = "No images found in the colmap model" if not images else "Multiple camera models are not supported"
        raise CaptureError(f"{folder} is not a usable COLMAP model: {reason}")
    photos_folder = data / next(name for name in IMAGE_FOLDERS if (data / name).is_dir())
    photos = (
        ListedPhoto(photos_folder / image.name, _pose(image).tolist(), described[image.camera])
        for image in sorted(images, key=lambda image: image.number)
    )
    world = {"camera_model": lenses.pop(), "applied_transform": WORLD_UP[:3].tolist()}
    return Listing(folder, tuple(photos), world=world)


def _reason(error: Exception) -> str:
    if isinstance(error, struct.error):
        return "a file is truncated"
    if isinstance(error, KeyError):
        return f"an image's camera {error} is not listed"
    return str(error)


def _intrinsics(name: str, width: int, height: int, values: tuple[float, ...]) -> Mapping[str, Any]:
    """Returns intrinsics and distortion of a camera by the names of `transforms.json`."""
    if name not in MODELS:
        raise ValueError(f"{name} camera model is not supported yet!")
    names = MODELS[name].parameters
    if len(values) != len(names):
        raise ValueError(f"a camera of model {name} has {len(names)} parameters, got {len(values)}")
    named = dict(zip(names, values, strict=True))
    focal = named.pop("f", None)
    return {"w": width, "h": height, **named, **({} if focal is None else {"fl_x": focal, "fl_y": focal})}


def _pose(image: Image) -> np.ndarray:
    """Returns the camera-to-world pose (4, 4) with OpenGL axes, in the turned world."""
    w, x, y, z = image.rotation
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    world_to_camera[:3, 3] = image.translation
    return WORLD_UP @ np.linalg.inv(world_to_camera) @ OPENCV_TO_OPENGL


# --- text files ------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[str]:
    """Returns the lines without comments. Empty lines are kept: an image without points has one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if not line.startswith("#")]


def _text_cameras(path: Path) -> Iterator[tuple[int, tuple[str, int, int, tuple[float, ...]]]]:
    for line in filter(None, _lines(path)):
        number, name, width, height, *values = line.split()
        yield int(number), (name, int(width), int(height), tuple(map(float, values)))


def _text_images(path: Path) -> Iterator[Image]:
    lines = iter(_lines(path))
    for line in filter(None, lines):
        number, w, x, y, z, tx, ty, tz, camera, name = line.split(maxsplit=9)
        rotation, translation = (float(w), float(x), float(y), float(z)), (float(tx), float(ty), float(tz))
        yield Image(int(number), name, int(camera), rotation, translation)
        next(lines, None)  # the points of the image


# --- binary files: little-endian -------------------------------------------------------------------------------------


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))


def _binary_cameras(path: Path) -> Iterator[tuple[int, tuple[str, int, int, tuple[float, ...]]]]:
    names = {model.number: name for name, model in MODELS.items()}
    with path.open("rb") as file:
        (count,) = _unpack(file, "Q")
        for _ in range(count):
            number, model, width, height = _unpack(file, "iiQQ")
            if model not in names:
                raise ValueError(f"camera model {model} is not supported yet!")
            yield number, (names[model], width, height, _unpack(file, f"{len(MODELS[names[model]].parameters)}d"))


def _binary_images(path: Path) -> Iterator[Image]:
    with path.open("rb") as file:
        (count,) = _unpack(file, "Q")
        for _ in range(count):
            number, w, x, y, z, tx, ty, tz, camera = _unpack(file, "i7di")
            name = b"".join(iter(lambda: _unpack(file, "c")[0], b"\0")).decode("utf-8")
            (points,) = _unpack(file, "Q")
            file.seek(points * struct.calcsize("<ddq"), 1)
            yield Image(number, name, camera, (w, x, y, z), (tx, ty, tz))
