"""Masks of photos: which pixels count, 255, and which do not, 0.

White is the object. A mask is never inverted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.images import TRANSPOSITIONS, opened

WHITE_ENOUGH = 128
"""Least value of a pixel that counts, of 255. The ringing of JPEG around an object stays below."""
FEW = 32
"""Masks whose largest value is below have numbers of objects in them: 0 is the background."""


def threshold(masks: Iterable[Path]) -> float:
    """Returns the least value of a pixel that counts, for the masks of a capture.

    It is 128. If no mask reaches that, it is half of the largest value, or 1 if the values are numbers of objects.

    Raises:
        CaptureError: If all masks are black.
    """
    largest, last = 0, None
    for last in masks:
        largest = max(largest, int(_values(last).max()))
        if largest >= WHITE_ENOUGH:
            return WHITE_ENOUGH
    if largest == 0:
        raise CaptureError(
            f"no mask has a white pixel, so nothing would be trained: see {last}, for example.\n"
            "White is what counts. Remove the masks from the capture to train without them."
        )
    return 1 if largest < FEW else largest / 2


def read_mask(path: Path, size: tuple[int, int], *, least: float = WHITE_ENOUGH, orientation: int = 1) -> np.ndarray:
    """Returns a mask (H, W) of 0 and 255.

    Args:
        path: The file: grey, colours, a palette, or a picture whose transparency is the mask.
        size: Width and height of the photo. A mask of the same shape and another size is resized.
        least: Least value of a pixel that counts, from `threshold`.
        orientation: EXIF orientation that was applied to the photo. A mask that fits only when turned is turned too.

    Raises:
        CaptureError: If the file cannot be read, or has another shape.
    """
    counts = _white(_values(path) >= least)
    if not _same_shape(counts, size) and orientation in TRANSPOSITIONS:
        counts = np.asarray(Image.fromarray(counts).transpose(TRANSPOSITIONS[orientation]))
    if not _same_shape(counts, size):
        height, width = counts.shape
        raise CaptureError(
            f"the mask {path} has size {width}x{height}, its image {size[0]}x{size[1]}, which is of another shape.\n"
            "Make the mask from this image, or remove it from the capture."
        )
    return resize_mask(counts, size)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask (H, W) of another width and height. A pixel counts if half of its area does."""
    import cv2

    height, width = mask.shape
    if (width, height) == size:
        return mask
    smaller = size[0] <= width and size[1] <= height
    share = cv2.resize(mask, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return _white(share >= WHITE_ENOUGH)


def _white(counts: np.ndarray) -> np.ndarray:
    """Returns 255 where something is true, and 0 elsewhere."""
    return counts.view(np.uint8) * np.uint8(255)


def _same_shape(mask: np.ndarray, size: tuple[int, int]) -> bool:
    """Returns whether a mask has the proportions of a photo, up to the rounding of one side to whole pixels."""
    (height, width), (photo_width, photo_height) = mask.shape, size
    across, down = width / photo_width, height / photo_height
    return abs(height - photo_height * across) <= max(1, across) or abs(width - photo_width * down) <= max(1, down)


def _values(path: Path) -> np.ndarray:
    """Returns the values of a mask (H, W) uint8, whatever the kind of file."""
    with opened(path, "mask") as image:
        image.load()
        if image.has_transparency_data:
            pixels = np.asarray(image.convert("RGBA"))
            alpha = pixels[..., 3]
            # Opaque everywhere: the alpha channel says nothing, so the colours are the mask.
            return pixels[..., :3].max(-1) if alpha.min() == 255 else alpha
        if image.mode == "F" or image.mode.startswith("I"):
            return _of_eight_bits(np.asarray(image).astype(np.float64), 1.0 if image.mode == "F" else 65535.0)
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L"))
        return _labels(image) if image.mode == "P" else np.asarray(image.convert("RGB")).max(-1)


def _of_eight_bits(values: np.ndarray, white: float) -> np.ndarray:
    """Returns values up to `white` with 8 bits. Values that are meant for 8 bits, 1 < values <= 255, stay."""
    in_eight_bits = values.max() <= 255 if white > 255 else values.max() > 1
    scale = 1.0 if in_eight_bits else 255.0 / white
    return np.nan_to_num(values * scale).clip(0, 255).round().astype(np.uint8)


def _labels(image: Image.Image) -> np.ndarray:
    """Returns the values of a palette image. In a palette of colours, all but black are objects."""
    pixels = np.asarray(image.convert("RGB"))
    is_grey = (pixels == pixels[..., :1]).all()
    return pixels[..., 0] if is_grey else _white(pixels.any(-1))
