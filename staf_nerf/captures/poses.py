"""Poses as files list them, made rotations and positions: camera-to-world, OpenGL axes, float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from staf_nerf.captures.capture import CaptureError

ROUNDED = 2e-3
"""Largest deviation from a rotation that is taken for rounding: three decimals give up to 1.8e-3."""
FARTHEST = 1e12
"""Largest number of a pose. Distances of cameras are squared in float64, and survey coordinates have 1e7."""
EXACT = 1e-6
"""Deviation up to which the numbers are left as they are. Float32 has less."""


def rigid_pose(listed: Any, of: str) -> tuple[np.ndarray, float]:
    """Returns a pose (4, 4) whose axes are orthonormal, and the factor by which the listed axes were longer.

    Args:
        listed: The pose: 4x4 or 3x4 numbers, or 16 or 12 numbers row by row.
        of: Whose pose it is, for messages.

    Raises:
        CaptureError: If the numbers are no rotation and position.
    """
    pose = _matrix(listed, of)
    axes = pose[:, :3]
    determinant = float(np.linalg.det(axes))
    if abs(determinant) < 1e-12 * max(np.abs(axes).max(), 1e-12) ** 3 or abs(determinant) < 1e-30:
        raise CaptureError(f"the pose of {of} is singular (determinant {determinant:g})")
    scale = abs(determinant) ** (1 / 3)
    rotation = axes / scale
    deviation = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if deviation > ROUNDED:
        raise CaptureError(
            f"the pose of {of} is not a rotation: its axes are not perpendicular and of one length "
            f"(they deviate by {deviation:.2g}). Export the poses without shear and stretching."
        )
    if determinant < 0:
        raise CaptureError(
            f"the pose of {of} is mirrored: the determinant of its axes is negative ({determinant:.3g}). "
            "The axes must be right-handed: x right, y up, and the camera looking along -z."
        )
    if deviation > EXACT or abs(scale - 1) > EXACT:
        left, _, right = np.linalg.svd(rotation)
        axes = left @ right
    return np.vstack([np.column_stack([axes, pose[:, 3]]), [0.0, 0.0, 0.0, 1.0]]), scale


def _matrix(listed: Any, of: str) -> np.ndarray:
    """Returns the upper three rows of a listed pose."""
    try:
        pose = np.asarray(listed, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CaptureError(f"the pose of {of} is not a matrix of numbers: {error}") from error
    if pose.shape in ((16,), (12,)):
        pose = pose.reshape(-1, 4)
    if pose.shape not in ((4, 4), (3, 4)):
        raise CaptureError(f"the pose of {of} must be 4x4 or 3x4, got {pose.shape}")
    if not np.isfinite(pose).all():
        raise CaptureError(f"the pose of {of} has a value that is NaN or infinite")
    if np.abs(pose).max() > FARTHEST:
        raise CaptureError(f"the pose of {of} has a number beyond {FARTHEST:g}: {np.abs(pose).max():g}")
    if len(pose) == 4 and np.abs(pose[3] - [0.0, 0.0, 0.0, 1.0]).max() > EXACT and pose[3].any():
        transposed = np.abs(pose[:, 3] - [0.0, 0.0, 0.0, 1.0]).max() <= EXACT
        hint = "The matrix is transposed: the position belongs into the last column." if transposed else ""
        raise CaptureError(f"the last row of the pose of {of} must be 0 0 0 1, got {pose[3].tolist()}. {hint}".strip())
    return pose[:3]
