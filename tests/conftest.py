"""What tests share: where the real data lies, one thread setting, and a small capture that is made on the spot."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from staf_nerf.kernels import library

ROOT = Path(__file__).resolve().parent.parent


DATA = {
    "chair_200": "the scene chair of NeRF's synthetic data set, at 200 x 200",
    "fox": "instant-ngp's data/nerf/fox",
    "meshes": "spot.obj by Keenan Crane",
}
"""Real data that is not in the repository, and where it comes from."""
ABSENT = "needs the data "


def data(name: str) -> Path:
    """A folder of real data in the folder that STAF_DATA names, or a skip."""
    folder = Path(os.environ.get("STAF_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.exists():
        pytest.skip(f"{ABSENT}{name} ({DATA[name]})")
    return folder


def pytest_terminal_summary(terminalreporter) -> None:
    """Names what was skipped for want of data, and how often something else was missing."""
    tests: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "no reason"
        tests.setdefault(reason, []).append(report.nodeid.rpartition("::")[2])
    for reason, names in sorted(tests.items()):
        if reason.startswith(ABSENT):
            terminalreporter.write_line(f"skipped: {', '.join(names)}: {reason}; STAF_DATA names its folder")
        else:
            terminalreporter.write_line(f"skipped: {len(names)} of {reason!r}")


TRACES_NESTED_VJPS = torch.__version__ >= (2, 13)
"""Whether torch can trace a backward that calls `torch.func.vjp` inside of itself, as our derivatives do that are
beyond those in C. Earlier versions raise errors of their own; the values without tracing are right there too."""


def opcheck(operator: Any, inputs: tuple[Any, ...], *, nests_vjps: bool = False) -> None:
    """torch's checks of an operator, without the one that traces its backward where torch cannot do that."""
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if TRACES_NESTED_VJPS or not nests_vjps:
        checks.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(operator, inputs, test_utils=checks)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Reduced images go to a temporary folder, not to the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def pose(angle: float, distance: float = 3.0) -> list[list[float]]:
    """A camera on a circle, looking at the origin (OpenGL axes, z up)."""
    position = distance * np.array([math.cos(angle), math.sin(angle), 0.4])
    backward = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    up = np.cross(backward, right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, up, backward, position], 1)
    return matrix.tolist()


def write_capture(folder: Path, *, count: int = 6, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> dict:
    """A capture in nerfstudio's format: `count` random images of `size` (width, height). Returns the listing."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    frames = []
    for i in range(count):
        channels = {"RGB": 3, "RGBA": 4}[mode]
        pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:03d}.png")
        frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": pose(2 * math.pi * i / count)})
    meta = {"fl_x": 20.0, "fl_y": 21.0, "cx": 12.5, "cy": 8.0, "w": size[0], "h": size[1], "k1": 0.01, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(meta))
    return meta


def write_blender(folder: Path, *, train: int = 8, test: int = 4) -> None:
    """A synthetic capture in blender's format: transparent images on a circle, in two splits, named without suffix."""
    frames = write_capture(folder, count=train + test, mode="RGBA")["frames"]
    (folder / "transforms.json").unlink()
    for split, part in (("train", frames[:train]), ("test", frames[train:])):
        named = [{**frame, "file_path": "./" + frame["file_path"].removesuffix(".png")} for frame in part]
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": named}))


@pytest.fixture(params=["the best", 1, 0])
def instructions(request, monkeypatch) -> None:
    """The native kernels for each set of instructions that this processor has."""
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    if request.param != "the best":
        if request.param > library.level():
            pytest.skip("this processor lacks these instructions")
        monkeypatch.setattr(library, "level", lambda: request.param)
