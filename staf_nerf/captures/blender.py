"""Reader of blender's synthetic scenes, as in NeRF's data set: `transforms_train.json`, `_val` and `_test`."""

from __future__ import annotations

from pathlib import Path

from staf_nerf.captures import transforms
from staf_nerf.captures.capture import SPLITS, ListedPhoto, Listing

FILES = "transforms_train.json (blender)"


def find(data: Path) -> Path | None:
    """Returns the folder with the poses, or None if it is another format."""
    return data if (data / "transforms_train.json").is_file() else None


def read(folder: Path, data: Path) -> Listing:
    """Returns what the files list, with a split for each file.

    Raises:
        CaptureError: If a file is damaged or lists no photos.
    """
    photos: list[ListedPhoto] = []
    splits: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        path = folder / f"transforms_{split}.json"
        if path.is_file():
            listed = transforms.read(path, data).photos
            photos += listed
            splits[split] = tuple(photo.image for photo in listed)
    return Listing(folder, tuple(photos), transforms.completed(splits))
