"""Image files of any bit depth: read as (height, width, channels), and written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.signals.raster import DEPTHS, Pixels, Raster

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".hdr", ".webp", ".bmp")


def read_image(path: Path) -> Pixels:
    """Reads an image (height, width, channels): uint8, uint16, or float32 for EXR, HDR and float TIFF.

    Photos are rotated according to their EXIF orientation.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not an image, or its values are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the image {path} does not exist")
    pixels = _read_photo(path) if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else _read_with_opencv(path)
    if pixels is None:
        raise ValueError(f"{path} cannot be read as an image: it is damaged or has another format")
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.dtype.name not in (*DEPTHS, "float32"):
        pixels = pixels.astype(np.float32)
    try:
        Raster.of(pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return np.ascontiguousarray(pixels)


def write_image(path: Path, pixels: Pixels) -> None:
    """Writes an image as returned by `read_image`: integers as PNG or TIFF, floats as EXR, HDR or TIFF.

    Raises:
        OSError: If the file cannot be written.
    """
    cv2 = opencv()
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    bgr = cv2.cvtColor(pixels, codes[pixels.shape[2]]) if pixels.shape[2] in codes else pixels
    # OpenCV's default compression of float TIFF is lossy.
    options = (cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW) if path.suffix[:4] == ".tif" else ()
    try:
        written = cv2.imwrite(str(path), bgr, options)
    except cv2.error as error:
        raise OSError(f"could not write {path}: {error}") from error
    if not written:
        raise OSError(f"could not write {path}")


def _read_photo(path: Path) -> Pixels | None:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.array(upright if upright.mode in ("L", "RGB", "RGBA") else upright.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None


def _read_with_opencv(path: Path) -> Pixels | None:
    cv2 = opencv()
    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.ndim == 2 or pixels.shape[2] not in (3, 4):
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def opencv() -> Any:
    """Returns OpenCV, which can read EXR files then."""
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV reads this when it opens the first EXR file
    import cv2

    return cv2
