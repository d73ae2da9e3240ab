"""A small run of `staf-nerf` on the shipped scene, trained once by the real `ns-train` and shared by the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from staf_nerf.presets import resource

SCENE = resource("scenes") / "tin_robot"
STEPS = int(os.environ.get("STAF_TEST_STEPS", 150))


@dataclass(frozen=True)
class Run:
    """A trained run: its folder and what `ns-train` printed."""

    folder: Path
    printed: str

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"


def command(name: str, *arguments: object, cwd: Path, timeout: float = 600, check: bool = True):
    """Runs one of nerfstudio's commands, from this environment, with no variable set for it."""
    line = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    result = subprocess.run(
        line, cwd=cwd, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if check and result.returncode != 0:
        pytest.fail(f"{' '.join(line)} ended with {result.returncode}:\n{result.stdout[-4000:]}")
    return result


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """150 steps on the scene at 64x64, as a user would start them, from another folder."""
    folder = tmp_path_factory.mktemp("run")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp() / "cache")
    result = command(
        "ns-train", "staf-nerf", "--data", SCENE, "--vis", "tensorboard", "--max-num-iterations", STEPS,
        "--output-dir", "outputs", "--experiment-name", "robot", "--timestamp", "first",
        "staf-capture", "--downscale-factor", 4,
        cwd=folder,
    )  # fmt: skip
    return Run(folder / "outputs" / "robot" / "staf-nerf" / "first", result.stdout)
