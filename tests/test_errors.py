"""Errors that a user can mend: what they say, and that faults of ours are not hidden."""

import os
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image

from staf_nerf.errors import EXTRAS, explain, unusable
from tests.conftest import ROOT
from tests.plugin.conftest import command

MODULE = "raise ImportError('{}: cannot open shared object file: No such file or directory')"


def test_a_missing_module_names_the_extra_that_brings_it():
    error = ModuleNotFoundError("No module named 'xatlas.sub'", name="xatlas.sub")
    assert explain(error) == 'xatlas is not installed. To get it: pip install "staf-nerf[mesh]"'


@pytest.mark.parametrize("kind", [ImportError, OSError])
def test_a_missing_system_library_is_named_with_its_package(kind):
    message = explain(kind("libGL.so.1: cannot open shared object file: No such file or directory"))
    assert message == "the system library libGL.so.1 is missing. On Debian or Ubuntu: sudo apt install libgl1"


def test_an_unknown_system_library_is_named_too():
    message = explain(ImportError("libodd-2.so.7: cannot open shared object file: No such file or directory"))
    assert message is not None
    assert message.count("libodd-2.so.7") == 2


def test_a_fault_of_ours_is_not_explained_away():
    for fault in (TypeError("x"), AttributeError("x"), ModuleNotFoundError("x", name="staf_nerf.nothing"), KeyError(1)):
        assert explain(fault) is None


def test_each_extra_of_the_table_is_in_pyproject():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)


