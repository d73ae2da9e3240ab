"""Camera models and their many spellings, as cameras in pixels.

A perspective lens has OpenCV's distortion (k1 to k4 for r^2 to r^8, p1, p2). A fisheye lens has the same distortion of
the angle from the optical axis, as OpenCV's fisheye model with k1 to k4. An equirectangular image shows all directions:
its width is 360 degrees, its height 180.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from staf_nerf.captures.capture import Camera, CaptureError, Lens

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
"""What nerfstudio's cameras have, in its order."""
BEYOND = ("k5", "k6", "sx1", "sy1", "s1", "s2", "s3", "s4")
"""Distortion that nerfstudio's cameras lack. Where it is 0 it changes nothing."""
KEYS = (
    *("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov"),
    *("camera_model", "is_fisheye", "latlong", "distortion_params", *DISTORTION, *BEYOND),
)
"""All that is read of a camera, by the names of `transforms.json`."""


@dataclass(frozen=True)
class Model:
    """A camera model, with its number and its parameters in COLMAP's files."""

    number: int
    lens: Lens | None
    """None: it cannot be trained with."""
    parameters: tuple[str, ...]
    """By the names of `transforms.json`. "f" is the focal length of both axes."""
    zero: tuple[str, ...] = ()
    """Parameters that must be 0, because nerfstudio's cameras have nothing like them."""


