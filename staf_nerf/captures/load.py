"""Loads a capture of any format: finds the reader, reads, and checks every photo, pose and camera."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from staf_nerf.captures import blender, colmap, transforms
from staf_nerf.captures.capture import Camera, Capture, CaptureError, Kind, ListedPhoto, Listing, Photo
from staf_nerf.captures.images import read_header


class Reader(Protocol):
    """What the module of a format has."""

    @property
    def FILES(self) -> str:
        """The files by which the format is recognised, with the programs that write them, for messages."""
        ...

    def find(self, data: Path, /) -> Path | None:
        """Returns the file or folder that has the poses, or None if the folder is of another format."""
        ...

    def read(self, source: Path, data: Path, /) -> Listing:
        """Returns what the files of the capture `data` list. `source` is what `find` returned."""
        ...


READERS: dict[Kind, Reader] = {"transforms": transforms, "blender": blender, "colmap": colmap}
"""The formats. The first that recognises a folder reads it."""


def find(data: Path) -> tuple[Kind, Path]:
    """Detects the format of a capture and returns it, with the file or folder that contains the poses.

    Raises:
        CaptureError: If the folder does not exist or contains no supported format.
    """
    if not data.exists():
        raise CaptureError(f"the data folder {data} does not exist")
    for kind, reader in READERS.items():
        if (source := reader.find(data)) is not None:
            return kind, source
    *others, last = (reader.FILES for reader in READERS.values())
    held = sorted(path.name for path in data.iterdir())
    raise CaptureError(
        f"{data} contains no capture: looked for {', '.join(others)} and {last}; "
        f"found {', '.join(held[:8]) or 'nothing'}. "
        "Compute poses of photos with `ns-process-data images` first."
    )


def load(data: Path) -> Capture:
    """Loads a capture: a folder, or its transforms file.

    Raises:
        CaptureError: If the capture cannot be used.
    """
    data = Path(data).expanduser().absolute()
    kind, source = find(data)
    listing = READERS[kind].read(source, data)
    listed = [photo for photo in listing.photos if photo.image.is_file()]
    dropped = tuple(photo.image for photo in listing.photos if not photo.image.is_file())
    if not listed:
        raise CaptureError(f"none of the {len(dropped)} images listed in {source} exists, for example {dropped[0]}")
    if len(listed) < 2:
        raise CaptureError(f"{source} has 1 image; at least 2 are needed, one for training and one for evaluation")
    photos = _checked(listed, source)
    exist = {photo.image for photo in photos}
    splits = {split: tuple(image for image in images if image in exist) for split, images in listing.splits.items()}
    return Capture(kind, photos, dropped, splits, listing.world)


def _checked(listed: Sequence[ListedPhoto], source: Path) -> tuple[Photo, ...]:
    """Returns the photos with their poses and cameras. Poses are checked first: images take longer."""
    poses = [_pose(photo) for photo in listed]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(_size_and_alpha, listed))
    return tuple(
        Photo(photo.image, pose, _camera(photo, size, source), has_alpha, photo.mask)
        for photo, pose, (size, has_alpha) in zip(listed, poses, images, strict=True)
    )


def _pose(photo: ListedPhoto) -> np.ndarray:
    """Returns the pose of a photo as a matrix (4, 4)."""
    try:
        pose = np.asarray(photo.pose, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CaptureError(f"the pose of {photo.image} is not a matrix of numbers: {error}") from error
    if pose.shape not in ((4, 4), (3, 4)):
        raise CaptureError(f"the pose of {photo.image} must be 4x4 or 3x4, got {pose.shape}")
    if not np.isfinite(pose).all():
        raise CaptureError(f"the pose of {photo.image} has a value that is NaN or infinite")
    if abs(determinant := np.linalg.det(pose[:3, :3])) < 1e-6:
        raise CaptureError(f"the pose of {photo.image} is singular (determinant {determinant:g})")
    return np.vstack([pose[:3], [0.0, 0.0, 0.0, 1.0]])


def _size_and_alpha(photo: ListedPhoto) -> tuple[tuple[int, int], bool]:
    """Returns the size (width, height) of an image, and whether it has transparency. `prepare` reads the pixels."""
    header = read_header(photo.image)
    width, height = header.size
    listed = int(photo.camera.get("w", width)), int(photo.camera.get("h", height))
    if listed != (width, height):
        raise CaptureError(f"the image {photo.image} has size {width}x{height}, but {listed[0]}x{listed[1]} is listed")
    return header.size, header.has_alpha


def _camera(photo: ListedPhoto, size: tuple[int, int], source: Path) -> Camera:
    """Returns the camera of a photo. What is not listed follows from the size of the image."""
    listed, (width, height) = photo.camera, size
    focal = _focal_length(listed, "x", width), _focal_length(listed, "y", height)
    known = [length for length in focal if length is not None]
    if not known:
        raise CaptureError(f"{source} has no intrinsics for {photo.image}: fl_x or camera_angle_x is needed")
    center = listed.get("cx", 0.5 * width), listed.get("cy", 0.5 * height)
    numbers = [float(value) for value in (known[0], known[-1], *center)]
    if not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise CaptureError(f"the intrinsics of {photo.image} must be finite and positive, got {numbers}")
    distortion = {name: listed[name] for name in transforms.DISTORTION if name in listed}
    return Camera(width, height, *numbers, distortion=distortion)


def _focal_length(listed: Mapping[str, Any], axis: str, side: int) -> Any:
    """Returns the focal length along an axis as it is listed, or from the listed field of view. None: neither is."""
    if f"fl_{axis}" in listed:
        return listed[f"fl_{axis}"]
    angle = listed.get(f"camera_angle_{axis}")
    return None if angle is None else 0.5 * side / math.tan(0.5 * angle)
