"""Folders of the cache. Each is there whole or not at all, also with several processes and a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

from staf_nerf.captures.capture import CaptureError

RECORD = "record.json"
"""The file that says what a folder holds."""
ABANDONED = 24 * 3600
"""Age in seconds after which a folder that nobody finished is removed."""


def folder_of(cache: Path | None, name: str, key: Any) -> Path:
    """Returns the folder for what depends on `key`, a value for JSON.

    Args:
        cache: Folder of the cache. None: the user's.
        name: What the folder is about, for people.
        key: All that the content depends on.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return (cache or Path(platformdirs.user_cache_dir("staf_nerf"))) / "captures" / f"{name}-{digest}"


def kept(folder: Path, make: Callable[[Path], Any]) -> Any:
    """Returns what `make` returned when it filled the folder, now or earlier.

    Args:
        folder: The folder.
        make: Writes files into an empty folder, and returns a value for JSON.

    Raises:
        CaptureError: If the files cannot be written.
    """
    record = _record(folder)
    return _made(folder, make) if record is None else record["content"]


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context in which errors of the system come from writing into the folder."""
    try:
        yield
    except OSError as error:
        raise CaptureError(
            f"the prepared images cannot be written into {folder.parent}: {error.strerror or error}.\n"
            "Make room there, or name another folder for caches: XDG_CACHE_HOME=/path/to/folder (on Linux)."
        ) from error


def _record(folder: Path) -> dict[str, Any] | None:
    """Returns the record of a folder, or None if it is absent or has lost a file."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if all((folder / name).is_file() for name in record["files"]) else None


def _made(folder: Path, make: Callable[[Path], Any]) -> Any:
    """Fills a folder beside the place, and moves it there."""
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        with writing(folder):
            partial.mkdir(parents=True)
            content = make(partial)
            files = sorted(path.name for path in partial.iterdir())
            (partial / RECORD).write_text(json.dumps({"files": files, "content": content}), encoding="utf-8")
            _remove_abandoned(folder)
            _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return content


def _move(partial: Path, folder: Path) -> None:
    """Moves a folder into its place, unless another process was first. One that has lost a file is replaced."""
    try:
        os.rename(partial, folder)
    except OSError:
        if _record(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(partial, folder)


def _remove_abandoned(folder: Path) -> None:
    """Removes what processes left that were killed while they filled the same folder."""
    for partial in folder.parent.glob(f".{folder.name}-*"):
        with suppress(FileNotFoundError):  # another process has just moved its own into place
            if time.time() - partial.stat().st_mtime > ABANDONED:
                shutil.rmtree(partial, ignore_errors=True)
