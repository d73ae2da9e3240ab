"""What a loaded capture holds, whatever its format."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import READERS, load
from staf_nerf.captures.prepare import prepare
from tests.conftest import pose, write_blender, write_capture


def edit(folder, change):
    """Applies `change` to the listing of a capture."""
    path = folder / "transforms.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def test_every_format_has_its_own_line_in_the_message_of_a_folder_without_a_capture(tmp_path):
    with pytest.raises(ValueError, match="contains no capture") as refused:
        load(tmp_path)
    for reader in READERS.values():
        assert reader.FILES in str(refused.value)


def test_a_capture_s_photos_have_the_listed_poses_and_cameras(tmp_path):
    write_capture(tmp_path, count=4)
    capture = load(tmp_path)
    assert (capture.kind, capture.dropped, capture.splits) == ("transforms", (), {})
    for i, photo in enumerate(capture.photos):
        assert photo.image == tmp_path / "images" / f"{i:03d}.png"
        np.testing.assert_array_equal(photo.pose, pose(2 * np.pi * i / 4))
        camera = photo.camera
        assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (24, 16, 20, 21, 12.5, 8)
        assert camera.distortion == {"k1": 0.01}
        assert not photo.has_alpha


def test_an_image_that_does_not_exist_is_in_no_split(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    (tmp_path / "images" / "001.png").unlink()
    capture = load(tmp_path)
    assert [path.stem for path in capture.dropped] == ["001"]
    assert [path.stem for path in capture.splits["train"]] == ["000", "002", "003"]
    assert all(photo.has_alpha for photo in capture.photos)


def test_mended_paths_are_counted_in_one_note(tmp_path):
    write_capture(tmp_path)

    def change(meta):
        for frame in meta["frames"][:4]:
            frame["file_path"] = "C:\\ball\\" + frame["file_path"].replace("/", "\\")

    edit(tmp_path, change)
    capture = load(tmp_path)
    assert [photo.image.stem for photo in capture.photos] == [f"{i:03d}" for i in range(6)]
    (note,) = capture.notes
    assert note.startswith("Paths of 4 of 6 images were mended: ")
    assert str(tmp_path / "images" / "000.png") in note


def test_a_relative_path_to_the_capture_is_no_reason_to_mend_paths(tmp_path, monkeypatch):
    write_capture(tmp_path / "scene")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    edit(tmp_path / "scene", lambda meta: meta["frames"][0].update(file_path="../scene/./images/000"))
    assert load(Path("../scene")).notes == ()


def test_photos_in_another_folder_can_be_named(tmp_path):
    write_capture(tmp_path / "scene")
    (tmp_path / "scene" / "images").rename(tmp_path / "photos")
    capture = load(tmp_path / "scene", images=tmp_path / "photos")
    assert [photo.image for photo in capture.photos] == [tmp_path / "photos" / f"{i:03d}.png" for i in range(6)]
    with pytest.raises(CaptureError, match=r"the folder of images .*nowhere does not exist"):
        load(tmp_path / "scene", images=tmp_path / "nowhere")


# --- masks -----------------------------------------------------------------------------------------------------------


def write_masks(folder, count, names="masks/{:03d}.png"):
    for i in range(count):
        path = folder / names.format(i)
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (24, 16), 255).save(path)


def masks(capture):
    return [None if photo.mask is None else photo.mask.name for photo in capture.photos]


def test_masks_that_are_not_listed_are_used_with_a_note(tmp_path):
    write_capture(tmp_path)
    write_masks(tmp_path, 4)
    capture = load(tmp_path)
    assert masks(capture) == ["000.png", "001.png", "002.png", "003.png", None, None]
    assert capture.notes == (f"Masks in {tmp_path / 'masks'} are used, although they are not listed: 4 of 6 photos.",)


def test_listed_masks_are_mended_and_those_beside_are_left_alone(tmp_path):
    write_capture(tmp_path)
    write_masks(tmp_path, 6)
    edit(tmp_path, lambda meta: meta["frames"][1].update(mask_path="D:\\ball\\masks\\001.PNG"))
    assert masks(load(tmp_path)) == [None, "001.png", None, None, None, None]


def test_a_listed_mask_that_is_not_there_means_the_whole_photo(tmp_path):
    write_capture(tmp_path)
    write_masks(tmp_path, 2)
    edit(tmp_path, lambda m: [frame.update(mask_path=f"masks/{i:03d}.png") for i, frame in enumerate(m["frames"][:3])])
    capture = load(tmp_path)
    assert masks(capture) == ["000.png", "001.png", None, None, None, None]
    assert capture.notes[0].startswith("1 listed mask not found")


def test_masks_of_which_none_is_there_are_refused(tmp_path):
    write_capture(tmp_path)
    edit(tmp_path, lambda meta: meta["frames"][0].update(mask_path="masks/000.png"))
    with pytest.raises(CaptureError, match=r"none of the 1 mask listed in .* exists, for example .*masks/000.png"):
        load(tmp_path)


# --- sizes and EXIF orientation --------------------------------------------------------------------------------------


def write_turned(folder, tag, size=(24, 16)):
    """Photos that are stored turned, with an EXIF orientation. `size` is that of the upright picture."""
    write_capture(folder, size=size)
    stored = (size[1], size[0]) if tag >= 5 else size
    exif = Image.Exif()
    exif[0x0112] = tag
    for path in (folder / "images").iterdir():
        Image.new("RGB", stored).save(path, exif=exif)


@pytest.mark.parametrize("tag", [5, 6, 7, 8])
def test_a_tag_is_applied_where_only_then_the_listed_size_fits(tmp_path, tag):
    write_turned(tmp_path, tag)
    capture = load(tmp_path)
    assert {photo.orientation for photo in capture.photos} == {tag}
    assert {(photo.camera.width, photo.camera.height, photo.camera.cx) for photo in capture.photos} == {(24, 16, 12.5)}
    assert capture.notes == ("6 images turned by the EXIF orientation, as the listed sizes ask for.",)


@pytest.mark.parametrize(("tag", "size"), [(6, (16, 16)), (3, (24, 16))])
def test_a_tag_is_ignored_with_a_note_where_both_sizes_fit(tmp_path, tag, size):
    write_turned(tmp_path, tag, size)
    capture = load(tmp_path)
    assert {photo.orientation for photo in capture.photos} == {1}
    assert "6 images with an EXIF orientation, 000.png for example, used as the pixels are stored" in capture.notes[0]


def test_without_a_listed_size_pixels_are_used_as_stored_with_a_note(tmp_path):
    write_turned(tmp_path, 6)
    edit(tmp_path, lambda meta: [meta.pop(key) for key in ("w", "h", "cx", "cy")])
    capture = load(tmp_path)
    assert {(photo.orientation, photo.camera.width, photo.camera.height) for photo in capture.photos} == {(1, 16, 24)}
    assert "used as the pixels are stored" in capture.notes[0]


def test_a_tag_that_the_listed_size_contradicts_is_ignored_without_a_word(tmp_path):
    write_turned(tmp_path, 6)
    edit(tmp_path, lambda meta: meta.update(w=16, h=24, cx=8, cy=12))
    capture = load(tmp_path)
    assert {photo.orientation for photo in capture.photos} == {1}
    assert capture.notes == ()


@pytest.mark.parametrize(
    ("tag", "size", "message"),
    [
        (6, (20, 16), "is listed, with and without its EXIF orientation 6"),
        (1, (16, 24), "is listed, as if it were turned, and it has no EXIF orientation"),
        (1, (30, 16), "is listed, of another shape"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_what_the_tag_says(tmp_path, tag, size, message):
    write_turned(tmp_path, tag)
    edit(tmp_path, lambda meta: meta.update(w=size[0], h=size[1]))
    with pytest.raises(CaptureError, match=message):
        load(tmp_path)


def test_reduced_images_have_their_intrinsics_scaled_with_a_note(tmp_path):
    write_capture(tmp_path)
    edit(tmp_path, lambda meta: meta.update(w=48, h=32))
    capture = load(tmp_path)
    camera = capture.photos[0].camera
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (24, 16, 10, 10.5, 6.25, 4)
    assert capture.notes == (
        "6 images of another size than listed, for example 000.png of 24x16 instead of 48x32: "
        "the intrinsics are scaled.",
    )


# --- files that are not what they seem -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "002.png is a Git LFS pointer.*git lfs pull"),
        (b"", "002.png cannot be read: it is empty"),
        (b"\x89PNG\r\n\x1a\n", "the image .*002.png cannot be read"),
        (b"<html>", "the image .*002.png cannot be read"),
    ],
)
def test_an_image_without_content_is_named(tmp_path, content, message):
    write_capture(tmp_path)
    (tmp_path / "images" / "002.png").write_bytes(content)
    with pytest.raises(CaptureError, match=message):
        load(tmp_path)


def test_a_damaged_stream_of_pixels_is_named(tmp_path):
    write_capture(tmp_path, size=(64, 64))
    path = tmp_path / "images" / "002.png"
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"the image .*002.png cannot be read"):
        prepare(tmp_path, cache=tmp_path / "cache")  # which reads the pixels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scene.zip", b"PK\5\6" + bytes(18), "scene.zip is an archive, not a capture: unpack it"),
        ("scene.tar.gz", b"x", "scene.tar.gz is an archive"),
        ("scene", b"PK\5\6" + bytes(18), "scene is an archive"),
        (
            "clip one.MP4",
            b"x",
            "is a video, without poses. .*`staf capture '.*clip one.MP4' -o SCENE`, then `--data SCENE`",
        ),
        ("photo.jpg", b"x", "photo.jpg is a single image: .*`staf capture .* -o SCENE`"),
        ("points.ply", b"ply", "points.ply is a mesh or a point cloud, not a capture.* `staf fit shape .*points.ply`"),
        ("scan.las", b"x", "scan.las is a point cloud, not a capture"),
        ("settings.json", b"{}", "settings.json is not a capture: it has no list 'frames'"),
        ("poses.json", b"version https://git-lfs.github.com/spec/v1\n", "poses.json is a Git LFS pointer"),
        ("database.db", b"x", "database.db is a database of COLMAP, which has no poses"),
        ("notes.txt", b"x", "notes.txt is not a capture: give the folder"),
    ],
)
def test_a_file_that_is_no_capture_is_refused_with_the_next_command(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CaptureError, match=message):
        load(tmp_path / name)


def test_photos_without_poses_are_refused_with_the_command_that_finds_them(tmp_path):
    write_capture(tmp_path)
    (tmp_path / "transforms.json").unlink()
    for folder in (tmp_path, tmp_path / "images"):
        with pytest.raises(CaptureError, match=rf"holds 6 images, but no poses. .*`staf capture {folder} -o SCENE`"):
            load(folder)


@pytest.mark.parametrize(
    ("name", "message"), [("a.mp4", "the video a.mp4.*staf capture"), ("a.zip", "archive a.zip.*Unp")]
)
def test_a_folder_that_only_holds_a_video_or_an_archive_says_so(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CaptureError, match=message):
        load(tmp_path)


def test_the_capture_in_the_only_sub_folder_is_read_with_a_note(tmp_path):
    write_capture(tmp_path / "scene")
    (tmp_path / "other").mkdir()
    capture = load(tmp_path)
    assert len(capture.photos) == 6
    assert capture.notes == (f"The capture in scene, the only one in {tmp_path}, is read.",)


def test_of_several_captures_in_sub_folders_none_is_chosen(tmp_path):
    write_capture(tmp_path / "a")
    write_blender(tmp_path / "b")
    with pytest.raises(CaptureError, match=r"holds 2 captures: give the folder of one of them: .*/a, .*/b"):
        load(tmp_path)


def test_the_folder_of_the_images_points_to_the_capture(tmp_path):
    write_capture(tmp_path)
    with pytest.raises(
        CaptureError, match=f"images holds no poses, but {tmp_path} is the capture of its photos: give that"
    ):
        load(tmp_path / "images")


def test_a_folder_beside_a_capture_is_not_taken_for_a_part_of_it(tmp_path):
    write_capture(tmp_path)
    (tmp_path / "others").mkdir()
    with pytest.raises(CaptureError, match="others contains no capture"):
        load(tmp_path / "others")


def test_a_capture_whose_images_all_moved_to_the_folder_itself_is_read(tmp_path):
    write_capture(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / path.name)
    shutil.rmtree(tmp_path / "images")
    assert len(load(tmp_path).photos) == 6
