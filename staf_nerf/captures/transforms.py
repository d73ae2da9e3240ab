"""Reader of `transforms.json`: the format of nerfstudio and of instant-ngp.

Keys: https://docs.nerf.studio/quickstart/data_conventions.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staf_nerf.captures.capture import SPLITS, CaptureError, ListedPhoto, Listing

FILES = "transforms.json (nerfstudio, instant-ngp)"

IMAGE_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".JPG", ".PNG")
INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2", "distortion_params")
WORLD = (
    "camera_model",
    "orientation_override",
    "applied_transform",
    "applied_scale",
    "fisheye_crop_radius",
    "ply_file_path",
)


def find(data: Path) -> Path | None:
    """Returns the file with the poses: `data` itself or in the folder `data`. None: it is another format."""
    path = data if data.is_file() else data / "transforms.json"
    return path if path.is_file() else None


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists.

    Raises:
        CaptureError: If the file is damaged or lists no photos.
    """
    meta = _read_json(path)
    photos = tuple(_photo(path.parent, meta, frame) for frame in meta["frames"])
    world = {name: meta[name] for name in WORLD if name in meta}
    if "ply_file_path" in world:
        world["ply_file_path"] = str(path.parent / world["ply_file_path"])
    splits: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        if names := meta.get(f"{split}_filenames"):
            splits[split] = tuple(_locate(path.parent, name) for name in names)
    return Listing(path, photos, completed(splits), world)


def completed(splits: Mapping[str, tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    """Completes the splits: nerfstudio needs all three or none, so validation and test replace each other."""
    if "train" not in splits or len(splits) < 2:
        return {}
    held_out = splits.get("test") or splits.get("val") or ()
    return {"val": held_out, "test": held_out, **splits}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CaptureError(f"{path} is not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path} is not a text file: {error}") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list) or not meta["frames"]:
        raise CaptureError(f"{path} lists no frames: a non-empty list 'frames' is needed")
    for i, frame in enumerate(meta["frames"]):
        for name in ("file_path", "transform_matrix"):
            if not isinstance(frame, dict) or name not in frame:
                raise CaptureError(f"{path}: frame {i} has no {name!r}")
    return meta


def _photo(folder: Path, meta: Mapping[str, Any], frame: Mapping[str, Any]) -> ListedPhoto:
    """Returns a photo. What its frame does not say of the camera is taken from the whole file."""
    camera = {name: {**meta, **frame}[name] for name in (*INTRINSICS, *DISTORTION) if name in meta or name in frame}
    mask = _locate(folder, frame["mask_path"]) if "mask_path" in frame else None
    return ListedPhoto(_locate(folder, frame["file_path"]), frame["transform_matrix"], camera, mask)


def _locate(folder: Path, name: str) -> Path:
    """Returns an image's absolute path. Blender's files omit the suffix."""
    candidates = [folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES]
    chosen = next((path for path in candidates if path.is_file()), folder / name)
    return Path(os.path.normpath(chosen))
