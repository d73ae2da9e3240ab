"""Finds the files that a listing names, although it was made on Windows, on another machine, or with other suffixes.

The rules, in this order. What an earlier one finds is not searched for by a later one:

1. The path as it is listed. A name without suffix gets one: png before jpg, and so on as in `SUFFIXES`.
2. In the listed folder, the same name in another case, then with another suffix.
3. If the listed folder does not exist: a folder below the capture's that has the name of the listed one, or one of the
   usual folders. The most last parts of the path in common win. No file is taken that another path names.

Backslashes are separators, and escapes such as %20 are resolved, where the path as it is does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from staf_nerf.captures.capture import CaptureError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif"),
    *(".bmp", ".ppm", ".pgm", ".tga", ".jp2", ".gif"),
)
"""Suffixes of images, in the order in which they are tried."""
IMAGE_FOLDERS = ("images", "rgb", "input", ".", "image", "photos", "frames", "images_2", "images_4", "images_8")
"""Usual folders of images, seen from the capture's."""
MASK_FOLDERS = ("masks", "mask")
"""Usual folders of masks."""
OTHER_IMAGES = ("mask", "depth", "normal", "segment")
"""How folders begin whose images are no photos."""
DEPTH, MOST_FOLDERS = 4, 2000
"""How deep, and how widely, folders are searched."""


def is_image(path: Path) -> bool:
    """Returns whether a file has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES


def folders(root: Path) -> Iterator[Path]:
    """Returns a folder and those below it, without hidden ones, not too deep and not too many."""
    count = 0
    for folder, below, _ in os.walk(root, followlinks=True):
        path = Path(folder)
        deep = len(path.relative_to(root).parts) >= DEPTH
        below[:] = [] if deep else sorted(name for name in below if not name.startswith("."))
        yield path
        if (count := count + 1) >= MOST_FOLDERS:
            return


def locate(listed: Iterable[Path], root: Path, usual: Sequence[str] = IMAGE_FOLDERS) -> dict[Path, Path]:
    """Returns the file of each listed path that is found, by the rules of this module.

    Args:
        listed: Absolute paths as a file lists them.
        root: The capture's folder, below which files are searched for.
        usual: Usual folders of such files, seen from the capture's.

    Raises:
        CaptureError: If two files fit a path equally well.
    """
    paths, contents = list(dict.fromkeys(listed)), _Contents()
    beside = {path: file for path in paths if (file := _beside(path, contents)) is not None}
    taken = set(beside.values())
    lost = [path for path in paths if path not in beside and not _has_folder(path, root)]
    places = [place for place in folders(root) if not _holds_other_images(place, root, usual)] if lost else []
    for path in lost:
        if (file := _elsewhere(path, root, places, usual, contents, taken)) is not None:
            beside[path] = file
            taken.add(file)
    return beside


def was_mended(listed: Path, file: Path) -> bool:
    """Returns whether a file has another name or folder than listed, beyond a suffix that is not listed."""
    listed = Path(os.path.normpath(listed))
    return file not in (listed, listed.with_name(listed.name + file.suffix))


class _Contents:
    """Files of folders by the stem of their name in lower case. Each folder is read once."""

    def __init__(self) -> None:
        self._folders: dict[Path, Mapping[str, list[Path]]] = {}

    def named(self, folder: Path, name: str) -> list[Path]:
        """Returns the files in a folder that a name may mean, the best first. Equally good ones are all returned."""
        name = name.lower()
        stem = name.removesuffix(Path(name).suffix) if Path(name).suffix in SUFFIXES else name
        files = self._read(folder)
        if same := [file for file in files.get(stem, []) if file.name.lower() == name]:
            return same
        for suffix in SUFFIXES:
            if others := [file for file in files.get(stem, []) if file.suffix.lower() == suffix]:
                return others
        return []

    def _read(self, folder: Path) -> Mapping[str, list[Path]]:
        if folder not in self._folders:
            found: dict[str, list[Path]] = {}
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else ():
                path = folder / entry.name
                stem = path.stem if is_image(path) else path.name
                if entry.is_file():
                    found.setdefault(stem.lower(), []).append(path)
            self._folders[folder] = found
        return self._folders[folder]


def _spellings(path: Path) -> Iterator[Path]:
    """Returns a path as it is, with its backslashes as separators, and with its escapes resolved."""
    text = str(path)
    turned = text.replace("\\", "/")
    for spelled in dict.fromkeys((text, turned, unquote(turned))):
        yield Path(os.path.normpath(spelled))


def _beside(path: Path, contents: _Contents) -> Path | None:
    """Returns the file of a path in its own folder."""
    for spelled in _spellings(path):
        if spelled.is_file():
            return spelled
    for spelled in _spellings(path):
        if files := contents.named(spelled.parent, spelled.name):
            return _only(files, path)
    return None


def _has_folder(path: Path, root: Path) -> bool:
    """Returns whether the folder of a path exists, below the capture's. Then its image is absent, and nowhere else."""
    return any(spelled.parent.is_dir() and spelled.parent != root for spelled in _spellings(path))


