"""The environment of a measurement, recorded so that it can be repeated."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from staf_nerf.kernels import library


def environment(*packages: str) -> dict[str, Any]:
    """Returns the command, versions of torch, staf-nerf and `packages`, the commit, the processor and the threads."""
    return {
        "command": " ".join(["staf", *sys.argv[1:]]),
        "versions": {name: version(name) for name in ("torch", *packages, "staf-nerf")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "kernels": library.LEVELS[library.level()] if library.library() is not None else "plain torch",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def settings(benchmark: Any) -> dict[str, Any]:
    """Returns a benchmark's options for JSON, without the paths of its data and results."""
    return {name: value for name, value in asdict(benchmark).items() if name not in ("data", "output", "picture")}


def cpu_model() -> str:
    """Returns the processor's name and the instruction set that torch uses on it."""
    name = platform.processor() or platform.machine()
    table = Path("/proc/cpuinfo")
    if table.is_file():
        entries = (line.partition(":") for line in table.read_text().splitlines())
        name = next((value.strip() for key, _, value in entries if key.strip() == "model name"), name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def commit() -> str | None:
    """Returns the commit of this checkout, with "+" if files were changed, or None outside of a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    except OSError:  # git is not installed
        return None
    return result.stdout.strip() or None
