"""`staf check` says what a capture holds, and writes pictures of it."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from staf_nerf.captures.capture import CaptureError
from staf_nerf.jobs.check import Check, check_capture
from tests.conftest import pose, write_blender, write_capture


def check(data, output, **options):
    console = Console(record=True, width=100, file=io.StringIO())
    found = check_capture(Check(data, output, **{"cost": False, **options}), console)
    return found, console.export_text()


def test_the_check_of_a_capture_counts_what_it_holds(tmp_path):
    write_blender(tmp_path / "scene", train=5, test=2)
    (tmp_path / "scene" / "images" / "001.png").unlink()
    found, text = check(tmp_path / "scene", tmp_path / "out")
    assert found["format"] == "blender"
    assert (found["photos"], found["transparent"], found["masks"], found["sparse_points"]) == (6, 6, 0, 0)
    assert found["sizes"] == [[24, 16, 6]]
    assert found["splits"] == {"train": 4, "val": 2, "test": 2}
    assert [Path(path).stem for path in found["missing"]] == ["001"]
    assert found["region"]["cameras"] == "around"
    assert f"ns-train staf-nerf --data {tmp_path / 'scene'}" in text.replace("\n", "")
    assert json.loads((tmp_path / "out" / "check.json").read_text())["photos"] == 6
    with Image.open(tmp_path / "out" / "cameras.png") as picture:
        assert min(picture.size) > 300
    assert "001.png" not in (tmp_path / "out" / "cameras.html").read_text()


def test_the_cost_is_measured_by_training(tmp_path):
    write_capture(tmp_path / "scene", count=6, size=(32, 32))
    found, text = check(tmp_path / "scene", tmp_path / "out", cost=True)
    cost = found["training"]
    assert cost["steps"] == 3800  # of the method's preset
    assert 0 < cost["seconds_per_step"] < 60
    assert "about" in text
    assert not (tmp_path / "scene" / "outputs").exists()


def test_cameras_in_one_place_are_said_to_give_no_depth(tmp_path):
    meta = write_capture(tmp_path / "scene", count=6)
    for i, frame in enumerate(meta["frames"]):
        turned = pose(i)
        for row in turned[:3]:
            row[3] = 1.5
        frame["transform_matrix"] = turned
    (tmp_path / "scene" / "transforms.json").write_text(json.dumps(meta))
    _, text = check(tmp_path / "scene", tmp_path / "out")
    assert "depth cannot be found" in " ".join(text.split())


def test_a_folder_without_a_capture_leaves_no_output(tmp_path):
    with pytest.raises(CaptureError):
        check(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_are_read_and_the_part_of_the_pixels_that_count_is_said(tmp_path):
    write_capture(tmp_path / "scene", count=4)
    (tmp_path / "scene" / "masks").mkdir()
    for i in range(3):
        Image.new("L", (24, 16), 255 if i == 0 else 0).save(tmp_path / "scene" / "masks" / f"{i:03d}.png")
    found, text = check(tmp_path / "scene", tmp_path / "out")
    assert found["masks"] == 3
    assert found["pixels_used"] == pytest.approx(1 / 3)
    assert "3 of 4 photos; 33 % of their pixels count" in text
    Image.new("L", (16, 24), 255).save(tmp_path / "scene" / "masks" / "001.png")
    with pytest.raises(CaptureError, match=r"001\.png has size 16x24"):
        check(tmp_path / "scene", tmp_path / "out")
