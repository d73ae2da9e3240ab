"""What an installation holds, beside the code."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT
from tests.plugin.conftest import command


def build(source, folder, **environment) -> list[str]:
    """Builds a wheel of `source` in `folder`; the names of the files in it."""
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, **environment})
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_presets_and_scene_and_every_module(tmp_path):
    names = set(build(ROOT, tmp_path))
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "staf_nerf").rglob("*.py")}
    presets = {f"staf_nerf/{path.relative_to(ROOT)}" for path in (ROOT / "method_configs").glob("*.toml")}
    images = {f"staf_nerf/{path.relative_to(ROOT)}" for path in (ROOT / "scenes").rglob("*.png")}
    assert len(images) == 90 + 20
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "staf_nerf/export/templates").glob("*.[jgh]*")}
    assert len(templates) == 11
    assert modules | presets | images | templates <= names
    assert {"staf_nerf/scenes/tin_robot/transforms.json", "staf_nerf/scenes/tin_robot/tin_robot.ply"} <= names
    assert not any(name.startswith("tests") for name in names)


def test_doctor_names_the_device_the_kernels_and_the_methods(tmp_path):
    import torch

    from staf_nerf.kernels import library

    printed = command("staf", "doctor", cwd=tmp_path).stdout
    assert torch.__version__ in printed
    assert "staf-nerf-mlp" in printed
    assert ("native" in printed) == (library.library() is not None)
    assert re.search(r"linear layers\W+(torch's own|1 x 1 convolutions): as convolutions they take \d+\.\d\d", printed)


def test_it_installs_without_a_compiler_and_with_one_holds_the_kernels(tmp_path):
    for compiler, count in ((shutil.which("cc") or shutil.which("gcc"), 1), ("/bin/false", 0)):
        if compiler is None:
            pytest.skip("there is no C compiler here")
        source, folder = tmp_path / f"source{count}", tmp_path / f"wheel{count}"
        shutil.copytree(ROOT / "staf_nerf", source / "staf_nerf", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for name in ("method_configs", "scenes"):
            shutil.copytree(ROOT / name, source / name)
        names = build(source, folder, CC=compiler)
        assert len([name for name in names if name.startswith("staf_nerf/kernels/_native")]) == count


def test_the_scene_is_small_enough_to_ship():
    size = sum(path.stat().st_size for path in (ROOT / "scenes").rglob("*") if path.is_file())
    assert size < 12 * 2**20
