"""Runs structure from motion in a process of its own, and follows its progress.

pycolmap brings its own zlib. In one process with Pillow, writing a PNG after importing pycolmap 4.2.1 crashed. A
process of its own can also be ended at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import staf_nerf
from staf_nerf.captures.capture import CaptureError
from staf_nerf.machine.memory import memory_available
from staf_nerf.sfm.pairs import Matching

JOB, ARRAYS, RESULT, LOG = "job.json", "model.npz", "result.json", "log.txt"
"""Files in the work folder: what to do, what was found in numbers and in text, what pycolmap said."""
A_THREAD = 6e8
"""Bytes of memory that a thread needs to find features in a photo of 1600 pixels."""


@dataclass(frozen=True)
class JobImage:
    """An image to register."""

    name: str
    camera: int
    """Index of its camera."""
    masked: bool = False
    """Whether the folder of masks has one of this image."""


@dataclass(frozen=True)
class JobCamera:
    """A camera that took some of the images."""

    width: int
    height: int
    focal: float | None = None
    """Focal length in pixels, where EXIF gives it."""


@dataclass(frozen=True)
class Job:
    """What is to be reconstructed. The images lie in `images`, the masks in `masks` of the work folder."""

    images: tuple[JobImage, ...]
    cameras: tuple[JobCamera, ...]
    is_video: bool = False
    """Whether the images are in the order in which they were taken."""
    matching: Matching = "auto"
    image_size: int = 1600
    """Longest side, in pixels, at which features are found."""
    features: int = 3000
    """The most features of an image."""
    seed: int = 0

    @classmethod
    def read(cls, work: Path) -> Job:
        """Reads the job that lies in a work folder."""
        told = json.loads((work / JOB).read_text(encoding="utf-8"))
        images = tuple(JobImage(**image) for image in told.pop("images"))
        return cls(images, tuple(JobCamera(**camera) for camera in told.pop("cameras")), **told)


@dataclass(frozen=True, eq=False)
class Model:
    """Cameras and points that were found. The world is COLMAP's: its axes and its scale mean nothing."""

    names: tuple[str, ...]
    """Images that have a pose, sorted."""
    poses: np.ndarray
    """Camera-to-world (K, 4, 4) with OpenGL axes."""
    camera_of: tuple[int, ...]
    """Index of each image's camera."""
    cameras: tuple[Mapping[str, float], ...]
    """Intrinsics of all cameras by the names of `transforms.json`."""
    positions: np.ndarray
    """Points (P, 3)."""
    colors: np.ndarray
    """(P, 3) uint8."""
    errors: np.ndarray
    """Mean reprojection error of each point in pixels, (P,)."""
    observations: np.ndarray
    """Which image sees which point: (M, 2) indices of `names` and of `positions`."""
    pixels: np.ndarray
    """Where it sees it: (M, 2) float32, x and y from the image's corner."""


@dataclass(frozen=True)
class Diagnosis:
    """What was seen of every image of the job, in its order, to say why some have no pose."""

    features: tuple[int, ...]
    matches: tuple[int, ...]
    """The most matches, with consistent geometry, with any one other image."""
    partners: tuple[int, ...]
    """Number of other images with such matches."""
    group: tuple[int, ...]
    """Number of the model that it belongs to: 0 is the largest. -1: none."""
    attempts: tuple[str, ...]
    """The settings that were tried, with the number of images that got a pose."""
    notes: tuple[str, ...]


Report = Callable[[str, float, str], None]
"""Called with the name of a stage, the fraction done and a note."""


def reconstruct(job: Job, work: Path, report: Report) -> tuple[Model, Diagnosis]:
    """Finds the cameras of a job. What an interrupted call found in the same folder is used again.

    Raises:
        CaptureError: If no two images can be connected.
        ModuleNotFoundError: If pycolmap is not installed.
        RuntimeError: If the process crashed.
    """
    if find_spec("pycolmap") is None:
        raise ModuleNotFoundError("No module named 'pycolmap'", name="pycolmap")
    (work / JOB).write_text(json.dumps(asdict(job), indent=1), encoding="utf-8")
    for name in (ARRAYS, RESULT):
        (work / name).unlink(missing_ok=True)
    failure = ""
    with _child(work) as child:
        for line in _lines(child):
            if "error" in line:
                failure = line["error"]
            else:
                report(line["stage"], line["done"], line["note"])
    if failure:
        raise CaptureError(failure)
    if child.returncode != 0:
        tail = (work / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"pycolmap's process ended with {child.returncode}: {''.join(tail)}")
    return _read_result(work)


class _child:
    """Context of the process, which ends with it, whatever happens."""

    def __init__(self, work: Path) -> None:
        package = str(Path(staf_nerf.__file__).resolve().parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "STAF_SFM_THREADS": str(threads())}
        line = [sys.executable, "-P", "-m", "staf_nerf.sfm.reconstruction", str(work)]
        self.log = open(work / LOG, "w")  # noqa: SIM115
        # A session of its own: Ctrl-C reaches this process only, which then ends the other.
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, start_new_session=True
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self.process.kill()
        self.process.wait()
        self.log.close()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _lines(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        yield json.loads(line)


def threads() -> int:
    """Returns the number of threads that the cores, the user and the free memory allow."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    allowed = min(allowed, int(told)) if told.isdigit() and int(told) else allowed
    free = memory_available()
    return allowed if free is None else max(min(allowed, int(free / A_THREAD)), 1)


def _read_result(work: Path) -> tuple[Model, Diagnosis]:
    told = json.loads((work / RESULT).read_text(encoding="utf-8"))
    with np.load(work / ARRAYS, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    model = Model(tuple(told["names"]), camera_of=tuple(told["camera_of"]), cameras=tuple(told["cameras"]), **found)
    diagnosis = Diagnosis(**{name: tuple(values) for name, values in told["diagnosis"].items()})
    return model, diagnosis
