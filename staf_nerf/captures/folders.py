"""Files in the folders that other programs write: images by name, files by pattern, errors of damaged files."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from staf_nerf.captures.capture import CaptureError, ListedPhoto
from staf_nerf.captures.files import is_lfs_pointer

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".heic", ".bmp")
"""Suffixes of images, in the order in which they are tried."""
IMAGE_FOLDERS = ("images", "image", "rgb", "input", "photos", "frames", ".")
"""Where the images of a capture mostly lie."""
DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, OSError, EOFError),
    *(SyntaxError, zipfile.BadZipFile, zlib.error),
)
"""What readers of XML, JSON, text and NumPy's files raise for damaged ones."""
ENDINGS = tuple(ending for suffix in SUFFIXES for ending in (suffix, suffix.upper()))
OTHER_IMAGES = ("mask", "depth", "normal", "thumb", ".")
"""How folders begin whose images are no photos."""
MADE_BY_PROGRAMS = ("bundle", "opensfm", "reconstruction")
"""How folders begin that programs make in a capture for their results."""
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


def folder_of(path: Path) -> Path:
    """Returns the folder of the capture that a file belongs to: the file's, or the one above what a program made."""
    folder = path.parent
    made = folder.name.startswith(MADE_BY_PROGRAMS) and not (folder / IMAGE_FOLDERS[0]).is_dir()
    return folder.parent if made else folder


def images_in(folder: Path) -> list[Path]:
    """Returns the images in a folder in the order of their names. There are none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


@dataclass(frozen=True)
class Images:
    """The images of a capture, which files of other programs list by name.

    A name may have folders of another machine, and may lack the suffix. An image in no usual folder is taken if it is
    the only one of its name.
    """

    root: Path
    """The capture's folder."""
    usual: tuple[str, ...] = IMAGE_FOLDERS
    """Folders where images mostly lie, seen from the capture's."""

    def find(self, name: str) -> Path:
        """Returns the image of a name, or where it should be if it does not exist."""
        listed = Path(name.replace("\\", "/"))
        candidates = [place / part for part in (listed, Path(listed.name)) for place in self._places]
        candidates += [path.with_name(path.name + ending) for path in candidates for ending in ENDINGS]
        if (found := next((path for path in candidates if path.is_file()), None)) is not None:
            return found
        elsewhere = self._elsewhere.get(listed.name, [])
        return elsewhere[0] if len(elsewhere) == 1 else self.root / listed.name

    @cached_property
    def _places(self) -> list[Path]:
        return [place for folder in self.usual if (place := self.root / folder).is_dir()]

    @cached_property
    def _elsewhere(self) -> dict[str, list[Path]]:
        """All images below the folder, by their names with and without suffix."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in SUFFIXES and not _is_other(path.parent.relative_to(self.root)):
                for name in (path.name, path.stem):
                    found.setdefault(name, []).append(path)
        return found


def _is_other(folder: Path) -> bool:
    """Returns whether a folder has images that are no photos, by its name or one above."""
    return any(part.lower().startswith(OTHER_IMAGES) for part in folder.parts)


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
    if path.is_file() and is_lfs_pointer(path):
        return f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
    return f"{path} is not {what}: {reason or 'it is cut off'}.\nExport it again, or copy the whole file."
