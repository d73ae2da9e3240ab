"""Reader of blender's synthetic scenes, as in NeRF's data set: `transforms_train.json`, `_val` and `_test`."""

from __future__ import annotations

from pathlib import Path

from staf_nerf.captures import transforms
from staf_nerf.captures.capture import SPLITS, CaptureError, ListedPhoto, Listing

FILES = "transforms_train.json (blender)"


def find(data: Path) -> Path | None:
    """Returns the folder with the poses, in which `data` may be one of the files. None: it is another format."""
    folder = data.parent if data.name in transforms.BLENDER_FILES else data
    return folder if any(_path(folder, split).is_file() for split in SPLITS) else None


def read(folder: Path, data: Path) -> Listing:
    """Returns what the files list, with a split for each file.

    Raises:
        CaptureError: If a file is damaged, or none lists photos.
    """
    photos: list[ListedPhoto] = []
    splits: dict[str, tuple[Path, ...]] = {}
    notes: list[str] = []
    for split in SPLITS:
        path = _path(folder, split)
        if path.is_file():
            listing = transforms.read_frames(path)
            photos += listing.photos
            notes += listing.notes
            splits[split] = tuple(photo.image for photo in listing.photos)
    if not photos:
        raise CaptureError(f"the transforms files in {folder} list no frames that have a pose ('transform_matrix')")
    return Listing(folder, tuple(photos), splits, notes=tuple(notes))


def _path(folder: Path, split: str) -> Path:
    return folder / f"transforms_{split}.json"
