"""Loads a capture of any format: finds the reader, reads, and checks every photo, pose and camera."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Protocol

import numpy as np

from staf_nerf.captures import (
    blender,
    bundler,
    colmap,
    kapture,
    llff,
    metashape,
    middlebury,
    neus,
    openmvg,
    opensfm,
    polycam,
    realitycapture,
    record3d,
    transforms,
)
from staf_nerf.captures.capture import Capture, CaptureError, Kind, ListedPhoto, Listing, Photo, SparsePoints
from staf_nerf.captures.files import check_content, counted
from staf_nerf.captures.images import Header, read_header
from staf_nerf.captures.lenses import camera_of, fits, lens_of, size_of
from staf_nerf.captures.locate import MASK_FOLDERS, locate, masks_beside, was_mended
from staf_nerf.captures.poses import ROUNDED, rigid_pose
from staf_nerf.captures.refusal import refusal
from staf_nerf.captures.splits import complete_splits


class Reader(Protocol):
    """What the module of a format has."""

    @property
    def FILES(self) -> str:
        """The files by which the format is recognised, with the programs that write them, for messages."""
        ...

    def find(self, data: Path, /) -> Path | None:
        """Returns the file or folder that has the poses, or None if the file or folder is of another format."""
        ...

    def read(self, source: Path, data: Path, /) -> Listing:
        """Returns what the files of the capture `data` list. `source` is what `find` returned."""
        ...


READERS: dict[Kind, Reader] = {
    "transforms": transforms,
    "blender": blender,
    "colmap": colmap,
    "llff": llff,
    "neus": neus,
    "middlebury": middlebury,
    "metashape": metashape,
    "realitycapture": realitycapture,
    "opensfm": opensfm,
    "openmvg": openmvg,
    "bundler": bundler,
    "polycam": polycam,
    "record3d": record3d,
    "kapture": kapture,
}
"""The formats. The first that recognises a folder reads it."""


@dataclass(frozen=True)
class Found:
    """A capture that a reader recognises."""

    kind: Kind
    source: Path
    """The file or folder that has the poses."""
    folder: Path
    """The folder of the capture."""
    notes: tuple[str, ...] = ()


def find(data: Path) -> tuple[Kind, Path]:
    """Detects the format of a capture and returns it, with the file or folder that contains the poses.

    Raises:
        CaptureError: If the folder does not exist or contains no supported format.
    """
    found = _find(data)
    return found.kind, found.source


def _find(data: Path) -> Found:
    """Returns the capture in a file or a folder, or in the only sub-folder that has one.

    Raises:
        CaptureError: If there is none, or several sub-folders have one.
    """
    if not data.exists():
        raise CaptureError(f"the data folder {data} does not exist")
    if (found := _recognised(data)) is not None:
        return found
    below = [folder for folder in sorted(data.iterdir()) if folder.is_dir()] if data.is_dir() else []
    captures = [found for folder in below if (found := _recognised(folder)) is not None]
    if len(captures) > 1:
        named = ", ".join(str(found.folder) for found in captures[:8])
        raise CaptureError(f"{data} holds {len(captures)} captures: give the folder of one of them: {named}")
    if captures:
        note = f"The capture in {captures[0].folder.name}, the only one in {data}, is read."
        return dataclasses.replace(captures[0], notes=(note,))
    for above in list(data.parents)[:2] if data.is_dir() else ():
        if (found := _recognised(above)) is not None and _lists_photos_in(found, data):
            raise CaptureError(f"{data} holds no poses, but {above} is the capture of its photos: give that folder")
    raise refusal(data, [reader.FILES for reader in READERS.values()])


def _recognised(data: Path) -> Found | None:
    """Returns the capture that the first reader recognises."""
    folder = data if data.is_dir() else data.parent
    for kind, reader in READERS.items():
        if (source := reader.find(data)) is not None:
            return Found(kind, source, folder)
    return None


def _lists_photos_in(found: Found, folder: Path) -> bool:
    """Returns whether a capture has photos in a folder."""
    try:
        listing = READERS[found.kind].read(found.source, found.folder)
    except CaptureError:
        return False
    return any(folder in photo.image.parents for photo in listing.photos)


def load(data: Path, *, model: Path | None = None, images: Path | None = None) -> Capture:
    """Loads a capture: a folder, or the file with its poses.

    Args:
        data: The folder or file.
        model: File or folder with the poses, if the one that is found is not the one that is wanted.
        images: Folder of the photos, if they do not lie where the files say. Sub-folders stay.

    Raises:
        CaptureError: If the capture cannot be used.
    """
    data = _absolute(data)
    found = _find(data if model is None else _absolute(model))
    root = found.folder if model is None or data.is_file() else data
    listing = READERS[found.kind].read(found.source, root)
    if images is not None:
        listing = _moved(listing, _absolute(images))
    return _checked(found, listing, root)


def _absolute(path: Path) -> Path:
    """Returns an absolute path without "..", so that paths can be compared."""
    return Path(os.path.abspath(Path(path).expanduser()))


def _moved(listing: Listing, images: Path) -> Listing:
    """Returns a listing whose photos lie in another folder: with as many of their sub-folders as exist there."""
    if not images.is_dir():
        raise CaptureError(f"the folder of images {images} does not exist")

    def moved(path: Path) -> Path:
        parts = PureWindowsPath(str(path)).parts  # both separators
        tails = (images.joinpath(*parts[i:]) for i in range(1, len(parts)))
        return next(tail for tail in tails if tail.parent.is_dir())

    photos = (dataclasses.replace(photo, image=moved(photo.image)) for photo in listing.photos)
    splits = {split: tuple(map(moved, paths)) for split, paths in listing.splits.items()}
    return dataclasses.replace(listing, photos=tuple(photos), splits=splits)


def _checked(found: Found, listing: Listing, root: Path) -> Capture:
    """Returns the capture of a listing."""
    source, notes = listing.source, [*found.notes, *listing.notes]
    files = locate([photo.image for photo in listing.photos], root)
    absent = tuple(dict.fromkeys(photo.image for photo in listing.photos if photo.image not in files))
    listed, indices = _once(listing.photos, files, source)
    if not listed:
        raise CaptureError(f"none of the {len(absent)} images listed in {source} exists, for example {absent[0]}")
    if len(listed) < 2:
        raise CaptureError(f"{source} has 1 image; at least 2 are needed, one for training and one for evaluation")
    notes += _notes_on_files(listing.photos, files)
    listed, notes_on_masks = _with_masks(listed, root, source)
    photos, notes_on_photos = _photos(listed, source)
    splits, notes_on_splits = complete_splits(listing.splits, files, absent, source)
    return Capture(
        found.kind,
        photos,
        absent,
        splits,
        listing.world,
        None if listing.points is None else _with_indices(listing.points, indices),
        listing.upright,
        tuple(dict.fromkeys([*notes, *notes_on_masks, *notes_on_photos, *notes_on_splits])),
    )


# --- files -----------------------------------------------------------------------------------------------------------


def _once(
    photos: Sequence[ListedPhoto], files: Mapping[Path, Path], source: Path
) -> tuple[list[ListedPhoto], np.ndarray]:
    """Returns the photos that exist, each once, and the index among them of each listed photo. -1: it does not exist.

    Raises:
        CaptureError: If a photo is listed with two poses.
    """
    kept: dict[Path, int] = {}
    unique: list[ListedPhoto] = []
    indices = np.full(len(photos), -1)
    for i, photo in enumerate(photos):
        file = files.get(photo.image)
        if file is None:
            continue
        indices[i] = kept.setdefault(file, len(unique))
        if indices[i] == len(unique):
            unique.append(dataclasses.replace(photo, image=file))
        elif not np.array_equal(
            np.asarray(photo.pose, dtype=object), np.asarray(unique[indices[i]].pose, dtype=object)
        ):
            raise CaptureError(f"{source} lists {file} twice, with different poses: remove one of the two")
    return unique, indices


def _with_indices(points: SparsePoints, indices: np.ndarray) -> SparsePoints:
    """Returns points whose observations count the photos that are used."""
    if points.observations is None:
        return points
    photos, seen = indices[points.observations[:, 0]], points.observations[:, 1]
    kept = np.unique(np.stack([photos, seen], 1)[photos >= 0], axis=0)
    return dataclasses.replace(points, observations=kept)


def _notes_on_files(photos: Sequence[ListedPhoto], files: Mapping[Path, Path]) -> list[str]:
    """Returns notes on photos that are listed twice, or by paths that were mended."""
    existing = [photo.image for photo in photos if photo.image in files]
    notes = []
    if repeated := len(existing) - len({files[path] for path in existing}):
        notes.append(f"{counted(repeated, 'photo')} listed more than once: used once.")
    mended = [path for path in dict.fromkeys(existing) if was_mended(path, files[path])]
    if mended:
        notes.append(
            f"Paths of {len(mended)} of {counted(len(set(existing)), 'image')} were mended: "
            f"{_tail(mended[0])} is {files[mended[0]]}, for example."
        )
    return notes


def _tail(path: Path) -> str:
    """Returns the last parts of a listed path."""
    return "/".join(path.parts[-2:])


def _with_masks(photos: Sequence[ListedPhoto], root: Path, source: Path) -> tuple[list[ListedPhoto], list[str]]:
    """Returns the photos with masks that exist: the listed ones, or if none is listed those beside the images.

    Raises:
        CaptureError: If no listed mask exists, or a mask has no content.
    """
    listed = [photo.mask for photo in photos if photo.mask is not None]
    notes = []
    if listed:
        files = locate(listed, root, MASK_FOLDERS)
        if not files:
            raise CaptureError(
                f"none of the {counted(len(listed), 'mask')} listed in {source} exists, for example {listed[0]}.\n"
                "Complete the download, or remove mask_path to train without masks."
            )
        if lost := [path for path in listed if path not in files]:
            notes.append(
                f"{counted(len(lost), 'listed mask')} not found, for example {lost[0]}: these photos count whole."
            )
        masks = {photo.image: files.get(photo.mask) for photo in photos if photo.mask is not None}
    else:
        masks = masks_beside([photo.image for photo in photos], root)
        if masks:
            folder = next(iter(masks.values())).parent
            notes.append(
                f"Masks in {folder} are used, although they are not listed: {len(masks)} of {len(photos)} photos."
            )
    for mask in masks.values():
        if mask is not None:
            check_content(mask)
    return [dataclasses.replace(photo, mask=masks.get(photo.image)) for photo in photos], notes


# --- photos ----------------------------------------------------------------------------------------------------------


def _photos(listed: Sequence[ListedPhoto], source: Path) -> tuple[tuple[Photo, ...], list[str]]:
    """Returns the photos with their poses and cameras, and notes on them. Poses are checked first."""
    poses = [rigid_pose(photo.pose, str(photo.image)) for photo in listed]
    for photo in listed:
        lens_of(photo.camera, _named(photo, source))
        size_of(photo.camera, _named(photo, source))
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(read_header, [photo.image for photo in listed]))
    photos = tuple(
        _photo(photo, pose, header, source) for photo, (pose, _), header in zip(listed, poses, headers, strict=True)
    )
    scales = [scale for _, scale in poses if abs(scale - 1) > ROUNDED]
    notes = [
        *([f"{counted(len(scales), 'pose')} with axes of length {scales[0]:.4g}: made rotations."] if scales else []),
        *_notes_on_sizes(listed, photos, source),
        *_notes_on_tags(listed, photos, [header.orientation for header in headers], source),
    ]
    return photos, notes


def _notes_on_sizes(listed: Sequence[ListedPhoto], photos: Sequence[Photo], source: Path) -> list[str]:
    """Returns a note on images that are reduced or enlarged against what is listed."""
    sizes = (size_of(photo.camera, _named(photo, source)) for photo in listed)
    resized = [
        (photo, size)
        for photo, size in zip(photos, sizes, strict=True)
        if size not in (None, (photo.camera.width, photo.camera.height))
    ]
    if not resized:
        return []
    photo, (width, height) = resized[0]
    return [
        f"{counted(len(resized), 'image')} of another size than listed, for example {photo.image.name} of "
        f"{photo.camera.width}x{photo.camera.height} instead of {width}x{height}: the intrinsics are scaled."
    ]


def _notes_on_tags(
    listed: Sequence[ListedPhoto], photos: Sequence[Photo], tags: Sequence[int], source: Path
) -> list[str]:
    """Returns notes on EXIF orientations that are applied, and on those that may be meant but are not."""
    turned, ignored = [photo for photo in photos if photo.orientation != 1], []
    for before, photo, tag in zip(listed, photos, tags, strict=True):
        size = photo.camera.width, photo.camera.height
        wanted = size_of(before.camera, _named(before, source)) or _turned(size, tag)
        if tag != 1 and photo.orientation == 1 and fits(wanted, _turned(size, tag)):
            ignored.append(photo)
    notes = []
    if turned:
        notes.append(f"{counted(len(turned), 'image')} turned by the EXIF orientation, as the listed sizes ask for.")
    if ignored:
        notes.append(
            f"{counted(len(ignored), 'image')} with an EXIF orientation, {ignored[0].image.name} for example, "
            "used as the pixels are stored: poses must be those of the stored pixels."
        )
    return notes


def _photo(listed: ListedPhoto, pose: np.ndarray, header: Header, source: Path) -> Photo:
    """Returns a photo with the camera that fits its pixels, or its pixels turned as the EXIF tag says."""
    named, size, tag, has_alpha = _named(listed, source), header.size, header.orientation, header.has_alpha
    wanted = size_of(listed.camera, named) or size
    if fits(wanted, size):
        return Photo(listed.image, pose, camera_of(listed.camera, size, named), has_alpha, listed.mask)
    if tag == 1 or not fits(wanted, _turned(size, tag)):
        raise CaptureError(_of_other_size(listed.image, size, wanted, tag))
    return Photo(listed.image, pose, camera_of(listed.camera, _turned(size, tag), named), has_alpha, listed.mask, tag)


def _turned(size: tuple[int, int], tag: int) -> tuple[int, int]:
    """Returns the size of an image that is turned as an EXIF orientation says. From 5 on they swap the sides."""
    return (size[1], size[0]) if tag >= 5 else size


def _of_other_size(image: Path, size: tuple[int, int], listed: tuple[int, int], tag: int) -> str:
    text = f"the image {image} has size {size[0]}x{size[1]}, but {listed[0]}x{listed[1]} is listed"
    if tag != 1:
        return f"{text}, with and without its EXIF orientation {tag}.\nList the size of the pixels, or export again."
    if listed == (size[1], size[0]):
        return f"{text}, as if it were turned, and it has no EXIF orientation.\nTurn the image, or export again."
    return f"{text}, of another shape. Is it cropped, or from another capture?"


def _named(photo: ListedPhoto, source: Path) -> str:
    """Returns a photo for messages."""
    return f"{photo.image} (listed in {source})"
