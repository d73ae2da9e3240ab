"""Gathers photos and their masks, and writes upright copies with what EXIF says of their cameras.

Sizes are (width, height) in pixels, after the EXIF orientation was applied. Masks are 255 where a photo is used.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.images import RAW_SUFFIXES, open_photo, opened, read_header
from staf_nerf.captures.masks import WHITE_ENOUGH, read_mask
from staf_nerf.captures.quality import laplacian

PHOTOS = (".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".webp", ".bmp", ".jp2", ".ppm", ".heic", ".heif", ".avif")
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp", ".wmv", ".mpg", ".mpeg")
HEIC = (".heic", ".heif")
MASK_FOLDERS = ("masks", "mask")
MASK_SUFFIXES = (".mask.png", "_mask.png")
REDUCED = "images_"
"""Beginning of the folders that hold reduced copies of the photos in nerfstudio's captures."""
DIAGONAL = 43.267
"""Diagonal of a 35 mm frame (36 x 24) in millimetres, by which equivalent focal lengths are defined (CIPA DCG-001)."""
MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""Millimetres in EXIF's units of the focal plane: inch, centimetre, millimetre, micrometre."""
SAME_RATIO = 0.02
"""Relative difference of two aspect ratios up to which a photo counts as not cropped. Sides are rounded to 8 or 16."""
JPEG = {"quality": 95, "subsampling": 0}
"""How copies of photos with lossy compression are written."""
SEEN = 640
"""Longest side, in pixels, of the reduced photo in which sharpness is measured."""


@dataclass(frozen=True)
class Source:
    """A photo of the user."""

    path: Path
    mask: Path | None
    stem: str
    """Name of its copy, without the suffix."""


@dataclass(frozen=True)
class Upright:
    """The upright copy of a photo."""

    name: str
    size: tuple[int, int]
    camera: tuple[Any, ...]
    """What tells its camera from others: body, lens, focal length, size."""
    focal: float | None
    """Focal length in pixels by EXIF. None: EXIF does not say."""
    sharpness: float
    """Variance of the Laplacian of the reduced grey photo, in grey levels."""
    masked: bool
    """Whether there is a mask, or transparency, which hides a part of the photo."""


# --- what the user gives ---------------------------------------------------------------------------------------------


def gather(inputs: Sequence[Path], masks: Path | None = None) -> tuple[list[Source], list[Path]]:
    """Returns the photos and the videos that are meant by files, folders and patterns.

    Of a folder that holds photos and videos, the photos are taken. Phones keep a short film beside a photo.

    Args:
        inputs: Files, folders or patterns such as "photos/*.jpg".
        masks: Folder of masks. None: those that lie beside the photos.

    Raises:
        CaptureError: If an input does not exist, or holds no photo and no video.
    """
    photos, videos = [], []
    for path in dict.fromkeys(found for given in inputs for found in _expanded(given)):
        found, films = _held(path)
        photos += found
        videos += films
    photos = list(dict.fromkeys(photos))
    if masks is not None and not masks.is_dir():
        raise CaptureError(f"the folder of masks {masks} does not exist")
    found_masks = [_mask(photo, masks) for photo in photos]
    if masks is not None and photos and not any(found_masks):
        raise CaptureError(f"{masks} has no mask of {photos[0].name}: it must be {photos[0].stem}.png")
    used = {mask for mask in found_masks if mask is not None}
    kept = [(photo, mask) for photo, mask in zip(photos, found_masks, strict=True) if photo not in used]
    stems = _stems([photo for photo, _ in kept])
    return [Source(photo, mask, stem) for (photo, mask), stem in zip(kept, stems, strict=True)], videos


def _expanded(given: Path) -> list[Path]:
    """Returns the path, or what a pattern matches, which the shell may have left as it is."""
    path = given.expanduser()
    if path.exists():
        return [path.absolute()]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise CaptureError(f"{given} does not exist")
    return [Path(match).absolute() for match in matches]


def _held(path: Path) -> tuple[list[Path], list[Path]]:
    """Returns the photos and videos of a folder, or the file itself."""
    if path.is_file():
        _refuse_unreadable(path)
        return ([path], []) if path.suffix.lower() in PHOTOS else ([], [path])
    files = _files(path)
    photos = [file for file in files if file.suffix.lower() in PHOTOS]
    videos = [file for file in files if file.suffix.lower() in VIDEOS]
    if photos:
        return photos, []
    if not videos:
        raw = next((file for file in files if file.suffix.lower() in RAW_SUFFIXES), None)
        if raw is not None:
            _refuse_unreadable(raw)
        raise CaptureError(f"{path} holds no photos and no video. Photos end in {', '.join(PHOTOS)}")
    return [], videos


