"""Files of a capture, read whole. What cannot be read is an error that names the file and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from staf_nerf.captures.capture import CaptureError

LFS_HEAD = b"version https://git-lfs"
"""Start of the text that stands in for a large file in a clone without Git LFS."""


def is_lfs_pointer(path: Path) -> bool:
    """Returns whether a file is only Git LFS's pointer to its content."""
    with path.open("rb") as file:
        return file.read(len(LFS_HEAD)) == LFS_HEAD


def check_content(path: Path) -> None:
    """Checks that a file has content of its own.

    Raises:
        CaptureError: If the file is absent, empty or a Git LFS pointer.
    """
    if not path.is_file():
        raise CaptureError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise CaptureError(f"{path} is empty: copy or download it again")
    if is_lfs_pointer(path):
        raise CaptureError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository")


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        CaptureError: If it has none, or cannot be read.
    """
    check_content(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error}") from error


def read_text(path: Path) -> str:
    """Returns the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        CaptureError: If it has none, or cannot be read.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path} is not a text file in UTF-8: {error}") from error


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        CaptureError: If the file is not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except json.JSONDecodeError as error:
        raise CaptureError(
            f"{path} is not valid JSON: {error}. Comments, trailing commas and single quotes are not allowed in JSON."
        ) from error
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path} is not a text file: {error}") from error


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun: "1 image", "3 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
