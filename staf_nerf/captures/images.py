"""Photos as pixels: any kind of image file as uint8 RGB or RGBA in sRGB, and exact reduction.

16-bit values are scaled to 8 bits. Alpha is not premultiplied. Pixels are as the file stores them, unless an EXIF
orientation is asked for.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.files import LFS_HEAD

RAW_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw")
"""Raw files of cameras. Pillow takes some of them for TIFF files, and reads the small preview."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Kinds of HEIC and HEIF files, by the bytes 8 to 12 (ISO/IEC 23008-12). Many such files are named .jpg."""

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns stored pixels upright, by the EXIF orientation."""


@dataclass(frozen=True)
class Header:
    """What an image file says of itself. The pixels are not read."""

    size: tuple[int, int]
    """Width and height as stored."""
    has_alpha: bool
    """Whether the image has an alpha channel or a transparent colour."""
    orientation: int
    """The EXIF orientation, 1 to 8."""
    profile: str | None
    """Name of the colour profile. None: sRGB, or none."""
    is_plain: bool
    """Whether every program reads the file as the same 8-bit grey, RGB or RGBA."""


def read_header(path: Path) -> Header:
    """Returns what an image file says of itself.

    Raises:
        CaptureError: If the file is of no kind that is read.
    """
    with opened(path) as image:
        orientation = image.getexif().get(0x0112, 1) if "exif" in image.info or image.format in ("TIFF", "MPO") else 1
        profile = _profile_name(image)
        is_plain = (
            image.mode in ("L", "RGB", "RGBA")
            and "transparency" not in image.info
            and image.format != "HEIF"
            and profile is None
        )
        orientation = orientation if orientation in TRANSPOSITIONS else 1
        return Header(image.size, image.has_transparency_data, orientation, profile, is_plain)


def check_pixels(path: Path) -> None:
    """Reads an image whole.

    Raises:
        CaptureError: If the file is damaged or truncated.
    """
    with opened(path) as image:
        image.draft("L", (image.width // 8, image.height // 8))  # JPEG: all data are read, in a third of the time
        image.load()


def open_photo(path: Path, *, orientation: int = 1) -> np.ndarray:
    """Returns the pixels of an image of any kind in sRGB, (H, W, 3 or 4) uint8.

    Args:
        path: The file. Of an animation or a file with several pages the first is read.
        orientation: EXIF orientation to be applied. The file's own tag is not looked at.

    Raises:
        CaptureError: If the file cannot be read, or it is not known how its values are meant.
    """
    pixels, profile = read_pixels(path, orientation=orientation)
    return to_srgb(pixels, profile)


def read_pixels(path: Path, *, orientation: int = 1) -> tuple[np.ndarray, bytes | None]:
    """Returns the pixels as `open_photo` does, but with the colours of the file, and its RGB profile if not sRGB.

    So a photo can be reduced before its colours are converted, which takes longer than reading does.
    """
    with opened(path) as image:
        image.load()
        profile = image.info.get("icc_profile") if _profile_name(image) else None
        if profile and image.mode == "CMYK":
            colors, profile = _converted(image, profile), None
        else:
            colors = as_rgb(image, path)
        if orientation in TRANSPOSITIONS:
            colors = colors.transpose(TRANSPOSITIONS[orientation])
        return np.asarray(colors), profile


def to_srgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Returns pixels (H, W, 3 or 4) in sRGB. `profile` is the ICC profile of the pixels, or None for sRGB."""
    return pixels if profile is None else np.asarray(_converted(Image.fromarray(pixels), profile))


