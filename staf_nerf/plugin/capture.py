"""Captures: folders of photos with poses. They are read, checked and, if needed, reduced in size.

Conventions: poses are camera-to-world, OpenGL axes (x right, y up, looking along -z), as in nerfstudio's, instant-ngp's
and blender's files. Intrinsics are in pixels with the origin at the image's corner. A reduction by an integer factor f
therefore divides them by f exactly and does not change the distortion.

`prepare` converts any supported folder to one `transforms.json` in nerfstudio's format, with absolute paths, in a cache
folder. It never writes into the user's data.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from PIL import Image, ImageOps

Kind = Literal["transforms", "blender", "colmap"]
Masks = Literal["background", "ignore"]

COLMAP_FOLDERS = ("colmap/sparse/0", "sparse/0", "sparse", ".")
IMAGE_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".JPG", ".PNG")
INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2", "distortion_params")
SPLITS = ("train", "val", "test")


class CaptureError(ValueError):
    """Raised for a capture that cannot be used. The message names the file and the reason."""


@dataclass(frozen=True)
class Prepared:
    """A capture that is ready for training."""

    transforms: Path
    """A transforms.json file in nerfstudio's format, with absolute paths."""
    kind: Kind
    """Format of the capture."""
    count: int
    """Number of images."""
    has_alpha: bool
    """Whether the images have transparency."""
    has_splits: bool
    """Whether the capture lists its own images for training and evaluation."""
    factor: int
    """Factor by which the images were reduced."""
    dropped: tuple[str, ...]
    """Listed images that do not exist."""


def find(data: Path) -> tuple[Kind, Path]:
    """Detects the format of a capture and returns it, with the file or folder that contains the poses.

    Raises:
        CaptureError: If the folder does not exist or contains no supported format.
    """
    if not data.exists():
        raise CaptureError(f"the data folder {data} does not exist")
    if data.is_file():
        return "transforms", data
    if (data / "transforms.json").is_file():
        return "transforms", data / "transforms.json"
    if (data / "transforms_train.json").is_file():
        return "blender", data
    for folder in COLMAP_FOLDERS:
        if (data / folder / "cameras.bin").is_file() or (data / folder / "cameras.txt").is_file():
            return "colmap", data / folder
    held = sorted(path.name for path in data.iterdir())
    raise CaptureError(
        f"{data} contains no capture: looked for transforms.json (nerfstudio, instant-ngp), transforms_train.json "
        f"(blender) and cameras.bin or cameras.txt (COLMAP); found {', '.join(held[:8]) or 'nothing'}. "
        "Compute poses of photos with `ns-process-data images` first."
    )


def prepare(
    data: Path,
    *,
    downscale_factor: int | None = None,
    max_image_size: int | None = None,
    masks: Masks = "background",
    cache: Path | None = None,
) -> Prepared:
    """Reads and checks a capture, and reduces its images if asked for or needed.

    Args:
        data: Folder or transforms file.
        downscale_factor: Integer factor by which images are reduced. None: the smallest that meets `max_image_size`.
        max_image_size: Largest allowed side length in pixels, for the automatic factor. None: no limit.
        masks: "background": masked pixels become transparent and are trained as empty space. "ignore": masked pixels
            are excluded from training, as in nerfstudio.
        cache: Output folder. None: the user's cache folder.

    Raises:
        CaptureError: If the capture cannot be used.
    """
    data = Path(data).expanduser().absolute()
    kind, source = find(data)
    meta = {"transforms": _read_transforms, "blender": _read_blender, "colmap": _read_colmap}[kind](source, data)
    listed = meta["frames"]
    frames = [frame for frame in listed if Path(frame["file_path"]).is_file()]
    dropped = tuple(frame["file_path"] for frame in listed if not Path(frame["file_path"]).is_file())
    if not frames:
        raise CaptureError(f"none of the {len(listed)} images listed in {source} exists, for example {dropped[0]}")
    if len(frames) < 2:
        raise CaptureError(f"{source} has 1 image; at least 2 are needed, one for training and one for evaluation")
    for frame in frames:
        _check_pose(frame)

    with ThreadPoolExecutor() as pool:
        alphas = list(pool.map(_check_image, frames))
    longest = max(max(frame["w"], frame["h"]) for frame in frames)
    factor = downscale_factor or (math.ceil(longest / max_image_size) if max_image_size else 1)
    if factor < 1 or factor > min(min(frame["w"], frame["h"]) for frame in frames):
        raise CaptureError(f"downscale_factor must be between 1 and the images' side length in pixels, got {factor}")
    for frame in frames:
        _check_intrinsics(frame, source)

    with_masks = any("mask_path" in frame for frame in frames)
    merge = with_masks and masks == "background"
    key = json.dumps([str(data), factor, masks, _stamp(frames)])
    root = cache or Path(platformdirs.user_cache_dir("staf_nerf"))
    folder = root / "captures" / f"{data.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    if factor > 1 or merge:
        jobs = [(frame, folder / f"{i:05d}.png", factor, merge) for i, frame in enumerate(frames)]
        with ThreadPoolExecutor() as pool:
            originals = dict(pool.map(_reduce, jobs))
    else:
        originals = {frame["file_path"]: frame["file_path"] for frame in frames}

    for frame in frames:
        frame["file_path"] = originals[frame["file_path"]]
    splits = {name: [originals[path] for path in meta[name] if path in originals] for name in meta if name in _LISTS}
    prepared = {
        **{name: value for name, value in meta.items() if name not in _LISTS and name != "frames"},
        **splits,
        "frames": frames,
    }
    transforms = folder / "transforms.json"
    _write_whole(transforms, json.dumps(prepared, indent=1).encode())
    return Prepared(transforms, kind, len(frames), any(alphas) or merge, bool(splits), factor, dropped)


