"""Prepares a capture for training: reduced images in a cache, and one `transforms.json` in nerfstudio's format.

A reduction by an integer factor f divides the intrinsics by f exactly and does not change the distortion. Nothing is
written into the user's data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from PIL import Image, ImageOps

from staf_nerf.captures.capture import Camera, Capture, CaptureError, Kind, Photo
from staf_nerf.captures.load import is_transparent, load

Masks = Literal["background", "ignore"]


@dataclass(frozen=True)
class Prepared:
    """A capture that is ready for training."""

    capture: Capture
    """The capture whose photos are those to train on: converted, reduced, with the cameras that belong to them."""
    originals: tuple[Photo, ...]
    """The same photos as they are in the user's data, in the same order. `capture.splits` names their images."""
    transforms: Path
    """A transforms.json file in nerfstudio's format, with absolute paths."""
    kind: Kind
    """Format of the capture."""
    count: int
    """Number of images."""
    has_alpha: bool
    """Whether the images have transparency."""
    has_splits: bool
    """Whether the capture lists its own images for training and evaluation."""
    factor: int
    """Factor by which the images were reduced."""
    dropped: tuple[Path, ...]
    """Listed images that do not exist."""


def prepare(
    data: Path,
    *,
    downscale_factor: int | None = None,
    max_image_size: int | None = None,
    masks: Masks = "background",
    cache: Path | None = None,
) -> Prepared:
    """Reads and checks a capture, and reduces its images if asked for or needed.

    Args:
        data: Folder or transforms file.
        downscale_factor: Integer factor by which images are reduced. None: the smallest that meets `max_image_size`.
        max_image_size: Largest allowed side length in pixels, for the automatic factor. None: no limit.
        masks: "background": masked pixels become transparent and are trained as empty space. "ignore": masked pixels
            are excluded from training, as in nerfstudio.
        cache: Output folder. None: the user's cache folder.

    Raises:
        CaptureError: If the capture cannot be used.
    """
    data = Path(data).expanduser().absolute()
    capture = load(data)
    factor = _factor(capture.photos, downscale_factor, max_image_size)
    merge = masks == "background" and any(photo.mask is not None for photo in capture.photos)
    folder = _folder(cache, data, [factor, masks, _stamp(capture.photos)])
    folder.mkdir(parents=True, exist_ok=True)
    photos = capture.photos
    if factor > 1 or merge:
        targets = [folder / f"{i:05d}.png" for i in range(len(photos))]
        with ThreadPoolExecutor() as pool:
            photos = tuple(pool.map(lambda photo, target: _reduced(photo, target, factor, merge), photos, targets))
    path = folder / "transforms.json"
    _write_whole(path, json.dumps(_transforms(capture, photos), indent=1).encode())
    has_alpha = merge or any(photo.has_alpha for photo in photos)
    ready = dataclasses.replace(capture, photos=photos)
    has_splits = bool(capture.splits)
    return Prepared(
        ready, capture.photos, path, capture.kind, len(photos), has_alpha, has_splits, factor, capture.dropped
    )


def _factor(photos: Sequence[Photo], wanted: int | None, max_image_size: int | None) -> int:
    """Returns the factor of the reduction: the wanted one, or the smallest that meets the largest size."""
    longest = max(max(photo.camera.width, photo.camera.height) for photo in photos)
    shortest = min(min(photo.camera.width, photo.camera.height) for photo in photos)
    factor = wanted or (math.ceil(longest / max_image_size) if max_image_size else 1)
    if factor < 1 or factor > shortest:
        raise CaptureError(f"downscale_factor must be between 1 and the images' side length in pixels, got {factor}")
    return factor


def _folder(cache: Path | None, data: Path, settings: list[Any]) -> Path:
    """Returns the folder of a capture in the cache: another one for each change of its files or of the settings."""
    key = hashlib.sha256(json.dumps([str(data), *settings]).encode()).hexdigest()[:16]
    return (cache or Path(platformdirs.user_cache_dir("staf_nerf"))) / "captures" / f"{data.name}-{key}"


