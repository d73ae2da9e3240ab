"""Files in the folders that other programs write: images by name, files by pattern, errors of damaged files."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from PIL import Image

from staf_nerf.captures.capture import CaptureError, ListedPhoto

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".heic", ".bmp")
"""Suffixes of images, in the order in which they are tried."""
IMAGE_FOLDERS = ("images", "image", "rgb", "input", "photos", "frames", ".")
"""Where the images of a capture mostly lie."""
DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, OSError, EOFError),
    *(SyntaxError, zipfile.BadZipFile, zlib.error),
)
"""What readers of XML, JSON, text and NumPy's files raise for damaged ones."""
HEAD = 4096
"""Bytes at the start of a file that tell its format."""


def find_file(data: Path, patterns: Sequence[str], content: bytes = b"") -> Path | None:
    """Returns a capture's file: `data` itself, or the first in the folder `data` that fits a pattern.

    Args:
        data: A folder or a file.
        patterns: Patterns of names, the best first. They may have folders.
        content: What the start of the file must contain.
    """
    if data.is_file():
        candidates = [data] if any(data.match(Path(pattern).name) for pattern in patterns) else []
    else:
        candidates = [path for pattern in patterns for path in sorted(data.glob(pattern)) if path.is_file()]
    return next((path for path in candidates if content in _head(path)), None)


def _head(path: Path) -> bytes:
    """Returns the start of a file, and nothing of one that may not be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def folder_of(data: Path) -> Path:
    """Returns the folder of a capture, which may be given as one of its files."""
    return data if data.is_dir() else data.parent


def images_in(folder: Path) -> list[Path]:
    """Returns the images in a folder in the order of their names. There are none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def find_image(data: Path, name: str, folders: Sequence[str] = IMAGE_FOLDERS) -> Path:
    """Returns the image that a file lists, or where it should be if it does not exist.

    The listed name may have folders of another machine, and may lack the suffix. An image in no usual folder is taken
    if there is only one of its name.
    """
    listed = Path(name.replace("\\", "/"))
    places = [place for folder in folders if (place := data / folder).is_dir()]
    candidates = [place / part for part in (listed, Path(listed.name)) for place in places]
    candidates += [path.with_name(path.name + ending) for path in candidates for ending in _endings()]
    if (found := next((path for path in candidates if path.is_file()), None)) is not None:
        return found
    elsewhere = [path for path in data.rglob(f"{escape(listed.stem)}.*") if _means(listed.name, path)]
    return elsewhere[0] if len(elsewhere) == 1 else data / listed.name


def _means(name: str, path: Path) -> bool:
    """Returns whether a listed name is that of an image, perhaps without its suffix."""
    return path.suffix.lower() in SUFFIXES and name in (path.name, path.stem)


def _endings() -> Iterator[str]:
    for suffix in SUFFIXES:
        yield suffix
        yield suffix.upper()


def size_of(image: Path) -> tuple[int, int] | None:
    """Returns the width and height of an image, or None if it does not exist.

    Raises:
        CaptureError: If it cannot be read.
    """
    if not image.is_file():
        return None
    try:
        with Image.open(image) as opened:
            return opened.size
    except OSError as error:
        raise CaptureError(f"the image {image} cannot be read: {error}") from error


def check_photos(photos: Sequence[ListedPhoto], source: Path, remedy: str) -> None:
    """Checks that photos are listed, each image once.

    Raises:
        CaptureError: If there are none, or two have the same image.
    """
    if not photos:
        raise CaptureError(f"{source} has no image with a pose. {remedy}")
    image, count = Counter(photo.image for photo in photos).most_common(1)[0]
    if count > 1:
        raise CaptureError(
            f"{source} lists {image.name} more than once, with different poses: which image is meant is not "
            "known.\nGive the images different names, and export again."
        )


def left_out(count: int, of: int, why: str) -> tuple[str, ...]:
    """Returns the note on images that are left out, if there are some."""
    if count == 0:
        return ()
    return (f"{count} of {of} images {why}, and {'is' if count == 1 else 'are'} left out.",)


def listed_world(photos: Iterable[ListedPhoto]) -> dict[str, Any]:
    """Returns what holds for all photos: the camera model, if all have the same."""
    models = {photo.camera["camera_model"] for photo in photos}
    return {"camera_model": models.pop()} if len(models) == 1 else {}


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        ValueError: If it is none. Call it inside `readable`.
    """
    return json.loads(path.read_text(encoding="utf-8-sig"))


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turns errors in reading a file into a CaptureError that names the file.

    Args:
        path: The file.
        what: What the file should be, after "is not".
    """
    try:
        yield
    except CaptureError:
        raise
    except DAMAGE as error:
        raise CaptureError(_message(path, what, error)) from error


def _message(path: Path, what: str, error: Exception) -> str:
    if path.is_file() and _head(path).startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
    return f"{path} is not {what}: {reason or 'it is cut off'}.\nExport it again, or copy the whole file."