def _elsewhere(
    path: Path, root: Path, places: Sequence[Path], usual: Sequence[str], contents: _Contents, taken: set[Path]
) -> Path | None:
    """Returns the file in another folder whose path has the most last parts in common with a listed one."""
    *_, spelled = _spellings(path)
    ranked: dict[tuple[int, int], list[Path]] = {}
    for place in places:
        common, rank = _common_parts(spelled.parent, place), _rank(place, root, usual)
        files = [file for file in contents.named(place, spelled.name) if file not in taken]
        if files and (common or rank < len(usual)):
            ranked.setdefault((-common, rank), []).extend(files)
    return _only(ranked[min(ranked)], path) if ranked else None


def _common_parts(a: Path, b: Path) -> int:
    """Returns how many last parts of two paths are the same, whatever their case."""
    pairs = zip(reversed(a.parts), reversed(b.parts), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x.lower() != y.lower()), min(len(a.parts), len(b.parts)))


def _rank(place: Path, root: Path, usual: Sequence[str]) -> int:
    """Returns the place of a folder among the usual ones. After them come all others."""
    name = str(place.relative_to(root))
    return usual.index(name) if name in usual else len(usual)


def _holds_other_images(place: Path, root: Path, usual: Sequence[str]) -> bool:
    """Returns whether a folder is one of masks or depths, unless such a folder is looked for."""
    names = [part.lower() for part in place.relative_to(root).parts]
    return any(name.startswith(OTHER_IMAGES) and name not in usual for name in names)


def _only(files: Sequence[Path], path: Path) -> Path:
    if len(files) > 1:
        raise CaptureError(
            f"{path.name} is listed, and both {files[0]} and {files[1]} fit.\n"
            "List the path below the capture's folder, or remove one of the files."
        )
    return files[0]


# --- masks that are not listed ---------------------------------------------------------------------------------------


def masks_beside(images: Sequence[Path], root: Path) -> dict[Path, Path]:
    """Returns the masks that lie beside images, by the usual names.

    These are `masks/` or `mask/` beside the folder of the images, with the same names, with .png after the whole name
    (COLMAP), or with another suffix; and NAME.mask.png, NAME_mask.png or NAME.png.png beside the image itself.

    Raises:
        CaptureError: If two files fit an image equally well.
    """
    contents = _Contents()
    found = ((image, _mask_of(image, root, contents)) for image in images)
    return {image: mask for image, mask in found if mask is not None}


def _mask_of(image: Path, root: Path, contents: _Contents) -> Path | None:
    for folder in _mask_folders(image, root):
        for name in (f"{image.name}.png", image.name):
            if files := [file for file in contents.named(folder, name) if file != image]:
                return _only(files, image)
    for name in (f"{image.stem}.mask.png", f"{image.name}.mask.png", f"{image.stem}_mask.png", f"{image.name}.png"):
        if (file := image.with_name(name)).is_file():
            return file
    return None


def _mask_folders(image: Path, root: Path) -> Iterator[Path]:
    """Returns the folders where the mask of an image may lie: `images/left/1.png` has `masks/left/1.png`."""
    for above in image.parents:
        within = image.parent.relative_to(above)
        for name in ("masks", "mask"):
            yield above / name / Path(*within.parts[1:])
        if above == root or (root not in above.parents and above != image.parent):
            return
