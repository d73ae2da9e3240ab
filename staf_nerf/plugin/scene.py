"""Where a capture lies in nerfstudio's scene: upright, its region of interest at the origin, and of a usual size.

Conventions: everything is float64, and only the finished poses become float32. So coordinates of a survey, which may be
millions of metres, lose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses

from staf_nerf.captures.capture import Capture
from staf_nerf.captures.region import RegionOfInterest, region_of_interest

Orientation = Literal["pca", "up", "vertical", "none"]
Center = Literal["region", "poses", "focus", "none"]

AGREEMENT = 0.3
"""Length of the mean of the cameras' upward directions below which it does not tell what is up."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A capture's place in the scene."""

    poses: np.ndarray
    """Camera-to-world poses of all photos in the scene, (N, 4, 4)."""
    moved: np.ndarray
    """(4, 4): from the coordinates of the capture's poses to those of the scene before they are scaled."""
    scale: float
    """Factor of the scale."""
    region: RegionOfInterest
    """The region of interest, in the scene."""

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4): from the coordinates of the capture's poses to those of the scene."""
        return np.diag([self.scale, self.scale, self.scale, 1.0]) @ self.moved


def place(
    capture: Capture, *, orientation: Orientation, center: Center, auto_scale: bool, scale_factor: float
) -> Scene:
    """Returns the place of a capture in the scene.

    Args:
        capture: The capture.
        orientation: nerfstudio's method to turn the scene upright. The capture's `upright` is applied before. It alone
            counts if the region becomes the origin, and the cameras do not tell what is up.
        center: What becomes the origin: the region of interest, or by nerfstudio's methods.
        auto_scale: Whether cameras (and the region, if it is the origin) are scaled to [-1, 1].
        scale_factor: Additional factor.
    """
    poses = np.stack([photo.pose for photo in capture.photos]).astype(np.float64)
    region = region_of_interest(capture)
    turn = np.eye(3) if capture.upright is None else np.asarray(capture.upright, dtype=np.float64)
    middle = poses[:, :3, 3].mean(0)
    around_middle = _transform(turn, -turn @ middle)
    if center == "region" and orientation in ("up", "vertical") and not _tell_up(poses):
        orientation = "none"
    rotation, focus = _oriented(around_middle @ poses, orientation, "focus" if center == "focus" else "poses")
    origin = {
        "region": around_middle[:3] @ np.append(region.center, 1.0),
        "poses": np.zeros(3),
        "focus": focus,
        "none": -turn @ middle,
    }[center]
    moved = _transform(rotation, -rotation @ origin) @ around_middle
    # Large coordinates would cost digits in moved @ poses. Relative to the middle they are small.
    small = _transform(rotation, -rotation @ origin) @ (around_middle @ poses)
    there = region.moved(moved)
    scale = scale_factor
    if auto_scale and there.cameras != "one place":
        reach = float(np.abs(small[:, :3, 3]).max())
        scale /= max(reach, there.radius) if center == "region" else reach
    small[:, :3, 3] *= scale
    return Scene(small, moved, scale, there.moved(np.diag([scale, scale, scale, 1.0])))


def original_transform(scene: Scene, world: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    """Returns nerfstudio's transform (3, 4) and scale, which start before `applied_transform` and `applied_scale`."""
    applied = np.eye(4)
    if world.get("applied_transform") is not None:
        applied[:3] = np.asarray(world["applied_transform"], dtype=np.float64)[:3]
    return (scene.moved @ applied)[:3], scene.scale * float(world.get("applied_scale", 1.0))


def _tell_up(poses: np.ndarray) -> bool:
    """Returns whether the cameras' upward directions agree. Those of a survey that is flown to and fro do not."""
    return float(np.linalg.norm(poses[:, :3, 1].mean(0))) > AGREEMENT


def _oriented(
    poses: np.ndarray, orientation: Orientation, center: Literal["poses", "focus"]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns nerfstudio's rotation (3, 3), and the point (3,) that it would move to the origin.

    nerfstudio computes in float32. The poses are relative to the cameras' middle, so that this is exact enough. The
    rotation is that of the first pose: with "pca", nerfstudio's transform may be turned against its poses.
    """
    oriented, transform = auto_orient_and_center_poses(torch.from_numpy(poses).float(), orientation, center)
    first, matrix = oriented[0].double().numpy(), transform.double().numpy()
    rotation = first[:3, :3] @ np.linalg.inv(poses[0, :3, :3])
    return rotation, -np.linalg.solve(matrix[:, :3], matrix[:, 3])


def _transform(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix
