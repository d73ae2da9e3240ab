"""Writes what structure from motion found as a capture: `transforms.json`, sparse points, and who sees them.

The world that is written has z up. Its origin is the middle of the points. Its scale means nothing, unless a distance
is given.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.captures.capture import CaptureError
from staf_nerf.sfm.photos import Upright
from staf_nerf.sfm.process import Model

TRANSFORMS, POINTS, OBSERVATIONS = "transforms.json", "sparse_points.ply", "observations.npz"
LEVEL = 0.1
"""Mean square of the cameras' x axes along a direction, relative to the largest, below which it may be vertical."""


def upright(model: Model) -> Model:
    """Returns the model in a world with z up, whose origin is the median of the points."""
    rotation = to_z(up_direction(model.poses))
    turned = _moved(model, rotation, np.zeros(3), 1.0)
    middle = np.median(turned.positions if len(turned.positions) else turned.poses[:, :3, 3], axis=0)
    return _moved(turned, np.eye(3), -middle, 1.0)


def up_direction(poses: np.ndarray) -> np.ndarray:
    """Returns the unit vector that points up, of camera-to-world poses (N, 4, 4) with OpenGL axes.

    Photos are taken level: the cameras' x axes are horizontal. So the vertical is the direction that is square to all
    of them. If they leave several such directions, as cameras on one side do, it is the one nearest to the cameras' own
    up axes. Those also tell up from down.
    """
    right, up = poses[:, :3, 0], poses[:, :3, 1].mean(0)
    squares, directions = np.linalg.eigh(right.T @ right)
    candidates = directions[:, squares <= LEVEL * squares[-1]]
    projected = candidates @ (candidates.T @ up) if candidates.size else up
    length = float(np.linalg.norm(projected))
    if length > 0.1:
        return projected / length
    # Cameras that look straight down have up axes in all directions: up is where they look from.
    away = poses[:, :3, 2].mean(0)
    axis = directions[:, 0]
    return axis if axis @ away >= 0 else -axis


def to_z(up: np.ndarray) -> np.ndarray:
    """Returns the shortest rotation (3, 3) that takes a unit vector to z."""
    from scipy.spatial.transform import Rotation

    axis = np.cross(up, [0.0, 0.0, 1.0])
    sine, cosine = float(np.linalg.norm(axis)), float(up[2])
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix()


def scaled(model: Model, first: str, second: str, distance: float) -> Model:
    """Returns the model scaled so that two cameras have a distance.

    Raises:
        CaptureError: If an image has no pose, or both stand in one place.
    """
    if not distance > 0:
        raise CaptureError(f"the distance must be positive, got {distance:g}")
    centers = [model.poses[_place(model, name), :3, 3] for name in (first, second)]
    found = float(np.linalg.norm(centers[0] - centers[1]))
    extent = float(np.linalg.norm(np.ptp(model.poses[:, :3, 3], axis=0)))
    if found < 1e-3 * extent:
        raise CaptureError(f"{first} and {second} were taken from one place: their distance says nothing of the scale")
    return _moved(model, np.eye(3), np.zeros(3), distance / found)


def _place(model: Model, name: str) -> int:
    """Returns the position of an image, named with or without its suffix."""
    found = [place for place, known in enumerate(model.names) if name in (known, Path(known).stem)]
    if not found:
        raise CaptureError(f"{name} has no pose, so its distance from another photo is not known")
    return found[0]


def _moved(model: Model, rotation: np.ndarray, offset: np.ndarray, scale: float) -> Model:
    """Returns the model with all points p at scale * rotation p + offset."""
    poses = model.poses.copy()
    poses[:, :3, :3] = rotation @ poses[:, :3, :3]
    poses[:, :3, 3] = scale * poses[:, :3, 3] @ rotation.T + offset
    return dataclasses.replace(model, poses=poses, positions=scale * model.positions @ rotation.T + offset)


# --- files -----------------------------------------------------------------------------------------------------------


def write_scene(model: Model, images: Mapping[str, Upright], listed: Mapping[str, bool], folder: Path) -> None:
    """Writes the capture into a folder whose `images` and `masks` are there already; `transforms.json` comes last.

    Args:
        model: Cameras and points.
        images: The images by name.
        listed: Whether the mask of an image, by name, is listed.
        folder: Output folder.
    """
    write_points(model, folder / POINTS)
    partial = folder / f".{OBSERVATIONS}"
    with open(partial, "wb") as file:
        np.savez_compressed(
            file,
            images=np.array([f"images/{name}" for name in model.names]),
            observations=model.observations,
            pixels=model.pixels,
            errors=model.errors,
        )
    os.replace(partial, folder / OBSERVATIONS)
    partial = folder / f".{TRANSFORMS}"
    partial.write_text(json.dumps(transforms(model, images, listed), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / TRANSFORMS)


def transforms(model: Model, images: Mapping[str, Upright], listed: Mapping[str, bool]) -> dict[str, Any]:
    """Returns the content of `transforms.json`. The intrinsics of several cameras stand at each frame."""
    found = [
        {"w": images[name].size[0], "h": images[name].size[1], **model.cameras[camera]}
        for name, camera in zip(model.names, model.camera_of, strict=True)
    ]
    one = len(set(model.camera_of)) == 1
    frames = []
    for name, pose, intrinsics in zip(model.names, model.poses, found, strict=True):
        frame: dict[str, Any] = {"file_path": f"images/{name}"}
        if listed.get(name):
            frame["mask_path"] = f"masks/{name}.png"
        frames.append({**frame, **({} if one else intrinsics), "transform_matrix": pose.tolist()})
    shared = found[0] if one else {}
    return {
        "camera_model": "OPENCV",
        **shared,
        "ply_file_path": POINTS,
        "observations_path": OBSERVATIONS,
        "frames": frames,
    }


def write_points(model: Model, path: Path) -> None:
    """Writes the points with their colours as binary PLY. Their order is that of the observations."""
    layout = [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    rows = np.empty(len(model.positions), dtype=layout)
    for place, name in enumerate("xyz"):
        rows[name] = model.positions[:, place]
    for place, name in enumerate(("red", "green", "blue")):
        rows[name] = model.colors[:, place]
    names = {"<f8": "double", "u1": "uchar"}
    properties = "".join(f"property {names[kind]} {name}\n" for name, kind in layout)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(header.encode() + rows.tobytes())
    os.replace(partial, path)