def _refuse_unreadable(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        raise CaptureError(f"{path} is a raw photo. Convert raw photos to JPEG or TIFF, all with the same settings")
    if suffix not in (*PHOTOS, *VIDEOS):
        raise CaptureError(f"{path} is no photo and no video: photos end in {', '.join(PHOTOS)}")


def _files(folder: Path) -> list[Path]:
    """Returns the files in a folder and below it. Of a capture these are its images."""
    for name in ("images", "input", "rgb"):
        if (folder / name).is_dir() and not any(file.suffix.lower() in PHOTOS for file in folder.iterdir()):
            return _files(folder / name)
    found: list[Path] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: _natural(entry.name)):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            found.append(entry)
        elif entry.is_dir() and entry.name.lower() not in MASK_FOLDERS and not entry.name.startswith(REDUCED):
            found += _files(entry)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts names as people do: photo 9 before photo 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _mask(photo: Path, folder: Path | None) -> Path | None:
    """Returns the mask of a photo, by the names that are in use."""
    names = (f"{photo.stem}.png", f"{photo.name}.png", f"{photo.stem}.jpg")
    folders = [folder] if folder is not None else _mask_folders(photo)
    candidates = [place / name for place in folders for name in names]
    if folder is None:
        candidates += [photo.with_name(photo.stem + suffix) for suffix in MASK_SUFFIXES]
    return next((path for path in candidates if path.is_file() and path != photo), None)


def _mask_folders(photo: Path) -> list[Path]:
    """Returns where masks of a photo may lie: in its folder, or beside it."""
    return [place / name for place in (photo.parent, photo.parent.parent) for name in MASK_FOLDERS]


def _stems(photos: Sequence[Path]) -> list[str]:
    """Returns a name for each copy. Photos of one name get their folder's name before it, or a number."""
    plain = [photo.stem for photo in photos]
    often = Counter(stem.lower() for stem in plain)
    wanted = [
        f"{photo.parent.name}_{stem}" if often[stem.lower()] > 1 else stem
        for photo, stem in zip(photos, plain, strict=True)
    ]
    taken: set[str] = set()
    found = []
    for stem in wanted:
        number, free = 2, stem
        while free.lower() in taken:
            free, number = f"{stem}_{number}", number + 1
        taken.add(free.lower())
        found.append(free)
    return found


# --- upright copies --------------------------------------------------------------------------------------------------


def check_formats(sources: Iterable[Source]) -> None:
    """Refuses photos of a format that this installation cannot read, before any work is done.

    Raises:
        CaptureError: If there is one.
    """
    first = next((source.path for source in sources if source.path.suffix.lower() in HEIC), None)
    if first is None:
        return
    if importlib.util.find_spec("pillow_heif") is None:
        raise CaptureError(f"{first} is HEIC. To read it: pip install pillow-heif (or convert the photos to JPEG)")


def write_upright(source: Source, images: Path, masks: Path, least: float = WHITE_ENOUGH) -> Upright:
    """Writes an upright copy of a photo and of its mask, unless they exist, and says what EXIF tells of the camera.

    A photo that is upright already is copied as it is, if it is an 8-bit JPEG or PNG in sRGB.

    Args:
        source: The photo.
        images: Folder of the copies.
        masks: Folder of the masks of the copies.
        least: Least value of a mask's pixel that counts, from `staf_nerf.captures.masks.threshold`.

    Raises:
        CaptureError: If the photo or its mask cannot be read.
    """
    header = read_header(source.path)
    with opened(source.path, "photo") as image:
        exif, kind, is_animated = _exif(image), image.format, getattr(image, "is_animated", False)
    as_it_is = header.is_plain and header.orientation == 1 and kind in ("JPEG", "MPO", "PNG") and not is_animated
    is_lossy, stored = kind not in ("PNG", "TIFF", "BMP", "PPM"), header.size
    upright = Image.fromarray(open_photo(source.path, orientation=header.orientation))
    suffix = source.path.suffix.lower() if as_it_is else ".jpg" if is_lossy and upright.mode == "RGB" else ".png"
    target = images / f"{source.stem}{suffix}"
    if not target.is_file():
        _write(target, upright, source.path if as_it_is else None)
    masked = _write_mask(source, upright, header.orientation, least, masks / f"{target.name}.png")
    width, height = upright.size
    grey = np.asarray(ImageOps.contain(upright.convert("L"), (SEEN, SEEN), Image.Resampling.BOX))
    camera = (*_body(exif), width, height)
    return Upright(target.name, upright.size, camera, focal_length(exif, stored), sharpness(grey), masked)


