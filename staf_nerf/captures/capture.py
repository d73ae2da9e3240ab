"""What a capture is: photos with their poses and cameras, whatever the format of the files.

Conventions: poses are camera-to-world in float64, OpenGL axes (x right, y up, looking along -z), as in nerfstudio's,
instant-ngp's and blender's files. The world is that of the files, whatever its units, origin and up axis are; meshes
are written in it. Intrinsics are in pixels with the origin at the image's corner. Paths are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal[
    "transforms",
    "blender",
    "colmap",
    "llff",
    "neus",
    "middlebury",
    "metashape",
    "realitycapture",
    "opensfm",
    "openmvg",
    "bundler",
    "polycam",
    "record3d",
    "kapture",
]

Lens = Literal["perspective", "fisheye", "equirectangular"]
"""Kinds of projection. "perspective" and "fisheye" have OpenCV's distortions. nerfstudio has all three."""

SPLITS = ("train", "val", "test")


class CaptureError(ValueError):
    """Raised for a capture that cannot be used. The message names the file and the reason."""


@dataclass(frozen=True)
class ListedPhoto:
    """A photo as a file lists it. Nothing is checked, and what the file does not say is absent."""

    image: Path
    """The image file, which may not exist."""
    pose: Any
    """The pose: a matrix of 4x4 or 3x4 numbers."""
    camera: Mapping[str, Any]
    """Intrinsics and distortion by the names of `transforms.json`: fl_x, cx, w, k1 …"""
    mask: Path | None = None
    """The mask file."""


@dataclass(frozen=True, eq=False)
class SparsePoints:
    """Points of a scene that structure from motion found, in the world of the poses."""

    positions: np.ndarray
    """(N, 3) float64."""
    colors: np.ndarray | None = None
    """(N, 3) uint8, or None if the files have none."""
    observations: np.ndarray | None = None
    """Which photo sees which point: (M, 2) integers, index of the photo and index of the point. None: not known."""


@dataclass(frozen=True)
class Listing:
    """A capture as its files list it: what the reader of a format returns."""

    source: Path
    """The file or folder that has the poses, for messages."""
    photos: tuple[ListedPhoto, ...]
    splits: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """The images of each split. Empty if the capture has no splits of its own."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """What is said of all photos, by the names of `transforms.json`: orientation_override, applied_transform …"""
    points: SparsePoints | None = None
    """Sparse points. `observations` counts the photos as they are listed here."""
    upright: np.ndarray | None = None
    """Rotation (3, 3) from the files' world to one whose z axis points up. None: it does already, or unknown."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the files were read: a sentence each."""


@dataclass(frozen=True)
class Camera:
    """The camera of one photo, in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Mapping[str, Any] = field(default_factory=dict)
    """Distortion of normalised coordinates by the names of `transforms.json`: k1, k2, k3, k4, p1, p2."""
    lens: Lens = "perspective"


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that exists, with a pose and a camera that are checked."""

    image: Path
    pose: np.ndarray
    """Camera-to-world, (4, 4)."""
    camera: Camera
    has_alpha: bool
    """Whether the image has transparency."""
    mask: Path | None = None
    """The mask file."""
    orientation: int = 1
    """EXIF orientation to be applied to the file's pixels, so that they fit pose and camera. 1: as they are."""


@dataclass(frozen=True, eq=False)
class Capture:
    """A capture that can be used."""

    kind: Kind
    """Format of the files."""
    photos: tuple[Photo, ...]
    dropped: tuple[Path, ...]
    """Listed images that do not exist."""
    splits: Mapping[str, tuple[Path, ...]]
    """The images of each split that exist. Empty if the capture has no splits of its own."""
    world: Mapping[str, Any]
    """As in `Listing`."""
    points: SparsePoints | None = None
    """Sparse points. `observations` counts `photos`."""
    upright: np.ndarray | None = None
    """As in `Listing`."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the files were read: a sentence each."""
