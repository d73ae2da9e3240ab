"""What an installation holds, beside the code."""

import subprocess
import sys
import zipfile

from tests.conftest import ROOT


def test_the_wheel_holds_presets_and_scene_and_every_module(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "staf_nerf").rglob("*.py")}
    presets = {f"staf_nerf/{path.relative_to(ROOT)}" for path in (ROOT / "method_configs").glob("*.toml")}
    images = {f"staf_nerf/{path.relative_to(ROOT)}" for path in (ROOT / "scenes").rglob("*.png")}
    assert len(images) == 90 + 20
    assert modules | presets | images <= names
    assert {"staf_nerf/scenes/tin_robot/transforms.json", "staf_nerf/scenes/tin_robot/tin_robot.ply"} <= names
    assert not any(name.startswith("tests") for name in names)


def test_the_scene_is_small_enough_to_ship():
    size = sum(path.stat().st_size for path in (ROOT / "scenes").rglob("*") if path.is_file())
    assert size < 12 * 2**20