_LISTS = tuple(f"{split}_filenames" for split in SPLITS)


# --- readers of the three formats: each returns {"frames": [...], "train_filenames": [...], ...}, with absolute paths


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


def _read_transforms(path: Path, data: Path) -> dict[str, Any]:
    meta = _read_json(path)
    shared = {name: meta[name] for name in (*INTRINSICS, *DISTORTION) if name in meta}
    frames = [{**shared, **_own(frame)} for frame in meta["frames"]]
    for frame in frames:
        for name in ("file_path", "mask_path"):
            if name in frame:
                frame[name] = _locate(path.parent, frame[name])
    kept = ("camera_model", "orientation_override", "applied_transform", "applied_scale", "ply_file_path")
    result = {name: meta[name] for name in kept if name in meta}
    if "ply_file_path" in result:
        result["ply_file_path"] = str(path.parent / result["ply_file_path"])
    lists = {name: [_locate(path.parent, file) for file in meta[name]] for name in _LISTS if meta.get(name)}
    return {**result, **_complete(lists), "frames": frames}


def _read_blender(folder: Path, data: Path) -> dict[str, Any]:
    frames, lists = [], {}
    for split in SPLITS:
        path = folder / f"transforms_{split}.json"
        if not path.is_file():
            continue
        meta = _read_transforms(path, data)
        frames += meta["frames"]
        lists[f"{split}_filenames"] = [frame["file_path"] for frame in meta["frames"]]
    return {**_complete(lists), "frames": frames}