@contextmanager
def opened(path: Path, what: str = "image") -> Iterator[Image.Image]:
    """Context of an open image file. Errors of reading become CaptureErrors, which name the file and the remedy.

    Args:
        path: The file.
        what: What the file is, for messages.
    """
    _check_kind(path, what)
    try:
        with Image.open(path) as image:
            yield image
    except CaptureError:
        raise
    except UnidentifiedImageError as error:
        raise CaptureError(
            f"the {what} {path} cannot be read: it is damaged, or of no known kind.\n"
            "JPEG, PNG, TIFF and WebP with 8 or 16 bits can be read, for example."
        ) from error
    except Image.DecompressionBombError as error:
        raise CaptureError(f"the {what} {path} is too large, reduce it first: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise CaptureError(f"the {what} {path} cannot be read: {error}. Is it damaged? Copy it again.") from error


def _check_kind(path: Path, what: str) -> None:
    """Refuses what Pillow would not name, or would read wrongly. Registers pillow-heif if it is needed."""
    try:
        with path.open("rb") as file:
            head = file.read(max(len(LFS_HEAD), 12))
    except OSError as error:
        raise CaptureError(f"the {what} {path} cannot be read: {error}") from error
    if not head:
        raise CaptureError(f"the {what} {path} cannot be read: it is empty. Copy or download it again.")
    if head.startswith(LFS_HEAD):
        raise CaptureError(f"{path} is a Git LFS pointer, not the {what}: run `git lfs pull` in its repository")
    if path.suffix.lower() in RAW_SUFFIXES:
        raise CaptureError(f"{path} is a camera's raw file, which is not read: export it as JPEG, PNG or TIFF")
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        _register_heif(path)


def _register_heif(path: Path) -> None:
    """Lets Pillow read HEIC."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise CaptureError(
            f"{path} is a HEIC photo, and pillow-heif, which reads it, is not installed.\n"
            "To get it: pip install pillow-heif. Or export the photos as JPEG."
        ) from error
    heif.register_heif_opener()


# --- values of 8 bits ------------------------------------------------------------------------------------------------


def as_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Returns an open image of any mode as RGB or RGBA. Pillow itself reads 16-bit RGB as its high bytes."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image, path).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _scaled(image: Image.Image, path: Path) -> Image.Image:
    """Returns a grey image of 16-bit integers or of numbers from 0 to 1 with 8 bits."""
    values = np.asarray(image).astype(np.float64)
    largest, unit = (1.0, "0 to 1") if image.mode == "F" else (65535.0, "16 bits")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= largest):
        raise CaptureError(
            f"the image {path} has values from {values.min():g} to {values.max():g}; {unit} can be read, where the "
            f"largest value, {largest:g}, is white.\nExport it with 8 or 16 bits."
        )
    return Image.fromarray((values * (255.0 / largest)).round().astype(np.uint8))


# --- colour profiles -------------------------------------------------------------------------------------------------


def _profile_name(image: Image.Image) -> str | None:
    """Returns the name of an image's colour profile, or None for sRGB, grey, none, or one that is damaged."""
    data = image.info.get("icc_profile")
    if not data or image.mode == "F" or image.mode.startswith("I"):
        return None
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip()
    except (ImageCms.PyCMSError, OSError):
        return None
    fits = _color_space(data) == (b"CMYK" if image.mode == "CMYK" else b"RGB ")
    return name if fits and "srgb" not in name.lower() else None


def _color_space(profile: bytes) -> bytes:
    """Returns the colours that a profile describes (ICC.1, the header's bytes 16 to 19)."""
    return profile[16:20]


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    """Returns an image with a colour profile in sRGB. Alpha stays."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    assert converted is not None  # it is only if the image is changed in place
    return converted


# --- reduction -------------------------------------------------------------------------------------------------------


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages over the area of each new pixel, with premultiplied alpha: (H, W, C) uint8 -> (height, width, C) uint8.

    Args:
        image: The pixels, with 1, 3 or 4 channels.
        size: New width and height, no larger than the old ones. The new image covers the whole old one.
    """
    height, width, channels = image.shape
    factor = width // size[0]
    if (width, height) == (size[0] * factor, size[1] * factor):
        return reduce_image(image, factor)
    if channels < 4:
        return _averaged(image, size).reshape(size[1], size[0], channels)
    *colors, alpha = _averaged_premultiplied(image, size)
    colors = [color * (255 / np.maximum(alpha, 1)) for color in colors]
    return np.dstack([*colors, alpha / 255]).round().clip(0, 255).astype(np.uint8)


def reduce_image(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor x factor pixels, with premultiplied alpha: (H, W, C) uint8 -> (H//f, W//f, C) uint8.

    Rows and columns that do not fill a block are cut off, which keeps the intrinsics exact.
    """
    if factor == 1:
        return image
    height, width, channels = image.shape[0] // factor, image.shape[1] // factor, image.shape[2]
    blocks = image[: height * factor, : width * factor]
    if channels == 4:
        return _reduced_rgba(blocks.reshape(height, factor, width, factor, channels))
    # Two sums in turn, since NumPy's over both axes at once takes eight times as long.
    rows = blocks.reshape(height, factor, -1).sum(1, dtype=np.uint32).reshape(height, width, factor, channels)
    sums = np.stack([rows[:, :, i] for i in range(factor)]).sum(0)
    return (sums.astype(np.float32) / np.float32(factor * factor)).round().astype(np.uint8)


def _reduced_rgba(blocks: np.ndarray) -> np.ndarray:
    """Returns the means of blocks (height, factor, width, factor, 4) in float32, with premultiplied alpha."""
    reduced = np.empty((blocks.shape[0], blocks.shape[2], 4), dtype=np.uint8)
    for row, values in zip(reduced, blocks, strict=True):
        premultiplied = values.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255.0
        mean = premultiplied.mean((0, 2))
        mean[..., :3] /= np.maximum(mean[..., 3:] / 255.0, 1e-6)
        row[:] = mean.round().clip(0, 255)
    return reduced


def _averaged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns means over areas. OpenCV weighs partly covered pixels by their share; Pillow's box filter does not."""
    import cv2

    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _averaged_premultiplied(image: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Returns the means of colour times alpha for the three colours, and of 255 times alpha: (height, width) float32.

    The products are kept in 16 bits, plane by plane, which takes a quarter of the time of floating point.
    """
    import cv2

    *colors, alpha = cv2.split(image)
    products = [cv2.multiply(plane, alpha, dtype=cv2.CV_16U) for plane in (*colors, np.full_like(alpha, 255))]
    return [_averaged(product, size).astype(np.float32) for product in products]
