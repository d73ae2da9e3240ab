"""Where the scene of a capture is: the region that is worth reconstructing, and how the cameras stand to it.

Conventions: poses are camera-to-world with OpenGL axes (x right, y up, looking along -z). A region is a ball in the
coordinates of the poses. Its place comes from sparse points where there are enough of them, else from where the
cameras look.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from staf_nerf.captures.capture import Camera, Capture, SparsePoints

Arrangement = Literal["around", "one-sided", "inside", "forward", "strips", "one place"]
"""How the cameras stand:

"around": they look at one place from all sides, as on a walk around an object.
"one-sided": they look at one place from one side, as at a face.
"inside": they look outwards, as in a room.
"forward": they look in one direction, and their pictures overlap.
"strips": they look in one direction, and no picture shows all, as in a survey from the air or along a wall.
"one place": they turn about one point. Depth cannot be found from there.
"""

STANDING: dict[Arrangement, str] = {
    "around": "the cameras stand around what they look at",
    "one-sided": "the cameras stand on one side of what they look at",
    "inside": "the cameras stand inside and look outwards",
    "forward": "the cameras look in one direction",
    "strips": "the cameras look in one direction, in strips",
    "one place": "the cameras are all in one place",
}
NO_DEPTH = (
    "All cameras are in one place, and depth cannot be found from there. Views from there can be trained, but no "
    "surface and no mesh. Take photos from several places."
)

LOOKING = 0.6
"""Fraction of the cameras that must see the point which they look at, if they look at one point at all."""
TURNED = 0.5
"""Deviation of the cameras from that point, relative to their deviation from one direction, below which they look at
the point. The nearest point to axes that are turned at random is in some pictures too."""
ONE_SIDE = math.radians(150.0)
"""Widest angle without a camera, seen from above, up to which cameras stand all around."""
ONE_DIRECTION = 0.7
"""Length of the mean viewing direction above which the cameras look in one direction."""
EMPTY = 0.1
"""Fraction of the points below which the middle between the cameras is empty."""
SMALL_MOTION = 1e-3
"""Motion of the cameras, relative to the distance of the points, below which they are in one place."""
ROUNDING = 1e-8
"""Motion of the cameras, relative to their coordinates, that is their files' rounding."""
NO_MOTION = 1e-4
"""Motion of cameras that do not look at one point, in units of their files, that counts as none."""
SHARED = 0.4
"""Points of the region are in the view of this fraction of the cameras that see the most popular point.
What lies behind an object is in the view of the cameras on one side of it only."""
LEAST_POINTS = 30
"""Number of points from which on a region is found from them."""
MOST_POINTS, MOST_CAMERAS = 10_000, 200
"""Numbers of points and cameras that are compared with each other."""
FARTHEST = 4.0
"""Points beyond this multiple of the median distance are left out."""
MARGIN = 1.05
"""The region is larger than the ball of most points by this factor."""
ROOM_TO_SPARE = {"points": 1.25, "cameras": 2.0}
"""Half the side of the cube that holds a region, relative to its radius.
What cameras look at is often larger than their pictures, by up to twice."""
WIDEST = 0.5
"""Largest radius of what cameras look at, relative to their distance. Wide lenses show much beside it."""
OVERLAP = 0.7
"""Part of a picture that the next one shows too, in a survey from the air."""


@dataclass(frozen=True)
class CameraFocus:
    """The point that the cameras look at, and their distances from it."""

    center: tuple[float, float, float]
    """The point that is nearest to all optical axes, in the least squares sense."""
    nearest: float
    """Distance from that point to the nearest camera."""
    farthest: float
    """Distance from that point to the farthest camera."""
    half_view: float
    """Tangent of the smallest half field of view."""
    inwards: bool
    """Whether most cameras look towards the point, as around an object. Otherwise they stand inside a room."""
    half_side: float | None = None
    """Half the side of the cube around the point that holds the scene. None: only the cameras are known."""