def _read_colmap(folder: Path, data: Path) -> dict[str, Any]:
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParser, ColmapDataParserConfig

    images = next(name for name in ("images", "rgb", "input", ".") if (data / name).is_dir())
    config = ColmapDataParserConfig(data=data, images_path=Path(images), colmap_path=folder.relative_to(data))
    try:
        meta = ColmapDataParser(config)._get_all_images_and_cameras(folder)
    except (AssertionError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise CaptureError(f"{folder} is not a usable COLMAP model: {error}") from error
    for frame in meta["frames"]:
        frame["transform_matrix"] = np.asarray(frame["transform_matrix"]).tolist()
        for name in ("camera_model", "colmap_im_id"):
            frame.pop(name, None)
    return meta


def _own(frame: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys of a frame that are used, without depth maps, sharpness and others."""
    wanted = ("file_path", "mask_path", "transform_matrix", *INTRINSICS, *DISTORTION)
    return {name: frame[name] for name in wanted if name in frame}


def _locate(folder: Path, name: str) -> str:
    """Returns an image's absolute path. Blender's files omit the suffix."""
    for suffix in IMAGE_SUFFIXES:
        if (path := folder / f"{name}{suffix}").is_file():
            return os.path.normpath(path)
    return os.path.normpath(folder / name)


def _complete(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    """Completes the splits: nerfstudio needs all three or none, so validation and test replace each other."""
    if "train_filenames" not in lists or len(lists) < 2:
        return {}
    held_out = lists.get("test_filenames") or lists.get("val_filenames") or []
    return {"val_filenames": held_out, "test_filenames": held_out, **lists}


# --- checks --------------------------------------------------------------------------------------------------------


def _check_pose(frame: dict[str, Any]) -> None:
    try:
        pose = np.asarray(frame["transform_matrix"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CaptureError(f"the pose of {frame['file_path']} is not a matrix of numbers: {error}") from error
    if pose.shape not in ((4, 4), (3, 4)):
        raise CaptureError(f"the pose of {frame['file_path']} must be 4x4 or 3x4, got {pose.shape}")
    if not np.isfinite(pose).all():
        raise CaptureError(f"the pose of {frame['file_path']} has a value that is NaN or infinite")
    if abs(determinant := np.linalg.det(pose[:3, :3])) < 1e-6:
        raise CaptureError(f"the pose of {frame['file_path']} is singular (determinant {determinant:g})")
    frame["transform_matrix"] = np.vstack([pose[:3], [0.0, 0.0, 0.0, 1.0]]).tolist()


def _check_image(frame: dict[str, Any]) -> bool:
    """Reads a whole image, stores its size in the frame, and returns whether it has transparency."""
    path = frame["file_path"]
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.load()
            has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except OSError as error:
        raise CaptureError(f"the image {path} cannot be read: {error}") from error
    listed = int(frame.get("w", width)), int(frame.get("h", height))
    if listed != (width, height):
        raise CaptureError(f"the image {path} has size {width}x{height}, but {listed[0]}x{listed[1]} is listed")
    frame["w"], frame["h"] = width, height
    return has_alpha


def _check_intrinsics(frame: dict[str, Any], source: Path) -> None:
    """Completes fl_x, fl_y, cx and cy of a frame from the listed values."""
    angles = {"x": frame.pop("camera_angle_x", None), "y": frame.pop("camera_angle_y", None)}
    for axis, side in (("x", "w"), ("y", "h")):
        if f"fl_{axis}" not in frame and angles[axis] is not None:
            frame[f"fl_{axis}"] = 0.5 * frame[side] / math.tan(0.5 * angles[axis])
    if "fl_x" not in frame and "fl_y" not in frame:
        raise CaptureError(f"{source} has no intrinsics for {frame['file_path']}: fl_x or camera_angle_x is needed")
    frame.setdefault("fl_x", frame.get("fl_y"))
    frame.setdefault("fl_y", frame["fl_x"])
    frame.setdefault("cx", 0.5 * frame["w"])
    frame.setdefault("cy", 0.5 * frame["h"])
    numbers = [float(frame[name]) for name in ("fl_x", "fl_y", "cx", "cy")]
    if not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise CaptureError(f"the intrinsics of {frame['file_path']} must be finite and positive, got {numbers}")


# --- reduced images ------------------------------------------------------------------------------------------------


def reduce_image(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor x factor pixels, with premultiplied alpha: (H, W, C) uint8 -> (H//f, W//f, C) uint8.

    Rows and columns that do not fill a block are cut off, which keeps the intrinsics exact.
    """
    height, width, channels = image.shape[0] // factor, image.shape[1] // factor, image.shape[2]
    blocks = image[: height * factor, : width * factor].astype(np.float32)
    if channels == 4:
        blocks[..., :3] *= blocks[..., 3:] / 255.0
    mean = blocks.reshape(height, factor, width, factor, channels).mean((1, 3))
    if channels == 4:
        mean[..., :3] /= np.maximum(mean[..., 3:] / 255.0, 1e-6)
    return mean.round().clip(0, 255).astype(np.uint8)


def _reduce(job: tuple[dict[str, Any], Path, int, bool]) -> tuple[str, str]:
    """Writes a reduced image and mask unless they exist, scales the intrinsics, and returns the (old, new) path."""
    frame, target, factor, merge = job
    original = frame["file_path"]
    if not target.is_file():
        image = np.asarray(_colour(original))
        if merge and "mask_path" in frame:
            mask = _read_mask(frame, (image.shape[0], image.shape[1]))
            alpha = image[..., 3:] if image.shape[2] == 4 else np.full_like(image[..., :1], 255)
            image = np.concatenate([image[..., :3], np.minimum(alpha, mask[..., None])], -1)
        _save_whole(target, reduce_image(image, factor))
    if "mask_path" in frame:
        if merge:
            frame.pop("mask_path")
        else:
            mask_target = target.with_suffix(".mask.png")
            if not mask_target.is_file():
                mask = _read_mask(frame, (frame["h"], frame["w"]))[..., None]
                _save_whole(mask_target, np.where(reduce_image(mask, factor)[..., 0] >= 128, 255, 0).astype(np.uint8))
            frame["mask_path"] = str(mask_target)
    for name in ("fl_x", "fl_y", "cx", "cy"):
        frame[name] = float(frame[name]) / factor
    frame["w"], frame["h"] = frame["w"] // factor, frame["h"] // factor
    return original, str(target)


def _colour(path: str) -> Image.Image:
    with Image.open(path) as image:
        transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return image.convert("RGBA" if transparent else "RGB")


def _read_mask(frame: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(frame["mask_path"]) as image:
            mask = np.asarray(ImageOps.grayscale(image))
    except OSError as error:
        raise CaptureError(f"the mask {frame['mask_path']} cannot be read: {error}") from error
    if mask.shape != size:
        raise CaptureError(
            f"the mask {frame['mask_path']} has size {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}"
        )
    return np.where(mask > 0, 255, 0).astype(np.uint8)


def _stamp(frames: Iterable[dict[str, Any]]) -> list[list[Any]]:
    """Returns path, size in bytes and modification time of each image and mask, to detect changes."""
    files = [frame[name] for frame in frames for name in ("file_path", "mask_path") if name in frame]
    stats = [(file, Path(file).stat()) for file in files if Path(file).is_file()]
    return [[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _save_whole(path: Path, image: np.ndarray) -> None:
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    Image.fromarray(image).save(partial, format="PNG", compress_level=1)
    os.replace(partial, path)


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    partial.write_bytes(content)
    os.replace(partial, path)
