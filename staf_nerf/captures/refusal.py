"""What to say of a path that is no capture: what it is instead, and which command comes next."""

from __future__ import annotations

import shlex
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.files import counted
from staf_nerf.captures.locate import folders, is_image

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".insv", ".360")
SURFACES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off", ".fbx")
POINTS = (".las", ".laz", ".e57", ".pcd", ".xyz", ".pts", ".splat")


def refusal(data: Path, formats: Iterable[str]) -> CaptureError:
    """Returns the error for a file or folder that no reader recognises.

    Args:
        data: The file or folder.
        formats: What the readers look for.
    """
    text = _of_folder(data, formats) if data.is_dir() else _of_file(data)
    return CaptureError(text)


def _of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in ARCHIVES or zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return f"{path} is an archive, not a capture: unpack it, and give the folder that comes out"
    if suffix in VIDEOS:
        return f"{path} is a video, without poses. {_find_poses(path)}"
    if is_image(path):
        return f"{path} is a single image: give the folder of the capture. {_find_poses(path.parent)}"
    if suffix in SURFACES:
        return (
            f"{path} is a mesh or a point cloud, not a capture of photos with poses. "
            f"`staf fit shape {shlex.quote(str(path))}` fits a field to it."
        )
    if suffix in POINTS:
        return f"{path} is a point cloud, not a capture: give the folder of the photos and their poses"
    if suffix == ".json":
        return (
            f"{path} is not a capture: it has no list 'frames'. Give the folder of the capture, or its transforms.json"
        )
    if suffix == ".db":
        return f"{path} is a database of COLMAP, which has no poses: give the folder of the capture"
    return f"{path} is not a capture: give the folder of the photos and their poses, or its transforms.json"


def _of_folder(data: Path, formats: Iterable[str]) -> str:
    *others, last = formats
    held = sorted(path.name for path in data.iterdir())
    missing = (
        f"{data} contains no capture: looked for {', '.join(others)} and {last}; "
        f"found {', '.join(held[:8]) or 'nothing'}."
    )
    files = [path for folder in folders(data) for path in folder.iterdir() if path.is_file()]
    images = [path for path in files if is_image(path)]
    if images:
        text = f"{data} holds {counted(len(images), 'image')}, but no poses. {_find_poses(data)}"
        return f"{text}\n({missing})"
    for kind, suffixes in (("video", VIDEOS), ("archive", ARCHIVES)):
        found = sorted(path for path in files if path.suffix.lower() in suffixes)
        if found:
            remedy = _find_poses(found[0]) if kind == "video" else "Unpack it first."
            return f"{data} holds the {kind} {found[0].name}, but no capture. {remedy}\n({missing})"
    return f"{missing} `staf capture PHOTOS -o SCENE` finds the poses of photos or of a video."


def _find_poses(path: Path) -> str:
    """Returns the command that finds the poses of photos or of a video."""
    return f"Find the poses first: `staf capture {shlex.quote(str(path))} -o SCENE`, then `--data SCENE`."