def test_unusable_tells_why_a_module_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / "odd_module.py").write_text(MODULE.format("libEGL.so.1"))
    monkeypatch.syspath_prepend(tmp_path)
    assert "libegl1" in (unusable("odd_module") or "")
    assert unusable("json") is None


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_the_command_ends_with_a_line_and_with_staf_debug_with_a_traceback(tmp_path):
    (tmp_path / "open3d.py").write_text(MODULE.format("libGL.so.1"))
    (tmp_path / "box.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    code = f"""
import sys
sys.argv = ["staf", "fit", "shape", {str(tmp_path / "box.obj")!r}, "--steps", "5", "--output", {str(tmp_path / "o")!r}]
from staf_nerf.__main__ import main
main()
"""
    result = run(code, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "staf: the system library libGL.so.1 is missing. On Debian or Ubuntu: sudo apt" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in run(code, PYTHONPATH=str(tmp_path), STAF_DEBUG="1").stderr


@pytest.mark.parametrize("write", ["nothing", "colmap"])
def test_ns_train_ends_with_a_line_for_a_capture_that_cannot_be_used(tmp_path, write):
    folder = tmp_path / "capture"
    folder.mkdir()
    if write == "colmap":  # its images lie elsewhere
        (folder / "images").mkdir()
        (folder / "cameras.txt").write_text("1 PINHOLE 20 10 15 15 10 5\n")
        (folder / "images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 1 0 0 1 b.png\n\n")
        (folder / "points3D.txt").write_text("")
    result = command("ns-train", "staf-nerf", "--data", folder, "--vis", "tensorboard", cwd=tmp_path, check=False)
    assert result.returncode != 0
    lines = [line for line in result.stdout.splitlines() if line.startswith("staf-nerf: ")]
    assert len(lines) == 1, result.stdout
    assert re.search("contains no capture|exists", lines[0])
    assert "Traceback" not in result.stdout
    assert "StafTrainerConfig(" not in result.stdout  # nerfstudio's dump of the configuration
    assert len(result.stdout.splitlines()) < 30


def test_a_package_that_is_there_and_broken_is_named_and_not_a_bug_of_ours(tmp_path, monkeypatch):
    (tmp_path / "xatlas.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xatlas", raising=False)
    message = unusable("xatlas") or ""
    assert message.startswith("xatlas is installed, but cannot be imported: numpy.core.multiarray failed to import")
    assert "pip install --force-reinstall xatlas" in message
    assert len(message.splitlines()) <= 3


def test_an_import_that_our_own_code_gets_wrong_is_a_bug():
    with pytest.raises(ImportError) as caught:
        from staf_nerf.errors import nothing_of_that_name  # noqa: F401
    assert explain(caught.value) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "image", "a.png", "--minutes", "0"), "minutes must be positive, got 0.0"),
        (("fit", "shape", "a.ply", "--steps", "-3"), "steps must be positive, got -3"),
        (("fit", "audio", "a.wav", "--hidden-layers", "-1"), "hidden_layers must be >= 0, got -1"),
        (("fit", "image"), "at least one file is needed"),
        (("mesh", "run", "--resolution", "0"), "resolution must be >= 1, got 0"),
        (("eval", "run", "--views", "0"), "views must be >= 1, got 0"),
        (
            ("fit", "image", "a.png", "--activation", "relu", "--bandwidth=0.2"),
            "bandwidth has no effect with the activation 'relu', which has no frequency to scale, got 0.2",
        ),
        (
            ("fit", "video", "a.mp4", "--encoding", "hash", "--bandwidth", "0.2"),
            "bandwidth has no effect with the encoding 'hash', which has no frequency to scale, got 0.2",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(arguments, message, monkeypatch, capsys):
    from staf_nerf.__main__ import main

    monkeypatch.setattr(sys, "argv", ["staf", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == f"staf: {message}"
    assert capsys.readouterr() == ("", "")


def test_an_argument_that_cannot_be_read_is_shown_with_its_help(monkeypatch, capsys):
    from staf_nerf.__main__ import main

    monkeypatch.setattr(sys, "argv", ["staf", "fit", "image", "a.png", "--steps", "many"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "'many'" in said
    assert "Number of training steps" in said


@pytest.mark.parametrize("arguments", [("--activation", "relu"), ("--activation", "relu", "--bandwidth", "0")])
def test_a_preset_s_bandwidth_does_not_keep_an_activation_from_being_chosen(arguments, monkeypatch):
    from staf_nerf.__main__ import main

    monkeypatch.setattr(sys, "argv", ["staf", "fit", "denoise", "nothing.png", *arguments])
    with pytest.raises(SystemExit, match=r"no file nothing.png"):
        main()


@pytest.mark.parametrize("end", ["| head -c 1 > /dev/null", "> /dev/full"])
def test_a_fit_is_written_whole_when_nobody_can_read_what_it_prints(tmp_path, end):
    if end.endswith("full") and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    Image.effect_noise((24, 16), 50).convert("RGB").save(tmp_path / "a.png")
    line = f"{sys.executable} -m staf_nerf fit image a.png --steps 5 --output o"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} {end}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    made = {path.name for path in (tmp_path / "o").iterdir()}
    assert made >= {"field.safetensors", "metrics.json", "report.html", "image.png"}, result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == (1 if end.endswith("full") else 0)


def test_a_name_that_the_terminal_cannot_show_does_not_end_a_fit(tmp_path):
    Image.effect_noise((24, 16), 50).convert("RGB").save(tmp_path / "\u00fc.png")
    line = [sys.executable, "-m", "staf_nerf", "fit", "image", "\u00fc.png", "--steps", "5", "--output", "o"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "o" / "metrics.json").is_file()


@pytest.mark.parametrize("imported", ["torch.version", "staf_nerf.cli"])
def test_ctrl_c_during_the_imports_ends_the_command_in_one_line(imported, tmp_path):
    """The first is one of the many modules of torch, which is imported with the package; the second is the last."""
    code = "import sys; sys.argv = ['staf', 'fit', '--help']; from staf_nerf.__main__ import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(line.split()[-1] == imported for line in process.stderr), "it is not imported any more"
    process.send_signal(signal.SIGINT)
    said = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
    assert said == ["Interrupted"]
    assert process.wait() == 130
