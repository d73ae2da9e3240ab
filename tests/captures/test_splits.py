"""What the lists of a capture mean, and what stands in for what is absent."""

import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.splits import complete_splits


def splits(tmp_path, listed, *, present="abcdef", absent=""):
    """The names of the photos in each split, and the notes. Photos lie in images/."""
    files = {tmp_path / f"images/{name}.png": tmp_path / f"images/{name}.png" for name in present}
    missing = [tmp_path / f"images/{name}.png" for name in absent]
    paths = {split: [tmp_path / name for name in names] for split, names in listed.items()}
    found, notes = complete_splits(paths, files, missing, tmp_path / "transforms.json")
    return {split: "".join(path.stem for path in photos) for split, photos in found.items()}, notes


def named(names):
    return [f"images/{name}.png" for name in names]


def test_whole_lists_are_taken_as_they_are_without_a_note(tmp_path):
    listed = {"train": named("abc"), "val": named("d"), "test": named("ef")}
    assert splits(tmp_path, listed) == ({"train": "abc", "val": "d", "test": "ef"}, [])


@pytest.mark.parametrize("other", ["val", "test"])
def test_val_and_test_stand_in_for_each_other_where_one_is_not_listed(tmp_path, other):
    assert splits(tmp_path, {"train": named("abcd"), other: named("ef")}) == (
        {"train": "abcd", "val": "ef", "test": "ef"},
        [],
    )


@pytest.mark.parametrize(("emptied", "other"), [("val", "test"), ("test", "val")])
def test_an_emptied_split_is_stood_in_for_with_a_note(tmp_path, emptied, other):
    listed = {"train": named("abcd"), emptied: named("xy"), other: named("ef")}
    found, notes = splits(tmp_path, listed, absent="xy")
    assert found == {"train": "abcd", "val": "ef", "test": "ef"}
    assert notes == [f"No photo of the {emptied} split exists: the {other} split stands in for it."]


def test_a_partly_missing_split_keeps_what_is_there(tmp_path):
    listed = {"train": named("abcd"), "val": named("ex"), "test": named("f")}
    assert splits(tmp_path, listed, absent="x") == ({"train": "abcd", "val": "e", "test": "f"}, [])


def test_without_any_photo_held_out_there_are_no_splits(tmp_path):
    found, notes = splits(tmp_path, {"train": named("abcdef"), "val": named("x"), "test": []}, absent="x")
    assert found == {}
    assert notes == ["No photo of the val or test split exists: a fraction of all photos is held out."]
    assert splits(tmp_path, {"train": named("abcdef")}) == ({}, [])
    assert splits(tmp_path, {}) == ({}, [])


def test_photos_that_are_not_held_out_replace_an_emptied_train_list(tmp_path):
    found, notes = splits(tmp_path, {"train": named("xy"), "val": named("e"), "test": named("f")}, absent="xy")
    assert found == {"train": "abcd", "val": "e", "test": "f"}
    assert notes == ["No photo of a train split exists: the 4 photos that are in no other split replace it."]


def test_a_train_list_that_nothing_can_replace_is_refused(tmp_path):
    with pytest.raises(CaptureError, match=r"none of the 2 photos of the train split of .*transforms.json exists"):
        splits(tmp_path, {"train": named("xy"), "test": named("abcdef")}, absent="xy")


@pytest.mark.parametrize(
    "spelling",
    [
        "{}",
        "{}.png",
        "{}.JPG",
        "images/{}",
        "./images/{}.PNG",
        "Images/{}.png",
        "images\\{}.png",
        "C:\\ball\\images\\{}.png",
        "/home/x/images/{}.png",
    ],
)
def test_names_may_lack_suffix_and_folder_or_differ_in_case(tmp_path, spelling):
    listed = {"train": named("abcd"), "test": [spelling.format(name) for name in "ef"]}
    assert splits(tmp_path, listed)[0]["test"] == "ef"


def test_names_of_no_listed_photo_are_counted(tmp_path):
    found, notes = splits(
        tmp_path, {"train": named("abcd"), "val": ["images/zz.png", "val/a.png"], "test": named("ef")}
    )
    assert found == {"train": "abcd", "val": "ef", "test": "ef"}
    assert notes[0] == "The list of val photos in transforms.json has 2 names of no photo."


def test_a_bare_name_in_two_folders_means_neither(tmp_path):
    files = {tmp_path / folder / "0.png": tmp_path / folder / "0.png" for folder in ("left", "right")}
    listed = {"train": [tmp_path / "left/0.png"], "test": [tmp_path / "0"]}
    assert complete_splits(listed, files, [], tmp_path)[0] == {}