F, FXY = ("f", "cx", "cy"), ("fl_x", "fl_y", "cx", "cy")
MODELS = {
    "SIMPLE_PINHOLE": Model(0, "perspective", F),
    "PINHOLE": Model(1, "perspective", FXY),
    "SIMPLE_RADIAL": Model(2, "perspective", (*F, "k1")),
    "RADIAL": Model(3, "perspective", (*F, "k1", "k2")),
    "OPENCV": Model(4, "perspective", (*FXY, "k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": Model(5, "fisheye", (*FXY, "k1", "k2", "k3", "k4")),
    # k4, k5 and k6 divide there. nerfstudio's k4 is another thing.
    "FULL_OPENCV": Model(
        6, "perspective", (*FXY, "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"), zero=("k4", "k5", "k6")
    ),
    "FOV": Model(7, None, (*FXY, "omega")),
    "SIMPLE_RADIAL_FISHEYE": Model(8, "fisheye", (*F, "k1")),
    "RADIAL_FISHEYE": Model(9, "fisheye", (*F, "k1", "k2")),
    "THIN_PRISM_FISHEYE": Model(
        10, "fisheye", (*FXY, "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"), zero=("sx1", "sy1")
    ),
    # Its tangential part acts on angles that are distorted already.
    "RAD_TAN_THIN_PRISM_FISHEYE": Model(
        11,
        "fisheye",
        (*FXY, "k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4"),
        zero=("k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4"),
    ),
    "SIMPLE_DIVISION": Model(12, None, (*F, "k")),
    "DIVISION": Model(13, None, (*FXY, "k")),
    "SIMPLE_FISHEYE": Model(14, "fisheye", F),
    "FISHEYE": Model(15, "fisheye", FXY),
    "EUCM": Model(16, None, (*FXY, "alpha", "beta")),
    "EQUIRECTANGULAR": Model(17, "equirectangular", ("w", "h")),
}
"""The models of COLMAP 4. nerfstudio and others use some of their names."""

SPELLINGS = {
    "PERSPECTIVE": "OPENCV",
    "EQUIDISTANT": "FISHEYE",
    "FISHEYE_OPENCV": "OPENCV_FISHEYE",
    "EQUIRECT": "EQUIRECTANGULAR",
    "LATLONG": "EQUIRECTANGULAR",
    "SPHERICAL": "EQUIRECTANGULAR",
}
"""Other names of these models."""

FLAGS: dict[str, Lens] = {"is_fisheye": "fisheye", "latlong": "equirectangular"}
"""How instant-ngp's files name a lens."""

UNDISTORT = "Undistort the images first, for example with COLMAP's image_undistorter."


def lens_of(listed: Mapping[str, Any], of: str) -> Lens:
    """Returns the kind of projection of a camera. Without a camera_model it is perspective.

    Args:
        listed: The camera by the names of `transforms.json`.
        of: Whose camera it is, for messages.

    Raises:
        CaptureError: If the model cannot be trained with, or two entries contradict each other.
    """
    lens = _model(listed, of).lens
    named = listed.get("camera_model") not in (None, "")
    for flag, flagged in FLAGS.items():
        if is_set(listed.get(flag)) and lens != flagged:
            if named:
                raise CaptureError(
                    f"the camera_model {listed['camera_model']!r} of {of} contradicts {flag!r}: remove the wrong one"
                )
            lens = flagged
    assert lens is not None
    return lens


def _model(listed: Mapping[str, Any], of: str) -> Model:
    """Returns the named model. Case, hyphens and spaces of its name do not matter."""
    named = listed.get("camera_model") or "OPENCV"
    spelled = str(named).strip().upper().replace("-", "_").replace(" ", "_")
    model = MODELS.get(SPELLINGS.get(spelled, spelled))
    if model is None or model.lens is None:
        known = ", ".join([*(name for name, model in MODELS.items() if model.lens), *SPELLINGS])
        raise CaptureError(
            f"the camera model {named!r} of {of} cannot be trained with. These can: {known}.\n{UNDISTORT}"
        )
    return model


def is_set(value: Any) -> bool:
    """Returns whether a flag is on, also if it is written as text."""
    return value.strip().lower() not in ("", "0", "false", "no") if isinstance(value, str) else bool(value)


def size_of(listed: Mapping[str, Any], of: str) -> tuple[int, int] | None:
    """Returns the listed width and height, or None if one is absent.

    Raises:
        CaptureError: If they are no positive whole numbers.
    """
    sides = [number(listed, name, of) for name in ("w", "h")]
    for name, side in zip(("w", "h"), sides, strict=True):
        if side is not None and (side < 1 or side != round(side)):
            raise CaptureError(f"{name} of {of} must be a whole number of pixels, got {listed[name]!r}")
    width, height = sides
    return None if width is None or height is None else (round(width), round(height))


def fits(listed: tuple[int, int], actual: tuple[int, int]) -> bool:
    """Returns whether an image has the listed size, or is a reduced or enlarged copy of such an image.

    A copy's sides are rounded to whole pixels, up or down.
    """
    if listed == actual:
        return True
    if listed[0] == actual[0] or listed[1] == actual[1]:
        return False
    ratios = [((now - 1) / before, (now + 1) / before) for before, now in zip(listed, actual, strict=True)]
    return max(low for low, _ in ratios) < min(high for _, high in ratios)


def camera_of(listed: Mapping[str, Any], size: tuple[int, int], of: str) -> Camera:
    """Returns the camera of an image. What is not listed follows from the image's size.

    Intrinsics of another size of the image are scaled exactly, each axis by its own ratio.

    Args:
        listed: The camera by the names of `transforms.json`.
        size: Width and height of the image.
        of: Whose camera it is, for messages.

    Raises:
        CaptureError: If the camera cannot be used.
    """
    lens = lens_of(listed, of)
    width, height = size
    if lens == "equirectangular":  # nerfstudio's intrinsics of all directions
        return Camera(width, height, width / 2, height, width / 2, height / 2, lens=lens)
    full = size_of(listed, of) or size
    fx, fy = _focal_lengths(listed, full, of)
    cx, cy = _center(listed, full, of)
    across, down = width / full[0], height / full[1]
    return Camera(width, height, fx * across, fy * down, cx * across, cy * down, _distortion(listed, of), lens)


def number(listed: Mapping[str, Any], name: str, of: str) -> float | None:
    """Returns a number that may be written as text. None: it is absent or null.

    Raises:
        CaptureError: If it is something else, NaN or infinite.
    """
    value = listed.get(name)
    if value is None:
        return None
    return _finite(value, name, of)


def _finite(value: Any, name: str, of: str) -> float:
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise CaptureError(f"{name} of {of} must be a finite number, got {value!r}")
    return result


def _focal_lengths(listed: Mapping[str, Any], size: tuple[int, int], of: str) -> tuple[float, float]:
    """Returns the focal lengths of both axes. One that is not listed is as the other."""
    x, y = (_focal_length(listed, axis, side, of) for axis, side in zip("xy", size, strict=True))
    if x is None and y is None:
        raise CaptureError(f"there are no intrinsics for {of}: fl_x or camera_angle_x is needed")
    return x or y or 0.0, y or x or 0.0


def _focal_length(listed: Mapping[str, Any], axis: str, side: int, of: str) -> float | None:
    """Returns the focal length along an axis as it is listed, or from the listed field of view. None: neither is."""
    length = number(listed, f"fl_{axis}", of)
    if length is not None:
        if length <= 0:
            raise CaptureError(f"fl_{axis} of {of} must be positive, got {length:g}")
        return length
    for name, half_turn in ((f"camera_angle_{axis}", math.pi), (f"{axis}_fov", 180.0)):
        angle = number(listed, name, of)
        if angle is None:
            continue
        if not 0 < angle < half_turn:
            unit = "radians" if half_turn == math.pi else "degrees"
            raise CaptureError(f"{name} of {of} must be an angle in {unit} below {half_turn:.4g}, got {angle:g}")
        return 0.5 * side / math.tan(0.5 * angle / half_turn * math.pi)
    return None


def _center(listed: Mapping[str, Any], size: tuple[int, int], of: str) -> tuple[float, float]:
    """Returns the principal point: as listed, else the middle."""
    cx, cy = (number(listed, name, of) for name in ("cx", "cy"))
    center = 0.5 * size[0] if cx is None else cx, 0.5 * size[1] if cy is None else cy
    inside = all(0 < at < side for at, side in zip(center, size, strict=True))
    if not inside and size_of(listed, of) is None:
        raise CaptureError(
            f"cx, cy of {of} lie outside of its {size[0]}x{size[1]} pixels, got {center[0]:g}, {center[1]:g}. "
            "If they belong to another size of the image, list that as w and h."
        )
    return center


def _distortion(listed: Mapping[str, Any], of: str) -> dict[str, float]:
    """Returns the listed distortion by the names k1 k2 k3 k4 p1 p2."""
    values = listed.get("distortion_params")
    if values is not None:
        return _distortion_of_list(values, of)
    for name in ("k5", "k6", *_model(listed, of).zero):
        if number(listed, name, of):
            raise CaptureError(
                f"{name} of {of} is {listed[name]}: the lens may have no distortion beyond OpenCV's "
                f"{' '.join(DISTORTION)}.\n{UNDISTORT}"
            )
    found = {name: number(listed, name, of) for name in DISTORTION}
    return {name: value for name, value in found.items() if value is not None}


def _distortion_of_list(values: Any, of: str) -> dict[str, float]:
    """Returns the distortion of a list in nerfstudio's order."""
    if not isinstance(values, list | tuple) or len(values) != len(DISTORTION):
        raise CaptureError(f"distortion_params of {of} must be six numbers, {' '.join(DISTORTION)}, got {values!r}")
    return {
        name: _finite(value, f"{name} in distortion_params", of) for name, value in zip(DISTORTION, values, strict=True)
    }
