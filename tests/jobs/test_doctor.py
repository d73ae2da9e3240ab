"""`staf doctor` tries what it reports on."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from staf_nerf.errors import EXTRAS
from staf_nerf.jobs import doctor
from staf_nerf.kernels import accuracy, library, native
from tests.conftest import ROOT
from tests.plugin.conftest import command


def test_an_import_that_fails_is_broken_and_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "odd_extra.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file: none')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_installed", lambda name: "1.0")
    finding = doctor._module("odd_extra", "odd-extra")
    assert finding.state == "broken"
    assert "sudo apt install libgl1" in finding.text


def test_what_is_not_installed_is_absent_and_not_broken(monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    finding = doctor._module("xatlas", "xatlas")
    assert finding.state == "absent"


def test_what_imports_and_then_fails_is_broken():
    def attempt() -> str:
        raise RuntimeError("it does not work")

    finding = doctor._find(lambda: doctor._module("json", "safetensors", attempt))
    assert (finding.state, finding.text) == ("broken", "it does not work")


def test_kernels_whose_arithmetic_is_off_are_broken(monkeypatch):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    finding = doctor._kernels()
    assert finding.state == "good"
    assert all(family in finding.text for family in accuracy.FAMILIES)
    right = native.pointwise
    monkeypatch.setattr(native, "pointwise", lambda *inputs: right(*inputs) * (1.0 + 1e-5))
    finding = doctor._kernels()
    assert finding.state == "broken"
    for level in range(library.level() + 1):
        assert f"errors with {library.LEVELS[level]}, in roundings: pointwise" in finding.text
    assert "rays" not in finding.text
    assert "Install staf_nerf again" in finding.text


def test_this_installation_has_nothing_broken(tmp_path):
    printed = command("staf", "doctor", cwd=tmp_path).stdout
    for name in ("Open3D", "COLMAP", "ffmpeg", "display", "C compiler", "memory", "disk", "LPIPS", "tiny-cuda-nn"):
        assert name in printed
    assert "staf-nerf-mlp" in printed


def test_it_runs_with_the_core_alone_and_says_which_extra_the_commands_need(tmp_path):
    """A module that is None in sys.modules is one that is not installed."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({list(EXTRAS)}))
sys.argv = ["staf", "doctor"]
from staf_nerf.__main__ import main
main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code]
    result = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()
    assert "Traceback" not in result.stderr
    assert f"torch: good; {torch.__version__}, " in result.stdout
    assert 'images: absent; PIL is not installed. To get it: pip install "staf-nerf[signals]"' in lines
    assert lines[-1] == 'The commands need rich and tyro. To get them: pip install "staf-nerf[signals]"'


def test_a_checkout_that_hides_the_installed_package_is_told(tmp_path):
    """Python started in a clone finds the clone's package, whose library was never built."""
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copy(ROOT / "pyproject.toml", clone)
    shutil.copytree(ROOT / "staf_nerf", clone / "staf_nerf", ignore=shutil.ignore_patterns("*.so", "results"))
    installed = tmp_path / "installed"
    (installed / "staf_nerf/kernels").mkdir(parents=True)
    (installed / "staf_nerf/kernels/_native.abi3.so").touch()
    record = installed / "staf_nerf-9.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: staf-nerf\nVersion: 9\n")
    (record / "RECORD").write_text("staf_nerf/kernels/_native.abi3.so,,\n")
    code = "import torch; from staf_nerf import STAF; STAF(8)(torch.zeros(2, 8))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"Python imports staf_nerf from {clone}" in result.stderr
    assert "pip install -e ." in result.stderr


def test_a_library_that_is_damaged_is_broken(tmp_path):
    shutil.copytree(ROOT / "staf_nerf", tmp_path / "staf_nerf", ignore=shutil.ignore_patterns("*.so", "results"))
    (tmp_path / "staf_nerf/kernels/_native.abi3.so").write_text("junk")
    code = "from staf_nerf.jobs import doctor; print(doctor._kernels())"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "state='broken'" in result.stdout
    assert "_native.abi3.so cannot be loaded" in result.stdout


def test_a_program_that_does_not_run_is_broken(tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho error while loading shared libraries >&2\nexit 127\n")
    program.chmod(0o755)
    finding = doctor._program(str(program), "-version")
    assert finding.state == "broken"
    assert finding.text.endswith("ends with 127: error while loading shared libraries")
