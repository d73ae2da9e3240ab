"""`staf doctor`: tries each component of an installation, and says how to install what is missing.

It needs no extra: without rich it prints plain lines.
"""

from __future__ import annotations

import functools
import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

import staf_nerf
from staf_nerf.errors import EXTRAS, explain, unusable
from staf_nerf.kernels import accuracy, library, triton_is_here
from staf_nerf.kernels.linear import convolve, prefers_convolution, this_processor
from staf_nerf.machine.memory import memory_available

State = Literal["good", "absent", "broken"]
COLOURS: dict[State, str] = {"good": "green", "absent": "yellow", "broken": "red"}
ROOM = 2 * 10**9
"""Bytes of free memory, and of free disk space, that suffice for a training of the demo's size."""


@dataclass(frozen=True)
class Finding:
    """State of one component, with details and the remedy."""

    state: State
    """"good". "absent": missing, and not strictly needed. "broken": present, but it does not work."""
    text: str


def main() -> None:
    """Prints the findings, without warnings that libraries give about each other. Exit code 1: something is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = check_machine()
    if broken:
        sys.exit(1)


def check_machine() -> int:
    """Prints a line for each component, and returns the number of broken ones."""
    findings = {name: _find(check) for name, check in CHECKS.items()}
    if find_spec("rich") is not None:
        _print_table(findings)
    else:
        for name, finding in findings.items():
            print(f"{name}: {finding.state}; {finding.text}")
    missing = [name for name in ("rich", "tyro") if find_spec(name) is None]
    if missing:
        print(f'The commands need {" and ".join(missing)}. To get them: pip install "staf-nerf[signals]"')
    return sum(finding.state == "broken" for finding in findings.values())


def _print_table(findings: dict[str, Finding]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("component", "state", Column("details", overflow="fold"))
    for name, finding in findings.items():
        table.add_row(name, f"[{COLOURS[finding.state]}]{finding.state}", finding.text)
    Console().print(table)


def _find(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        return Finding("broken", explain(error) or f"{type(error).__name__}: {error}")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# --- the machine and the core ----------------------------------------------------------------------------------------


def _package() -> Finding:
    where = Path(staf_nerf.__file__).parent
    text = f"{staf_nerf.__version__} in {where}, Python {platform.python_version()}, {platform.platform()}"
    return Finding("good", text)


def _torch() -> Finding:
    return Finding("good", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _device() -> Finding:
    if torch.cuda.is_available():
        return Finding("good", f"cuda: {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return Finding("good", "mps")
    return Finding("good", "cpu; there is no CUDA device")


def _kernels() -> Finding:
    if (reason := library.why_absent()) is not None:
        return Finding("broken" if library.is_broken() else "absent", reason)
    text = f"native, {library.LEVELS[library.level()]}, {torch.get_num_threads()} threads"
    errors = accuracy.largest_errors()
    wrong = []
    for instructions, by_family in errors.items():
        large = [f"{family} {error:.0f}" for family, error in by_family.items() if error > accuracy.BOUND]
        wrong += [f"errors with {instructions}, in roundings: {', '.join(large)}"] if large else []
    if wrong:
        remedy = (
            "The library was compiled with flags that change the arithmetic, or by a compiler that errs. Install "
            "staf_nerf again without CFLAGS, with --force-reinstall --no-deps."
        )
        return Finding("broken", "\n".join([text, *wrong, remedy]))
    shown = ", ".join(f"{family} {error:.0f}" for family, error in errors[library.LEVELS[library.level()]].items())
    return Finding("good", f"{text}; largest errors in roundings: {shown}")


def _compiler() -> Finding:
    found = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if found is None:
        return Finding("absent", "no C compiler (gcc or clang); an installation from source needs one for the kernels")
    return _program(found, "-x", "c", "-fsyntax-only", os.devnull)


def _program(path: str, *arguments: str) -> Finding:
    """Runs a program, which must succeed."""
    result = subprocess.run([path, *arguments], capture_output=True, timeout=60, check=False)
    if result.returncode == 0:
        return Finding("good", path)
    lines = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()
    return Finding("broken", f"{path} ends with {result.returncode}: {lines[-1] if lines else 'it prints nothing'}")


def _cuda_kernels() -> Finding:
    if not torch.cuda.is_available():
        return Finding("absent", "no CUDA device")
    if triton_is_here():
        return Finding("good", f"Triton {_installed('triton')}")
    return Finding("absent", "plain torch; Triton and a C compiler would make it faster")


def _linear() -> Finding:
    rows, width, processor = 4096, 256, this_processor()
    is_convolution = prefers_convolution(rows, width, width, outer=False, processor=processor)
    way = "1 x 1 convolutions" if is_convolution else "torch's own"
    x, weight = torch.ones(rows, width), torch.ones(width, width)
    best = [min([_seconds(way, x, weight) for _ in range(6)][1:]) for way in (convolve, functional.linear)]
    relative = best[0] / best[1]
    return Finding("good", f"{way}: as convolutions they take {relative:.2f} of the time (4096 x 256 times 256 x 256)")


def _seconds(function: Callable[..., object], *inputs: object) -> float:
    """Returns how long a call takes."""
    start = time.perf_counter()
    function(*inputs)
    return time.perf_counter() - start


def _hash_grids() -> Finding:
    from staf_nerf.encodings import choose_implementation

    own = choose_implementation("auto") == "torch"
    return Finding("good", "those of staf_nerf" if own else "tiny-cuda-nn")


def _memory() -> Finding:
    free = memory_available()
    if free is None:
        return Finding("absent", "this system does not report how much memory is free")
    text = f"{free / 1e9:.1f} GB free"
    return Finding("good", text) if free > ROOM else Finding("broken", f"{text}: close other programs")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    return Finding("good", text) if free > ROOM else Finding("broken", f"{text}: results may not fit")


# --- what the extras bring -------------------------------------------------------------------------------------------


def _module(name: str, distribution: str, attempt: Callable[[], str] | None = None) -> Finding:
    """Checks that a module can be imported, and that the parts used by this package work."""
    installed = _installed(distribution)
    problem = unusable(name)
    if problem is not None:
        return Finding("absent" if installed is None else "broken", problem)
    said = attempt() if attempt is not None else ""
    return Finding("good", f"{installed or 'installed'}{said and f'; {said}'}")


def _try_open3d() -> str:
    import numpy as np
    import open3d

    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 16, dtype=np.float32)] * 3, indexing="ij"))
    tensor: Any = open3d.core.Tensor
    volume = tensor(np.linalg.norm(grid, axis=0) - np.float32(0.5))
    mesh = open3d.t.geometry.TriangleMesh.create_isosurfaces(volume, [0.0])
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh)
    return f"extracted a sphere of {len(mesh.triangle.indices)} triangles"


def _try_film() -> str:
    import imageio.v3 as imageio
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        frames = np.zeros((2, 32, 32, 3), np.uint8)
        imageio.imwrite(Path(folder) / "film.mp4", frames, plugin="pyav", codec="libx264", fps=2)
    return "wrote a film"


def _try_plugin() -> str:
    methods = importlib.import_module("staf_nerf.plugin.methods")
    importlib.import_module("nerfstudio.engine.trainer")
    names = sorted(spec.config.method_name for spec in vars(methods).values() if hasattr(spec, "config"))
    registered = {point.name for point in entry_points(group="nerfstudio.method_configs")}
    if not registered.issuperset(names):
        raise RuntimeError("nerfstudio does not know our methods; install staf-nerf again")
    return f"methods: {', '.join(names)}"


def _try_sound() -> str:
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__}"


def _colmap() -> Finding:
    """Tries pycolmap in a process of its own, as `staf capture` uses it. The program COLMAP is not needed."""
    if (bindings := _installed("pycolmap")) is None:
        remedy = f'pip install "staf-nerf[{EXTRAS["pycolmap"]}]"'
        return Finding("absent", f"pycolmap, by which staf capture finds the poses of photos: {remedy}")
    found = _program(sys.executable, "-c", "import pycolmap; pycolmap.incremental_mapping")
    return Finding("good", f"pycolmap {bindings}, for staf capture") if found.state == "good" else found


def _ffmpeg() -> Finding:
    if (binary := shutil.which("ffmpeg")) is not None:
        return _program(binary, "-version")
    return Finding("absent", "needed by ns-render: sudo apt install ffmpeg")


def _display() -> Finding:
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    has_windows = sys.platform in ("darwin", "win32")
    if shown or has_windows:
        return Finding("good", shown or "windows of the system")
    return Finding("absent", "not needed: the viewer is a web page, and the browser may run on another machine")


def _tiny_cuda_nn() -> Finding:
    if find_spec("tinycudann") is None:
        return Finding("absent", "not needed: the hash grids of staf_nerf are used")
    return _module("tinycudann", "tinycudann")


def _lpips() -> Finding:
    if (problem := unusable("torchvision")) is not None:
        return Finding("absent", problem)
    from staf_nerf.metrics.perceptual import load_lpips, weights_file

    if load_lpips() is not None:
        return Finding("good", "LPIPS is reported")
    return Finding("absent", f"reports do not include LPIPS; its weights file belongs at {weights_file()}")


def _extra(*names: str) -> Callable[[], Finding]:
    """Returns a check that modules can be imported."""

    def check() -> Finding:
        found = {name: unusable(name) for name in names}
        problems = [problem for problem in found.values() if problem is not None]
        if not problems:
            return Finding("good", ", ".join(names))
        is_absent = all("is not installed" in problem for problem in problems)
        return Finding("absent" if is_absent else "broken", "\n".join(problems))

    return check


def _of(extra: str, *, but: str) -> list[str]:
    return sorted(name for name, brings in EXTRAS.items() if brings == extra and name != but)


def _checks() -> Iterator[tuple[str, Callable[[], Finding]]]:
    yield from (("staf_nerf", _package), ("torch", _torch), ("device", _device), ("kernels on the CPU", _kernels))
    yield from (("C compiler", _compiler), ("kernels on CUDA", _cuda_kernels), ("linear layers", _linear))
    yield from (("hash grids", _hash_grids), ("memory", _memory), ("disk", _disk))
    yield (
        "images",
        _extra(*sorted(name for name, extra in EXTRAS.items() if extra == "signals" and name != "soundfile")),
    )
    yield "sounds", functools.partial(_module, "soundfile", "soundfile", _try_sound)
    yield "Open3D", functools.partial(_module, "open3d", "open3d", _try_open3d)
    yield "meshes", _extra(*_of("mesh", but="open3d"))
    yield "nerfstudio", functools.partial(_module, "nerfstudio", "nerfstudio", _try_plugin)
    yield "films (PyAV)", functools.partial(_module, "av", "av", _try_film)
    yield from (("ffmpeg", _ffmpeg), ("COLMAP", _colmap), ("display", _display), ("tiny-cuda-nn", _tiny_cuda_nn))
    yield "LPIPS weights", _lpips
    yield "ONNX", _extra("onnx")


CHECKS = dict(_checks())
