"""Chooses frames of a video: spread over the motion of the camera, each the sharpest of its neighbourhood.

Motion is the median displacement of tracked points between examined frames, in shares of the picture's diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from staf_nerf.captures.capture import CaptureError
from staf_nerf.sfm.photos import Upright, sharpness, write_whole_image

SMALL = 480
"""Longest side, in pixels, of the reduced frames that are examined."""
EXAMINED_A_SECOND, EXAMINED = 12.0, 240
"""Frames a second that are examined: at 30 a second every second or third one. Of a short film more, up to 240."""
A_SECOND, FEWEST, MOST = 2.5, 40, 200
"""Frames a second that are chosen, and the least and the largest number of them."""
LEAST_MOTION = 0.004
"""Motion between two chosen frames, at least. With less they show the same. It is small where a camera circles."""
CUT = 0.25
"""Motion between two examined frames that counts at most: a cut of the film is not worth many frames."""
INNER = 0.6
"""Share of a stretch of motion, in its middle, from which its frame is taken."""
OUTER = 0.7
"""What the sharpness of frames near the ends of a stretch counts."""
TRACKED = 0.25
"""Share of the points that must be found again. With fewer, two frames show different things."""
POINTS = 200
"""Number of tracked points."""


@dataclass(frozen=True)
class Examined:
    """A frame that was looked at."""

    index: int
    """Its number among all decoded frames."""
    seconds: float
    sharpness: float
    motion: float
    """Motion since the examined frame before it."""


def choose_frames(
    video: Path, count: int | None = None, *, report: Callable[[float], None] = lambda done: None
) -> list[Examined]:
    """Returns the frames of a video that are worth a pose, in their order.

    Args:
        video: The film.
        count: Number of frames. None: 2.5 a second, between 40 and 200. There are fewer if the camera moves little.
        report: Called with the fraction done.

    Raises:
        CaptureError: If it cannot be read, or the camera hardly moves.
    """
    examined = list(examine(video, report=report))
    if len(examined) < 2:
        raise CaptureError(f"{video} has {len(examined)} frame{'s' * (len(examined) != 1)}: a moving camera is needed")
    seconds = examined[-1].seconds - examined[0].seconds
    wanted = count if count is not None else int(np.clip(round(A_SECOND * seconds), FEWEST, MOST))
    chosen = spread(examined, wanted)
    if len(chosen) < 3:
        raise CaptureError(f"the camera hardly moves in {video}. Film while you walk around the object")
    return chosen


def spread(examined: Sequence[Examined], count: int) -> list[Examined]:
    """Returns the sharpest frame of each of `count` equal stretches of motion.

    A stretch has at least the least motion. So where the camera stands still, one frame is taken. Frames near the ends
    of a stretch are taken only if they are far sharper: two of them, on both sides of an end, could be alike.
    """
    travelled = np.cumsum([0.0, *(min(frame.motion, CUT) for frame in examined[1:])])
    stretches = max(min(count, int(travelled[-1] / LEAST_MOTION) + 1), 1)
    positions = stretches * travelled / max(travelled[-1], 1e-12)
    places = np.minimum(positions.astype(int), stretches - 1)
    weights = np.where(np.abs(positions - places - 0.5) < INNER / 2, 1.0, OUTER)
    scores = weights * [frame.sharpness for frame in examined]
    members = (np.flatnonzero(places == place) for place in np.unique(places))
    return [examined[found[scores[found].argmax()]] for found in members]


def examine(video: Path, *, report: Callable[[float], None] = lambda done: None) -> Iterator[Examined]:
    """Yields sharpness and motion of the frames of a video, of some in each second."""
    before: np.ndarray | None = None
    due = -1.0
    for index, frame, duration in _decoded(video):
        seconds = float(frame.time) if frame.time is not None else index / 25.0
        if seconds < due:
            continue
        due = seconds + 0.999 / max(EXAMINED_A_SECOND, EXAMINED / duration if duration else 0.0)
        grey = _small(frame)
        yield Examined(index, seconds, sharpness(grey), 0.0 if before is None else motion(before, grey))
        before = grey
        report(min(seconds / duration, 1.0) if duration else 0.0)


def motion(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the median displacement of points between two grey frames (H, W), as a share of the diagonal.

    If most points are lost, the frames show different things: that counts as a cut.
    """
    import cv2

    corners = cv2.goodFeaturesToTrack(before, POINTS, 0.01, 8)
    if corners is None:
        return 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.zeros_like(corners))
    kept = found[:, 0] == 1
    if kept.mean() < TRACKED:
        return CUT
    pixels = np.median(np.linalg.norm(moved - corners, axis=-1)[kept])
    height, width = before.shape
    return float(pixels / np.hypot(height, width))


def write_frames(
    video: Path,
    chosen: Sequence[Examined],
    images: Path,
    *,
    stem: str,
    report: Callable[[float], None] = lambda done: None,
) -> list[Upright]:
    """Writes frames of a video as JPEG, upright by the film's own rotation, and returns them."""
    wanted = {frame.index: frame for frame in chosen}
    written = []
    for index, frame, _ in _decoded(video):
        if index not in wanted:
            continue
        name = f"{stem}_{index:06d}.jpg"
        upright = Image.fromarray(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarters(frame))))
        if not (images / name).is_file():
            write_whole_image(images / name, upright)
        camera = ("video", str(video), *upright.size)
        written.append(Upright(name, upright.size, camera, None, wanted[index].sharpness, False))
        report(len(written) / len(wanted))
        if len(written) == len(wanted):
            break
    return written


def _decoded(video: Path) -> Iterator[tuple[int, Any, float]]:
    """Yields number and content of each frame, and the seconds of the whole video (0: not known).

    Raises:
        CaptureError: If it is not a video, or is damaged before its first frame.
    """
    import av
    from av.error import FFmpegError

    index = 0
    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise CaptureError(f"{video} holds no pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            duration = container.duration / 1e6 if container.duration else 0.0
            for frame in container.decode(stream):
                yield index, frame, duration
                index += 1
    except FFmpegError as error:
        if index == 0:  # a film that ends early is used up to there
            raise CaptureError(f"the video {video} cannot be read: {error.strerror}") from error


def _quarters(frame: Any) -> int:
    """Returns by how many quarter turns a frame must be turned anticlockwise to be upright. Phones film turned."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _small(frame: Any) -> np.ndarray:
    """Returns a reduced grey frame (H, W). It lies as it is stored: motion and sharpness do not depend on that."""
    ratio = min(SMALL / max(frame.width, frame.height), 1.0)
    width, height = (max(2 * round(ratio * side / 2), 2) for side in (frame.width, frame.height))
    return frame.to_ndarray(format="gray", width=width, height=height, interpolation="AREA")