def sharpness(grey: np.ndarray) -> float:
    """Returns the variance of the Laplacian of a grey image (H, W): small if it is blurred.

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.
    """
    edges = laplacian(grey.astype(np.float32))
    return float(edges.var()) if edges.size else 0.0


def write_whole_image(path: Path, image: Image.Image) -> None:
    """Writes a JPEG or PNG beside its place, and moves it there when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".png":
        image.save(partial, format="PNG", compress_level=3)
    else:
        image.save(partial, format="JPEG", **JPEG)
    os.replace(partial, path)


def _write(target: Path, image: Image.Image, original: Path | None) -> None:
    """Writes the copy of a photo: of the original file's bytes, if there is one."""
    if original is None:
        write_whole_image(target, image)
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(original, partial)
    os.replace(partial, target)


def _write_mask(source: Source, image: Image.Image, orientation: int, least: float, target: Path) -> bool:
    """Writes the mask of a photo at the photo's size, and returns whether there is one.

    Transparency is no mask of its own, as the copy has it too. But features must not lie where nothing is seen, so
    it is written as one beside the others.
    """
    if source.mask is not None:
        mask = read_mask(source.mask, image.size, least=least, orientation=orientation)
    else:
        mask = _alpha_mask(image)
    if mask is not None and not target.is_file():
        write_whole_image(target, Image.fromarray(mask))
    return mask is not None


def _alpha_mask(image: Image.Image) -> np.ndarray | None:
    """Returns 255 where an image is not transparent and 0 elsewhere, or None if it is opaque everywhere."""
    if image.mode != "RGBA":
        return None
    alpha = np.asarray(image.getchannel("A"))
    return np.where(alpha >= WHITE_ENOUGH, 255, 0).astype(np.uint8) if alpha.min() < WHITE_ENOUGH else None


# --- EXIF ------------------------------------------------------------------------------------------------------------


def _exif(image: Image.Image) -> dict[int, Any]:
    """Returns all EXIF tags of a photo. Damaged ones are left out: they are not needed."""
    try:
        exif = image.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return {}


def _body(exif: dict[int, Any]) -> tuple[Any, ...]:
    """Returns what tells the camera of a photo from others."""
    names = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.LensModel, ExifTags.Base.BodySerialNumber)
    return (*(str(exif.get(name, "")).strip("\0 ") for name in names), _number(exif, ExifTags.Base.FocalLength) or 0.0)


def focal_length(exif: dict[int, Any], size: tuple[int, int]) -> float | None:
    """Returns the focal length in pixels that EXIF gives for a photo of that stored size, or None.

    It is not used for a photo that was cropped after it was taken, which its aspect ratio tells.
    """
    taken = [_number(exif, name) for name in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    width = taken[0] or size[0]
    if taken[0] and taken[1] and not _same_ratio(size, (taken[0], taken[1])):
        return None
    if (equivalent := _number(exif, ExifTags.Base.FocalLengthIn35mmFilm)) is not None:
        return equivalent / DIAGONAL * float(np.hypot(*size))
    millimetres, density = _number(exif, ExifTags.Base.FocalLength), _number(exif, ExifTags.Base.FocalPlaneXResolution)
    unit = MILLIMETRES.get(int(_number(exif, ExifTags.Base.FocalPlaneResolutionUnit) or 2))
    if millimetres is None or density is None or unit is None:
        return None
    return millimetres * density / unit * size[0] / width


def _same_ratio(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two sizes have the same ratio of the longer to the shorter side."""
    ratios = [max(sides) / min(sides) for sides in (size, other)]
    return abs(ratios[0] / ratios[1] - 1) < SAME_RATIO


def _number(exif: dict[int, Any], tag: int) -> float | None:
    """Returns a positive number of EXIF. None: it is absent, zero (which means unknown) or damaged."""
    try:
        value = float(exif[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if 0 < value < 1e9 else None