@dataclass(frozen=True)
class RegionOfInterest:
    """A ball that holds what is worth reconstructing, and how the cameras stand to it."""

    center: tuple[float, float, float]
    radius: float
    cameras: Arrangement
    source: Literal["points", "cameras"]
    """Where it comes from: sparse points, or where the cameras look."""
    nearest: float
    """Distance from the centre to the nearest camera."""
    farthest: float
    """Distance from the centre to the farthest camera."""
    half_view: float
    """Tangent of the smallest half field of view."""

    @property
    def focus(self) -> CameraFocus:
        """The centre as a point that the cameras look at."""
        half_side = self.half_side if self.source == "points" else None
        return CameraFocus(
            self.center, self.nearest, self.farthest, self.half_view, self.cameras != "inside", half_side
        )

    @property
    def half_side(self) -> float:
        """Half the side of a cube that holds the region with room to spare: more, if no points show its size."""
        return ROOM_TO_SPARE[self.source] * self.radius

    def moved(self, matrix: np.ndarray) -> RegionOfInterest:
        """Returns the region in other coordinates. `matrix` (4, 4) rotates, scales by one factor, and translates."""
        scale = float(np.linalg.norm(matrix[:3, 0]))
        return dataclasses.replace(
            self,
            center=_point(matrix[:3, :3] @ self.center + matrix[:3, 3]),
            radius=scale * self.radius,
            nearest=scale * self.nearest,
            farthest=scale * self.farthest,
        )