def _stamp(photos: Iterable[Photo]) -> list[list[Any]]:
    """Returns path, size in bytes and modification time of each image and mask, to detect changes."""
    files = [file for photo in photos for file in (photo.image, photo.mask) if file is not None]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return [[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _transforms(capture: Capture, photos: Sequence[Photo]) -> dict[str, Any]:
    """Returns the content of `transforms.json` for the photos as they are prepared."""
    prepared = {before.image: str(now.image) for before, now in zip(capture.photos, photos, strict=True)}
    splits = {f"{split}_filenames": [prepared[image] for image in images] for split, images in capture.splits.items()}
    return {**capture.world, **splits, "frames": [_frame(photo) for photo in photos]}


def _frame(photo: Photo) -> dict[str, Any]:
    camera = photo.camera
    frame = {
        "file_path": str(photo.image),
        "transform_matrix": photo.pose.tolist(),
        "w": camera.width,
        "h": camera.height,
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        **camera.distortion,
    }
    return frame if photo.mask is None else {**frame, "mask_path": str(photo.mask)}


# --- reduced images ------------------------------------------------------------------------------------------------


def reduce_image(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor x factor pixels, with premultiplied alpha: (H, W, C) uint8 -> (H//f, W//f, C) uint8.

    Rows and columns that do not fill a block are cut off, which keeps the intrinsics exact.
    """
    height, width, channels = image.shape[0] // factor, image.shape[1] // factor, image.shape[2]
    blocks = image[: height * factor, : width * factor].astype(np.float32)
    if channels == 4:
        blocks[..., :3] *= blocks[..., 3:] / 255.0
    mean = blocks.reshape(height, factor, width, factor, channels).mean((1, 3))
    if channels == 4:
        mean[..., :3] /= np.maximum(mean[..., 3:] / 255.0, 1e-6)
    return mean.round().clip(0, 255).astype(np.uint8)


def _reduced(photo: Photo, target: Path, factor: int, merge: bool) -> Photo:
    """Writes a reduced image and mask, unless they exist, and returns the photo that has them.

    Args:
        photo: The photo.
        target: File of the reduced image.
        factor: Factor of the reduction.
        merge: Whether masked pixels become transparent. Otherwise the mask stays a file.
    """
    if not target.is_file():
        image = np.asarray(_colour(photo.image))
        if merge and photo.mask is not None:
            image = _with_mask(image, _read_mask(photo.mask, photo.camera))
        _save_whole(target, reduce_image(image, factor))
    mask = None if merge or photo.mask is None else _reduced_mask(photo.mask, photo.camera, target, factor)
    return dataclasses.replace(photo, image=target, mask=mask, camera=_reduced_camera(photo.camera, factor))


def _reduced_camera(camera: Camera, factor: int) -> Camera:
    intrinsics = (value / factor for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return Camera(camera.width // factor, camera.height // factor, *intrinsics, distortion=camera.distortion)


def _reduced_mask(mask: Path, camera: Camera, image: Path, factor: int) -> Path:
    """Writes a reduced mask beside a reduced image, unless it exists, and returns its path."""
    target = image.with_suffix(".mask.png")
    if not target.is_file():
        share = reduce_image(_read_mask(mask, camera)[..., None], factor)[..., 0]
        _save_whole(target, np.where(share >= 128, 255, 0).astype(np.uint8))
    return target


def _with_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns an image (H, W, 3 or 4) whose masked pixels are transparent, (H, W, 4)."""
    alpha = image[..., 3:] if image.shape[2] == 4 else np.full_like(image[..., :1], 255)
    return np.concatenate([image[..., :3], np.minimum(alpha, mask[..., None])], -1)


def _colour(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGBA" if is_transparent(image) else "RGB")


def _read_mask(path: Path, camera: Camera) -> np.ndarray:
    """Returns a mask (H, W) of 0 and 255."""
    try:
        with Image.open(path) as image:
            mask = np.asarray(ImageOps.grayscale(image))
    except OSError as error:
        raise CaptureError(f"the mask {path} cannot be read: {error}") from error
    if mask.shape != (camera.height, camera.width):
        raise CaptureError(
            f"the mask {path} has size {mask.shape[1]}x{mask.shape[0]}, its image {camera.width}x{camera.height}"
        )
    return np.where(mask > 0, 255, 0).astype(np.uint8)


def _save_whole(path: Path, image: np.ndarray) -> None:
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    Image.fromarray(image).save(partial, format="PNG", compress_level=1)
    os.replace(partial, path)


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    partial.write_bytes(content)
    os.replace(partial, path)
