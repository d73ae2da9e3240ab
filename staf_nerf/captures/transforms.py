"""Reader of `transforms.json`: the format of nerfstudio and of instant-ngp.

Keys: https://docs.nerf.studio/quickstart/data_conventions.html, and src/nerf_loader.cu of instant-ngp. Others are
ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staf_nerf.captures.capture import SPLITS, CaptureError, ListedPhoto, Listing
from staf_nerf.captures.files import LFS_HEAD, counted, read_json
from staf_nerf.captures.lenses import KEYS, is_set
from staf_nerf.captures.points import read_ply, with_observations

FILES = "transforms.json (nerfstudio, instant-ngp)"

WORLD = ("orientation_override", "applied_transform", "applied_scale", "fisheye_crop_radius")

BLENDER_FILES = tuple(f"transforms_{split}.json" for split in SPLITS)
"""Files that belong together: another reader's."""

UNSUPPORTED = {
    "rolling_shutter": "rows that are exposed one after the other",
    "transform_matrix_start": "a camera that moves during the exposure",
    "ftheta_p0": "an f-theta lens",
    "equirectangular": "instant-ngp's equal-area panoramas",
    "normal_mts_args": "the axes of Mitsuba",
}
"""Entries of instant-ngp's files that change the rays, and that cannot be trained with."""


def find(data: Path) -> Path | None:
    """Returns the file with the poses: `data` itself or in the folder `data`. None: it is another format."""
    if data.is_dir():
        path = data / "transforms.json"
        return path if path.is_file() else None
    if data.suffix.lower() != ".json" or data.name in BLENDER_FILES:
        return None
    content = data.read_bytes().replace(b"\0", b"")  # also in UTF-16
    return data if b'"frames"' in content or content.startswith(LFS_HEAD) else None


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists.

    Raises:
        CaptureError: If the file is damaged or lists no photos.
    """
    listing = read_frames(path)
    if not listing.photos:
        raise CaptureError(f"{path} lists no frames that have a pose ('transform_matrix')")
    return listing


def read_frames(path: Path) -> Listing:
    """Returns what the file lists, which may be no photo with a pose.

    Raises:
        CaptureError: If the file is damaged, or has no list of frames.
    """
    meta = _read_meta(path)
    photos = tuple(photo for i, frame in enumerate(meta["frames"]) if (photo := _photo(path, meta, i, frame)))
    world = {name: meta[name] for name in WORLD if meta.get(name) is not None}
    notes = []
    if without_pose := len(meta["frames"]) - len(photos):
        notes.append(f"{path.name}: {counted(without_pose, 'frame')} without a pose left out.")
    points, trouble = None, None
    if meta.get("ply_file_path") is not None:
        points, trouble = read_ply(path.parent / str(meta["ply_file_path"]).replace("\\", "/"))
        if points is not None and isinstance(meta.get("observations_path"), str):
            images = [photo.image for photo in photos]
            points = with_observations(points, path.parent / meta["observations_path"], images)
    return Listing(path, photos, _splits(path, meta), world, points, notes=(*notes, *([trouble] if trouble else [])))


def _read_meta(path: Path) -> dict[str, Any]:
    """Returns the content of the file, which has a list of frames that are objects."""
    meta = read_json(path)
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list):
        raise CaptureError(f"{path} lists no frames: a list 'frames' is needed, got {frames!r:.60}")
    for i, frame in enumerate(meta["frames"]):
        if not isinstance(frame, dict):
            raise CaptureError(f"{path}: frame {i} must be an object with 'file_path', got {frame!r}")
        if not isinstance(frame.get("file_path"), str) or not frame["file_path"].strip():
            raise CaptureError(f"{path}: frame {i} has no 'file_path'")
    for key, meaning in UNSUPPORTED.items():
        if any(_is_used(entries.get(key)) for entries in (meta, *meta["frames"])):
            raise CaptureError(f"{path} has {key!r}: {meaning}, which cannot be trained with")
    return meta


def _is_used(value: Any) -> bool:
    return any(map(is_set, value)) if isinstance(value, list) else value is not None and value is not False


def _photo(path: Path, meta: Mapping[str, Any], i: int, frame: Mapping[str, Any]) -> ListedPhoto | None:
    """Returns a photo, or None if it has no pose. What its frame does not say of the camera is said of all frames."""
    pose = frame.get("transform_matrix")
    if pose is None or pose == []:
        return None
    said = {key: value for entries in (meta, frame) for key, value in entries.items() if value is not None}
    camera = {key: said[key] for key in KEYS if key in said}
    mask = frame.get("mask_path")
    if mask is not None and not isinstance(mask, str):
        raise CaptureError(f"{path}: 'mask_path' of frame {i} must be a path, got {mask!r}")
    return ListedPhoto(path.parent / frame["file_path"], pose, camera, path.parent / mask if mask else None)


def _splits(path: Path, meta: Mapping[str, Any]) -> dict[str, tuple[Path, ...]]:
    """Returns the splits that the file lists, also those that are empty."""
    splits: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        names = meta.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CaptureError(f"{path}: '{split}_filenames' must be a list of paths, got {names!r:.80}")
        splits[split] = tuple(path.parent / name for name in names)
    return splits
