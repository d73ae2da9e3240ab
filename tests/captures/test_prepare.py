import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("platformdirs")

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.images import reduce_image
from staf_nerf.captures.load import find
from staf_nerf.captures.prepare import prepare
from tests.conftest import data, pose, write_blender, write_capture


def edit(folder, change, name="transforms.json"):
    """Applies `change` to the listing of a capture."""
    path = folder / name
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def listing(prepared):
    return json.loads(prepared.transforms.read_text())


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_intrinsics_follow_a_reduction_exactly(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    prepared = prepare(tmp_path, downscale_factor=3)
    for frame in listing(prepared)["frames"]:
        assert (frame["w"], frame["h"]) == (8, 5)
        assert (frame["fl_x"], frame["fl_y"]) == (20.0 / 3, 21.0 / 3)
        assert (frame["cx"], frame["cy"]) == (12.5 / 3, 8.0 / 3)
        assert frame["k1"] == 0.01  # of normalised coordinates: it does not change
        with Image.open(frame["file_path"]) as image:
            assert image.size == (8, 5)


def test_reduced_pixels_are_means_of_blocks(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    original = np.asarray(Image.open(tmp_path / "images" / "002.png")).astype(float)
    frame = listing(prepare(tmp_path, downscale_factor=4))["frames"][2]
    reduced = np.asarray(Image.open(frame["file_path"])).astype(float)
    for row, column in np.ndindex(4, 6):
        block = original[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1, 3)
        np.testing.assert_allclose(reduced[row, column], block.mean(0), atol=0.5)  # rounding to eight bits


def test_transparent_pixels_do_not_bleed_their_colour():
    image = np.array([[[255, 0, 0, 255], [0, 255, 0, 0]]], dtype=np.uint8).repeat(2, 0)
    assert reduce_image(image, 2).tolist() == [[[255, 0, 0, 128]]]


def test_the_automatic_factor_meets_the_largest_size(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    assert prepare(tmp_path).factor == 1
    assert prepare(tmp_path, max_image_size=24).factor == 1
    assert prepare(tmp_path, max_image_size=23).factor == 2
    assert prepare(tmp_path, max_image_size=7).factor == 4


def test_nothing_is_written_beside_the_data_and_a_second_call_reuses_the_images(tmp_path):
    folder = tmp_path / "scene"
    write_capture(folder)
    before = sorted(folder.rglob("*"))
    frame = listing(prepare(folder, downscale_factor=2))["frames"][0]
    stamp = (folder.parent, frame["file_path"]), _mtime(frame["file_path"])
    again = listing(prepare(folder, downscale_factor=2))["frames"][0]
    assert sorted(folder.rglob("*")) == before
    assert ((folder.parent, again["file_path"]), _mtime(again["file_path"])) == stamp


def test_a_changed_image_is_reduced_again(tmp_path):
    write_capture(tmp_path)
    first = listing(prepare(tmp_path, downscale_factor=2))["frames"][0]["file_path"]
    Image.fromarray(np.zeros((16, 24, 3), dtype=np.uint8)).save(tmp_path / "images" / "000.png")
    second = listing(prepare(tmp_path, downscale_factor=2))["frames"][0]["file_path"]
    assert second != first
    assert not np.asarray(Image.open(second)).any()


def _mtime(path):
    from pathlib import Path

    return Path(path).stat().st_mtime_ns


def test_camera_angles_stand_in_for_focal_lengths(tmp_path):
    write_capture(tmp_path)

    def change(meta):
        for name in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            meta.pop(name)
        meta["camera_angle_x"] = 1.0

    edit(tmp_path, change)
    frame = listing(prepare(tmp_path))["frames"][0]
    assert frame["fl_x"] == frame["fl_y"] == pytest.approx(12.0 / math.tan(0.5))
    assert (frame["cx"], frame["cy"]) == (12.0, 8.0)


def test_masks_become_transparency_or_stay_masks(tmp_path):
    write_capture(tmp_path, count=2)
    mask = np.zeros((16, 24), dtype=np.uint8)
    mask[:, :12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    edit(tmp_path, lambda meta: [frame.update(mask_path="mask.png") for frame in meta["frames"]])
    merged = prepare(tmp_path)
    assert merged.has_alpha
    frame = listing(merged)["frames"][0]
    assert "mask_path" not in frame
    alpha = np.asarray(Image.open(frame["file_path"]))[..., 3]
    assert (alpha[:, :12] == 255).all()
    assert (alpha[:, 12:] == 0).all()
    ignored = prepare(tmp_path, masks="ignore", downscale_factor=2)
    assert not ignored.has_alpha
    small = np.asarray(Image.open(listing(ignored)["frames"][0]["mask_path"]))
    assert (small[:, :6] == 255).all()
    assert (small[:, 6:] == 0).all()


def test_blender_files_keep_their_splits_and_find_images_without_suffix(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    prepared = prepare(tmp_path)
    assert (prepared.kind, prepared.has_alpha, prepared.has_splits) == ("blender", True, True)
    result = listing(prepared)
    assert [len(result[f"{split}_filenames"]) for split in ("train", "val", "test")] == [4, 2, 2]


def test_colmap_text_models_are_read(tmp_path):
    write_capture(tmp_path, count=3)
    (tmp_path / "transforms.json").unlink()
    model = tmp_path / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 OPENCV 24 16 20 21 12.5 8 0.01 0 0 0\n")
    lines = [f"{i + 1} 1 0 0 0 0 0 {i} 1 {i:03d}.png\n\n" for i in range(3)]
    (model / "images.txt").write_text("".join(lines))
    prepared = prepare(tmp_path)
    assert prepared.kind == "colmap"
    frame = listing(prepared)["frames"][1]
    assert (frame["fl_x"], frame["fl_y"], frame["cx"], frame["k1"]) == (20.0, 21.0, 12.5, 0.01)
    # The camera is at -Rᵀt = (0, 0, -1) of COLMAP's world, whose y points down; z is up in nerfstudio's.
    assert np.array(frame["transform_matrix"])[:3, 3].tolist() == pytest.approx([0.0, -1.0, 0.0])


def test_fox_has_fifty_of_its_sixty_seven_images():
    prepared = prepare(data("fox"), downscale_factor=8)
    frames = listing(prepared)["frames"]
    assert (len(frames), len(prepared.dropped)) == (50, 17)
    assert (frames[0]["w"], frames[0]["h"]) == (135, 240)
    assert frames[0]["fl_x"] == 1375.52 / 8


def test_chair_is_a_blender_scene_with_transparency():
    assert find(data("chair_200"))[0] == "blender"


# --- what is refused, and how ----------------------------------------------------------------------------------------


def refused(folder, message, **options):
    with pytest.raises(CaptureError, match=message):
        prepare(folder, **options)


def test_missing_and_empty_folders(tmp_path):
    refused(tmp_path / "nowhere", "the data folder .*nowhere does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"contains no capture: looked for transforms.json .* found nothing")


def test_json_that_does_not_parse_or_lists_nothing(tmp_path):
    write_capture(tmp_path)
    (tmp_path / "transforms.json").write_text("{'frames': ")
    refused(tmp_path, "transforms.json is not valid JSON")
    (tmp_path / "transforms.json").write_text("[]")
    refused(tmp_path, "lists no frames")
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, "is not a text file")


def test_missing_intrinsics(tmp_path):
    write_capture(tmp_path)
    edit(tmp_path, lambda meta: [meta.pop(name) for name in ("fl_x", "fl_y")])
    refused(tmp_path, "has no intrinsics for .*000.png: fl_x or camera_angle_x is needed")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((4, 4)).tolist(), "the pose of .*001.png is singular"),
        ([[float("nan")] * 4] * 4, "the pose of .*001.png has a value that is NaN or infinite"),
        ([[1.0, 0.0]], r"the pose of .*001.png must be 4x4 or 3x4, got \(1, 2\)"),
        ("identity", "the pose of .*001.png is not a matrix of numbers"),
        ([[1], [1, 2]], "the pose of .*001.png is not a matrix of numbers"),
    ],
)
def test_bad_poses_are_named(tmp_path, matrix, message):
    write_capture(tmp_path)
    edit(tmp_path, lambda meta: meta["frames"][1].update(transform_matrix=matrix))
    refused(tmp_path, message)


def test_a_truncated_image(tmp_path):
    write_capture(tmp_path, size=(200, 200))
    path = tmp_path / "images" / "003.png"
    path.write_bytes(path.read_bytes()[:1000])
    edit(tmp_path, lambda meta: [meta.pop(name) for name in ("w", "h")])
    refused(tmp_path, "the image .*003.png cannot be read")


def test_an_image_of_another_size(tmp_path):
    write_capture(tmp_path)
    Image.new("RGB", (30, 16)).save(tmp_path / "images" / "004.png")
    refused(tmp_path, "the image .*004.png has size 30x16, but 24x16 is listed")


def test_one_image_only_and_all_images_missing(tmp_path):
    write_capture(tmp_path, count=2)
    (tmp_path / "images" / "000.png").unlink()
    refused(tmp_path, "has 1 image; at least 2 are needed")
    shutil.rmtree(tmp_path / "images")
    refused(tmp_path, "none of the 2 images listed in .* exists, for example .*000.png")


def test_a_refused_capture_leaves_nothing_in_the_cache(tmp_path):
    write_capture(tmp_path / "scene")
    edit(tmp_path / "scene", lambda meta: meta["frames"][1].update(transform_matrix=np.zeros((4, 4)).tolist()))
    refused(tmp_path / "scene", "singular", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_factor_beyond_the_images(tmp_path):
    write_capture(tmp_path)
    refused(
        tmp_path,
        "downscale_factor must be between 1 and the images' side length in pixels, got 17",
        downscale_factor=17,
    )


def test_pose_helper_is_a_rotation():
    rotation = np.array(pose(0.4))[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
