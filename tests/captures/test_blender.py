"""The reader of blender's scenes, whose splits are files of their own."""

import json

import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import load
from tests.conftest import write_blender


def write_val(folder):
    """A third file: the validation photos, in a folder that is not there."""
    meta = json.loads((folder / "transforms_test.json").read_text())
    for frame in meta["frames"]:
        frame["file_path"] = frame["file_path"].replace("images", "val")
    (folder / "transforms_val.json").write_text(json.dumps(meta))


def names(capture):
    return {split: [path.stem for path in paths] for split, paths in capture.splits.items()}


def test_a_validation_folder_that_is_not_shipped_is_replaced_by_the_test_photos(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    write_val(tmp_path)
    capture = load(tmp_path)
    assert names(capture) == {"train": ["000", "001", "002", "003"], "val": ["004", "005"], "test": ["004", "005"]}
    assert len(capture.dropped) == 2
    assert capture.notes == ("No photo of the val split exists: the test split stands in for it.",)


def test_an_empty_list_of_a_split_counts_as_an_emptied_one(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    (tmp_path / "transforms_val.json").write_text('{"camera_angle_x": 0.7, "frames": []}')
    assert names(load(tmp_path))["val"] == ["004", "005"]


def test_validation_photos_that_are_listed_as_test_photos_too_are_used_once(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    (tmp_path / "transforms_val.json").write_bytes((tmp_path / "transforms_test.json").read_bytes())
    capture = load(tmp_path)
    assert len(capture.photos) == 6
    assert names(capture)["val"] == names(capture)["test"] == ["004", "005"]


@pytest.mark.parametrize("absent", ["train", "test"])
def test_one_file_alone_has_no_splits(tmp_path, absent):
    write_blender(tmp_path, train=4, test=2)
    (tmp_path / f"transforms_{absent}.json").unlink()
    capture = load(tmp_path)
    assert (capture.kind, capture.splits) == ("blender", {})
    assert len(capture.photos) == {"train": 2, "test": 4}[absent]


def test_one_of_the_files_means_the_whole_scene(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    capture = load(tmp_path / "transforms_train.json")
    assert capture.kind == "blender"
    assert len(capture.photos) == 6


def test_training_photos_that_are_not_there_are_refused(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    for i in range(4):
        (tmp_path / "images" / f"00{i}.png").unlink()
    with pytest.raises(CaptureError, match=r"none of the 4 photos of the train split of .* exists.\n.*download"):
        load(tmp_path)


def test_a_damaged_file_of_a_split_is_named(tmp_path):
    write_blender(tmp_path)
    (tmp_path / "transforms_val.json").write_text("{")
    with pytest.raises(CaptureError, match=r"transforms_val.json is not valid JSON"):
        load(tmp_path)
