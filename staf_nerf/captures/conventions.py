"""Conventions of other programs, made ours: axes of cameras, the origin of pixels, the upright axis of the world.

Ours are those of `capture`: camera-to-world, x right, y up, the camera looking along -z; pixels count from the image's
corner, so that the centre of the first pixel is at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from staf_nerf.captures.capture import CaptureError

PERSPECTIVE, FISHEYE, EQUIRECTANGULAR = "OPENCV", "OPENCV_FISHEYE", "EQUIRECTANGULAR"
"""Kinds of lenses, by the names of `camera_model` in `transforms.json`."""

Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Rotation to z up from a world whose y axis points up."""

UNDISTORT = "Export undistorted images with their cameras instead."

LARGEST_SHEAR = 0.5
"""Largest shear of an image, in pixels at its border, that may be left out. Poses are hardly ever known better."""

ROUNDED = 1e-5
"""Distance from the middle of an image, by its side, that the rounding of a projection in float32 makes."""


def opengl_pose(axes: Any, position: Any) -> np.ndarray:
    """Returns the pose (4, 4) of a camera with OpenCV's axes (x right, y down, looking along z).

    Args:
        axes: The camera's axes in the world, (3, 3), one a column.
        position: The camera's position in the world, (3,).
    """
    pose = np.eye(4)
    pose[:3, :3] = np.asarray(axes, dtype=np.float64) * [1.0, -1.0, -1.0]
    pose[:3, 3] = np.asarray(position, dtype=np.float64)
    return pose


def inverse(rotation: Any, translation: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a camera's axes and position for a world-to-camera rotation (3, 3) and translation (3,)."""
    axes = np.linalg.inv(np.asarray(rotation, dtype=np.float64))
    return axes, -axes @ np.asarray(translation, dtype=np.float64)


def intrinsics(matrix: np.ndarray) -> dict[str, float]:
    """Returns focal lengths and principal point of a camera matrix (3, 3), by the names of `transforms.json`."""
    return {"fl_x": matrix[0, 0], "fl_y": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]}


def from_pixel_centers(center: float, side: int) -> float:
    """Returns a coordinate of the principal point that was counted from the centre of the first pixel.

    Many files that should count so count from the corner. Their principal point is mostly the exact middle by that
    count, which a calibration never finds. So the exact middle stays the middle.
    """
    return center if abs(center - 0.5 * side) < ROUNDED * side else center + 0.5


def check_shear(shear: float, camera: Mapping[str, Any], height: int, source: object) -> None:
    """Checks that a camera's shear is small enough to be left out: pixels to the right for each normalised unit down.

    Raises:
        CaptureError: If it moves the border of the image by more than `LARGEST_SHEAR`.
    """
    farthest = max(abs(camera["cy"]), abs(height - camera["cy"])) / camera["fl_y"]
    if abs(shear) * farthest > LARGEST_SHEAR:
        raise CaptureError(
            f"{source} has a camera whose pixels are sheared by {shear:g}: such a camera cannot be trained with.\n"
            f"{UNDISTORT}"
        )


def equirectangular(width: int, height: int, source: object) -> dict[str, Any]:
    """Returns the camera of an image of all directions. The focal lengths are those that nerfstudio expects.

    Raises:
        CaptureError: If the image cannot show all directions.
    """
    if width != 2 * height:
        raise CaptureError(
            f"{source} has spherical images of {width}x{height}: they must show all directions, and be twice as wide "
            "as high.\nAdd what was cut off in black."
        )
    camera = {"w": width, "h": height, "fl_x": width / 2, "fl_y": float(height), "cx": width / 2, "cy": height / 2}
    return {"camera_model": EQUIRECTANGULAR, **camera}