@dataclass(frozen=True, eq=False)
class _Cameras:
    """Cameras, relative to their middle."""

    origins: np.ndarray
    """(N, 3)"""
    axes: np.ndarray
    """Viewing directions, (N, 3)."""
    up: np.ndarray
    """Mean upward direction, (3,)."""
    half_views: np.ndarray
    """Tangents of half the smaller field of view, (N,)."""
    panoramic: bool
    """Whether most of them see everything around them."""

    @property
    def spread(self) -> float:
        """Largest distance of a camera from the middle."""
        return float(np.linalg.norm(self.origins, axis=-1).max())

    @property
    def direction(self) -> np.ndarray:
        """Mean viewing direction, a unit vector unless it is 0."""
        mean = self.axes.mean(0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


def camera_focus(poses: np.ndarray, sides_per_focal_length: np.ndarray) -> CameraFocus:
    """Returns where the cameras look: the point nearest to all optical axes (least squares).

    Args:
        poses: Camera-to-world poses (N, 3 or 4, 4) with OpenGL axes.
        sides_per_focal_length: Width and height of each image, divided by its focal lengths, (N, 2).
    """
    origins, axes = poses[:, :3, 3].astype(np.float64), -poses[:, :3, 2].astype(np.float64)
    center = _nearest_to_axes(origins, axes)
    offsets = center - origins
    distances = np.linalg.norm(offsets, axis=-1)
    inwards = bool(np.mean((offsets * axes).sum(-1) > 0) > 0.5)
    half_view = 0.5 * float(sides_per_focal_length.min())
    return CameraFocus(_point(center), float(distances.min()), float(distances.max()), half_view, inwards)


def region_of_interest(capture: Capture) -> RegionOfInterest:
    """Returns the region of interest of a capture, in the coordinates of its poses."""
    poses = np.stack([photo.pose for photo in capture.photos]).astype(np.float64)
    middle = poses[:, :3, 3].mean(0)
    upwards = poses[:, :3, 1].mean(0)
    cameras = _Cameras(
        origins=poses[:, :3, 3] - middle,
        axes=-poses[:, :3, 2],
        up=upwards / max(float(np.linalg.norm(upwards)), 1e-12),
        half_views=np.array([half_view(photo.camera) for photo in capture.photos]),
        panoramic=sum(photo.camera.lens == "equirectangular" for photo in capture.photos) > len(poses) / 2,
    )
    points = _usable(capture.points, middle)
    skyward = np.array([0.0, 0.0, 1.0]) if capture.upright is None else capture.upright[2]
    rounding = ROUNDING * float(np.abs(poses[:, :3, 3]).max())
    arrangement = _arrangement(cameras, points, skyward, rounding)
    found = _from_points(cameras, points, arrangement) or _from_cameras(cameras, arrangement)
    center, radius, source = found
    distances = np.linalg.norm(cameras.origins - center, axis=-1)
    return RegionOfInterest(
        center=_point(middle + center),
        radius=radius,
        cameras=arrangement,
        source=source,
        nearest=float(distances.min()),
        farthest=float(distances.max()),
        half_view=float(cameras.half_views.min()),
    )


def describe(region: RegionOfInterest) -> str:
    """Returns in words how the cameras stand, and where the region is."""
    standing = STANDING[region.cameras]
    if region.cameras == "one place":
        return standing
    decimals = max(2 - math.floor(math.log10(region.radius)), 0)  # a hundredth of the region
    center = ", ".join(f"{x + 0.0:.{decimals}f}" for x in np.round(region.center, decimals))
    source = "from sparse points" if region.source == "points" else "from the cameras alone"
    return f"{standing}; region of interest: {2 * region.radius:.3g} wide around ({center}), {source}"


def half_view(camera: Camera) -> float:
    """Returns the tangent of half the smaller field of view, at most 1 (90 degrees)."""
    half = 0.5 * min(camera.width / camera.fx, camera.height / camera.fy)
    if camera.lens == "equirectangular":
        return 1.0
    return min(half if camera.lens == "perspective" else math.tan(min(half, math.pi / 4)), 1.0)


# --- how the cameras stand -------------------------------------------------------------------------------------------


def _arrangement(cameras: _Cameras, points: np.ndarray | None, skyward: np.ndarray, rounding: float) -> Arrangement:
    focus = _nearest_to_axes(cameras.origins, cameras.axes)
    look = not cameras.panoramic and _look_at(cameras, focus)
    if _in_one_place(cameras, points, rounding, look):
        return "one place"
    if look:
        if points is not None and _stands_within(cameras, points, focus):
            return "inside"
        return "around" if _widest_gap(cameras, focus) < ONE_SIDE else "one-sided"
    if cameras.panoramic or np.linalg.norm(cameras.axes.mean(0)) < ONE_DIRECTION:
        return "inside"
    return "strips" if _is_survey(cameras, points, skyward) else "forward"


def _look_at(cameras: _Cameras, focus: np.ndarray) -> bool:
    """Returns whether most cameras see a point, and turn towards it: it explains their directions."""
    offsets = focus - cameras.origins
    towards = offsets / np.maximum(np.linalg.norm(offsets, axis=-1, keepdims=True), 1e-12)
    off_point, off_parallel = (
        np.median(np.linalg.norm(cameras.axes - direction, axis=-1)) for direction in (towards, cameras.direction)
    )
    return bool(_seeing(cameras, focus[None]).mean() >= LOOKING and off_point < TURNED * off_parallel)


def _in_one_place(cameras: _Cameras, points: np.ndarray | None, rounding: float, look: bool) -> bool:
    if cameras.spread <= rounding:
        return True
    if points is not None:
        return cameras.spread < SMALL_MOTION * float(np.median(np.linalg.norm(points, axis=-1)))
    return not look and cameras.spread < NO_MOTION


def _stands_within(cameras: _Cameras, points: np.ndarray, focus: np.ndarray) -> bool:
    """Returns whether the point that the cameras look at is in the empty middle of a room."""
    nearest = np.linalg.norm(cameras.origins - focus, axis=-1).min()
    return bool(np.mean(np.linalg.norm(points - focus, axis=-1) < nearest) < EMPTY)


def _widest_gap(cameras: _Cameras, focus: np.ndarray) -> float:
    """Returns the widest angle without a camera about the upward direction, in radians. No camera beside: all of it."""
    offsets = cameras.origins - focus
    side = np.linalg.svd(cameras.up[None])[2][1:]  # two directions across the upward one
    across = offsets @ side.T
    beside = np.linalg.norm(across, axis=-1) > 0.2 * np.linalg.norm(offsets, axis=-1)
    angles = np.sort(np.arctan2(across[beside, 1], across[beside, 0]))
    return float(np.diff(np.append(angles, angles[0] + 2 * math.pi)).max()) if len(angles) else 2 * math.pi


def _is_survey(cameras: _Cameras, points: np.ndarray | None, skyward: np.ndarray) -> bool:
    """Returns whether no picture shows all. Without points, cameras that look down from a wide area are a survey."""
    if points is not None:
        depth = float(np.median(points @ cameras.direction))
        return cameras.spread > depth * float(np.median(cameras.half_views))
    looks_down = float(cameras.direction @ -skyward) > ONE_DIRECTION
    return looks_down and cameras.spread > 2 * _spacing(cameras)


def _spacing(cameras: _Cameras) -> float:
    """Returns the median distance of a camera from the next."""
    from scipy.spatial import KDTree

    distances, _ = KDTree(cameras.origins).query(cameras.origins, k=2)
    return float(np.median(distances[:, 1]))


# --- the region ------------------------------------------------------------------------------------------------------


def _from_points(
    cameras: _Cameras, points: np.ndarray | None, arrangement: Arrangement
) -> tuple[np.ndarray, float, Literal["points"]] | None:
    """Returns the ball of the points that matter. None: there are too few."""
    if points is None:
        return None
    kept = points
    if arrangement in ("around", "one-sided"):
        focus = _nearest_to_axes(cameras.origins, cameras.axes)
        seen = _seeing(cameras, points).sum(0)
        nearest = np.linalg.norm(cameras.origins - focus, axis=-1).min()
        kept = points[(seen >= SHARED * seen.max()) & (np.linalg.norm(points - focus, axis=-1) < nearest)]
    elif arrangement in ("forward", "strips"):
        depth = points @ cameras.direction
        kept = points[(depth > 0) & (depth < FARTHEST * np.median(depth))]
    else:
        distance = np.linalg.norm(points, axis=-1)
        kept = points[distance < FARTHEST * np.median(distance)]
    if len(kept) < LEAST_POINTS:
        return None
    center = np.percentile(kept, (5, 95), axis=0).mean(0)
    radius = MARGIN * float(np.percentile(np.linalg.norm(kept - center, axis=-1), 95))
    return (np.zeros(3) if arrangement == "one place" else center), radius, "points"


def _from_cameras(cameras: _Cameras, arrangement: Arrangement) -> tuple[np.ndarray, float, Literal["cameras"]]:
    """Returns a ball that the cameras see.

    Cameras that look at one point tell its place, and what fits into their pictures is the size. Others do not tell how
    far they look: then it is what usual captures have.
    """
    half_view = float(np.median(cameras.half_views))
    if arrangement in ("around", "one-sided"):
        center = _nearest_to_axes(cameras.origins, cameras.axes)
        distance = float(np.median(np.linalg.norm(cameras.origins - center, axis=-1)))
        return center, min(half_view, WIDEST) * distance, "cameras"
    if arrangement == "forward":  # the cameras farthest apart share half of their pictures
        return cameras.direction * 2 * cameras.spread / half_view, 2 * cameras.spread, "cameras"
    if arrangement == "strips":
        distance = _spacing(cameras) / (2 * half_view * (1 - OVERLAP))
        return cameras.direction * distance, cameras.spread + half_view * distance, "cameras"
    if arrangement == "inside":  # the walls are about as far from the cameras as the cameras from their middle
        return np.zeros(3), 2 * cameras.spread, "cameras"
    return np.zeros(3), 1.0, "cameras"


def _usable(points: SparsePoints | None, middle: np.ndarray) -> np.ndarray | None:
    """Returns at most `MOST_POINTS` points, relative to the cameras' middle. None: there are too few.

    Points that three photos see are preferred: those of two are often wrong.
    """
    if points is None:
        return None
    positions = np.asarray(points.positions, dtype=np.float64)
    chosen = np.isfinite(positions).all(-1)
    if points.observations is not None:
        often = np.bincount(points.observations[:, 1], minlength=len(positions)) >= 3
        if (chosen & often).sum() >= LEAST_POINTS:
            chosen = chosen & often
    positions = positions[chosen]
    if len(positions) < LEAST_POINTS:
        return None
    return positions[:: math.ceil(len(positions) / MOST_POINTS)] - middle


def _seeing(cameras: _Cameras, points: np.ndarray) -> np.ndarray:
    """Returns which cameras have which points in their pictures' inscribed circles, (cameras, points)."""
    every = math.ceil(len(cameras.origins) / MOST_CAMERAS)
    origins, axes, half_views = (x[::every] for x in (cameras.origins, cameras.axes, cameras.half_views))
    offsets = points[None] - origins[:, None]
    depth = (offsets * axes[:, None]).sum(-1)
    across = np.linalg.norm(offsets - depth[..., None] * axes[:, None], axis=-1)
    return (depth > 0) & (across < half_views[:, None] * depth)


def _nearest_to_axes(origins: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Returns the point (3,) nearest to all axes, by the projectors orthogonal to them."""
    projectors = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    return np.linalg.lstsq(projectors.sum(0), (projectors @ origins[:, :, None]).sum(0)[:, 0], rcond=None)[0]


def _point(x: np.ndarray) -> tuple[float, float, float]:
    a, b, c = x.tolist()
    return a, b, c
