"""The reader of COLMAP's models: compared with nerfstudio's, its layouts of folders, and what it refuses."""

import shutil
import struct

import numpy as np
import PIL.Image
import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import load
from tests.conftest import write_capture

CAMERAS = {
    "SIMPLE_PINHOLE": (20.0, 12.5, 8.0),
    "PINHOLE": (20.0, 21.0, 12.5, 8.0),
    "SIMPLE_RADIAL": (20.0, 12.5, 8.0, 0.01),
    "RADIAL": (20.0, 12.5, 8.0, 0.01, -0.02),
    "OPENCV": (20.0, 21.0, 12.5, 8.0, 0.01, -0.02, 0.003, 0.004),
    "OPENCV_FISHEYE": (20.0, 21.0, 12.5, 8.0, 0.01, -0.02, 0.03, 0.04),
    "SIMPLE_RADIAL_FISHEYE": (20.0, 12.5, 8.0, 0.01),
    "RADIAL_FISHEYE": (20.0, 12.5, 8.0, 0.01, -0.02),
}
NUMBERS = {name: number for number, name in enumerate(list(CAMERAS)[:6])} | {
    "SIMPLE_RADIAL_FISHEYE": 8,
    "RADIAL_FISHEYE": 9,
}
"""Their numbers in COLMAP's sources, src/colmap/sensor/models.h."""


def poses(count):
    """Rotations (w, x, y, z) and translations."""
    rng = np.random.default_rng(0)
    rotations = rng.normal(size=(count, 4))
    return rotations / np.linalg.norm(rotations, axis=-1, keepdims=True), rng.normal(size=(count, 3))


def write_model(folder, *, camera="OPENCV", binary=False, count=3):
    """A capture whose model lists its images in another order than their numbers, with two points each."""
    write_capture(folder, count=count)
    (folder / "transforms.json").unlink()
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    values, (rotations, translations) = CAMERAS[camera], poses(count)
    order = list(reversed(range(count)))
    if not binary:
        (model / "cameras.txt").write_text(f"# cameras\n1 {camera} 24 16 {' '.join(map(str, values))}\n")
        lines = ["# images\n"]
        for i in order:
            numbers = " ".join(repr(float(x)) for x in (*rotations[i], *translations[i]))
            lines.append(f"{i + 1} {numbers} 1 {i:03d}.png\n" + ("1.0 2.0 -1 3.0 4.0 7\n" if i else "\n"))
        (model / "images.txt").write_text("".join(lines))
        return model
    head = struct.pack("<Q", 1) + struct.pack("<iiQQ", 1, NUMBERS[camera], 24, 16)
    (model / "cameras.bin").write_bytes(head + struct.pack(f"<{len(values)}d", *values))
    body = struct.pack("<Q", count)
    for i in order:
        body += struct.pack("<i7di", i + 1, *rotations[i], *translations[i], 1) + f"{i:03d}.png".encode() + b"\0"
        body += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1.0, 2.0, -1, 3.0, 4.0, 7)
    (model / "images.bin").write_bytes(body)
    return model


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("camera", CAMERAS)
def test_a_model_is_read_as_by_nerfstudio(tmp_path, camera, binary):
    pytest.importorskip("nerfstudio")
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    model = write_model(tmp_path, camera=camera, binary=binary)
    config = ColmapDataParserConfig(
        data=tmp_path, colmap_path=model.relative_to(tmp_path), assume_colmap_world_coordinate_convention=False
    )
    expected = config.setup()._get_all_images_and_cameras(model)
    fisheye = expected["camera_model"] == "OPENCV_FISHEYE"
    for photo, frame in zip(load(tmp_path).photos, expected["frames"], strict=True):
        assert str(photo.image) == frame["file_path"]
        assert photo.camera.lens == ("fisheye" if fisheye else "perspective")
        np.testing.assert_allclose(photo.pose, frame["transform_matrix"], atol=1e-12)  # rounding in float64
        camera = photo.camera
        assert [camera.width, camera.height] == [frame["w"], frame["h"]]
        assert [camera.fx, camera.fy, camera.cx, camera.cy] == [frame[key] for key in ("fl_x", "fl_y", "cx", "cy")]
        for name in ("k1", "k2", "k3", "k4", "p1", "p2"):
            assert camera.distortion.get(name, 0.0) == frame.get(name, 0.0), name


def test_upright_is_the_turn_that_nerfstudio_makes(tmp_path):
    pytest.importorskip("nerfstudio")
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    model = write_model(tmp_path)
    config = ColmapDataParserConfig(data=tmp_path, colmap_path=model.relative_to(tmp_path))
    turned = config.setup()._get_all_images_and_cameras(model)
    capture = load(tmp_path)
    assert "applied_transform" not in capture.world
    for photo, frame in zip(capture.photos, turned["frames"], strict=True):
        np.testing.assert_allclose(capture.upright @ photo.pose[:3], frame["transform_matrix"][:3], atol=1e-12)


# --- sparse points ---------------------------------------------------------------------------------------------------


def write_points(model, *, binary):
    """Three points. The images 1 and 3 see the first, 2 sees the second, none the third."""
    points = [((0.5, -1.0, 2.0), (255, 0, 7), (1, 3)), ((1.0, 2.0, 3.0), (1, 2, 3), (2,)), ((4, 5, 6), (9, 9, 9), ())]
    if not binary:
        lines = [
            f"{10 + i} {' '.join(map(str, (*at, *color)))} 0.25 {' '.join(f'{number} {i}' for number in track)}\n"
            for i, (at, color, track) in enumerate(points)
        ]
        (model / "points3D.txt").write_text("# points\n" + "".join(lines))
        return
    content = struct.pack("<Q", len(points))
    for i, (at, color, track) in enumerate(points):
        content += struct.pack("<Q3d3BdQ", 10 + i, *at, *color, 0.25, len(track))
        content += b"".join(struct.pack("<ii", number, i) for number in track)
    (model / "points3D.bin").write_bytes(content)


@pytest.mark.parametrize("binary", [False, True])
def test_sparse_points_are_read_with_the_photos_that_see_them(tmp_path, binary):
    write_points(write_model(tmp_path, binary=binary), binary=binary)
    points = load(tmp_path).points
    assert points.positions.tolist() == [[0.5, -1.0, 2.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert points.colors.tolist() == [[255, 0, 7], [1, 2, 3], [9, 9, 9]]
    assert sorted(points.observations.tolist()) == [[0, 0], [1, 1], [2, 0]]


def test_observations_count_the_photos_that_exist(tmp_path):
    write_points(write_model(tmp_path, binary=True), binary=True)
    (tmp_path / "images" / "000.png").unlink()
    assert sorted(load(tmp_path).points.observations.tolist()) == [[0, 1], [1, 0]]


def test_damaged_points_are_left_out_with_a_note(tmp_path):
    model = write_model(tmp_path, binary=True)
    write_points(model, binary=True)
    path = model / "points3D.bin"
    path.write_bytes(path.read_bytes()[:-10])
    capture = load(tmp_path)
    assert capture.points is None
    assert any("points3D.bin is truncated" in note for note in capture.notes)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    ["sparse/0", "sparse", "colmap/sparse/0", "colmap", "distorted/sparse/0", "dense/0/sparse", "sfm", "sfm/models/1"],
)
@pytest.mark.parametrize("images", ["images", "rgb", "input", "."])
def test_models_and_images_are_found_where_programs_put_them(tmp_path, layout, images):
    model = write_model(tmp_path, binary=True)
    model.rename(tmp_path / "model")
    (tmp_path / "sparse").rmdir()
    (tmp_path / layout).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "model").rename(tmp_path / layout)
    for image in (tmp_path / "images").iterdir():
        (tmp_path / images).mkdir(exist_ok=True)
        image.rename(tmp_path / images / image.name)
    capture = load(tmp_path)
    assert [photo.image for photo in capture.photos] == [tmp_path / images / f"{i:03d}.png" for i in range(3)]
    assert capture.notes == ()


@pytest.mark.parametrize("given", ["sparse/0", "sparse", "sparse/0/cameras.bin"])
def test_a_model_itself_may_be_given(tmp_path, given):
    write_model(tmp_path, binary=True)
    assert len(load(tmp_path / given).photos) == 3


def copy_of(model, target, *, count):
    """A copy of a model with the first images only."""
    target.mkdir(parents=True)
    (target / "cameras.txt").write_bytes((model / "cameras.txt").read_bytes())
    lines = (model / "images.txt").read_text().splitlines(keepends=True)
    (target / "images.txt").write_text("".join(lines[: 1 + 2 * count]))


def test_the_model_with_the_most_images_is_read_and_the_others_are_named(tmp_path):
    model = write_model(tmp_path, count=5)
    model.rename(tmp_path / "sparse" / "10")
    copy_of(tmp_path / "sparse" / "10", tmp_path / "sparse" / "0", count=2)
    copy_of(tmp_path / "sparse" / "10", tmp_path / "sparse" / "2", count=4)
    capture = load(tmp_path)
    assert len(capture.photos) == 5
    assert any("sparse/10 is read, with 5 images. Not read: sparse/0 (2), sparse/2 (4)." in n for n in capture.notes)


def test_a_damaged_model_beside_a_good_one_is_not_in_the_way(tmp_path):
    write_model(tmp_path)
    (tmp_path / "sparse" / "1").mkdir()
    (tmp_path / "sparse" / "1" / "cameras.bin").write_bytes(b"")
    capture = load(tmp_path)
    assert len(capture.photos) == 3
    assert any("sparse/1 (damaged)" in note for note in capture.notes)


def test_another_model_and_folder_of_images_can_be_asked_for(tmp_path):
    copy_of(write_model(tmp_path, count=4), tmp_path / "sparse" / "1", count=2)
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere" / "copies")
    capture = load(tmp_path, model=tmp_path / "sparse" / "1", images=tmp_path / "elsewhere" / "copies")
    assert [photo.image for photo in capture.photos] == [tmp_path / "elsewhere/copies" / f"00{i}.png" for i in (2, 3)]


def test_images_that_the_model_lacks_are_counted(tmp_path):
    copy_of(write_model(tmp_path, count=5), tmp_path / "model", count=3)
    shutil.rmtree(tmp_path / "sparse")
    (tmp_path / "model").rename(tmp_path / "sparse")
    assert load(tmp_path).notes == (
        f"2 images of {tmp_path / 'images'} are not in the COLMAP model, and are not used.",
    )


def test_of_distorted_and_undistorted_images_those_of_the_cameras_size_are_taken(tmp_path):
    """As Gaussian splatting's converter leaves them: `input/` are the photos, `images/` are undistorted and smaller."""
    model = write_model(tmp_path)
    (tmp_path / "images").rename(tmp_path / "input")
    (tmp_path / "images").mkdir()
    for path in (tmp_path / "input").iterdir():
        PIL.Image.open(path).crop((0, 0, 22, 15)).save(tmp_path / "images" / path.name)
    assert {photo.image.parent.name for photo in load(tmp_path).photos} == {"input"}
    cameras = model / "cameras.txt"
    cameras.write_text(cameras.read_text().replace(" 24 16 ", " 22 15 "))
    assert {photo.image.parent.name for photo in load(tmp_path).photos} == {"images"}


def test_reduced_images_are_used_with_scaled_intrinsics_where_there_are_no_others(tmp_path):
    write_model(tmp_path, camera="PINHOLE")
    (tmp_path / "images").rename(tmp_path / "full")
    (tmp_path / "images_2").mkdir()
    for path in (tmp_path / "full").iterdir():
        PIL.Image.open(path).resize((12, 8)).save(tmp_path / "images_2" / path.name)
    shutil.rmtree(tmp_path / "full")
    capture = load(tmp_path)
    camera = capture.photos[0].camera
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (12, 8, 10, 10.5, 6.25, 4)
    assert any("12x8 instead of 24x16: the intrinsics are scaled" in note for note in capture.notes)


# --- files -----------------------------------------------------------------------------------------------------------


def test_binary_files_are_preferred_to_text_if_both_are_whole(tmp_path):
    write_model(tmp_path / "a", camera="PINHOLE")
    write_model(tmp_path / "b", camera="SIMPLE_PINHOLE", binary=True)
    for file in (tmp_path / "a" / "sparse" / "0").iterdir():
        shutil.copy(file, tmp_path / "b" / "sparse" / "0")
    assert load(tmp_path / "b").photos[0].camera.fy == 20.0
    (tmp_path / "b" / "sparse" / "0" / "images.bin").unlink()
    assert load(tmp_path / "b").photos[0].camera.fy == 21.0


def test_images_without_points_may_lack_their_empty_line(tmp_path):
    images = write_model(tmp_path) / "images.txt"
    kept = [line for line in images.read_text().splitlines() if line and not line.startswith("1.0 2.0")]
    images.write_text("\n".join(kept))
    assert len(load(tmp_path).photos) == 3


def test_text_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path):
    model = write_model(tmp_path)
    for path in model.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [photo.image.name for photo in load(tmp_path).photos] == ["000.png", "001.png", "002.png"]


def test_rigs_and_frames_of_newer_versions_change_nothing(tmp_path):
    model = write_model(tmp_path, binary=True)
    before = [photo.pose for photo in load(tmp_path).photos]
    for name in ("rigs.bin", "frames.bin"):
        (model / name).write_bytes(b"\1\0\0\0\0\0\0\0")
    np.testing.assert_array_equal([photo.pose for photo in load(tmp_path).photos], before)


def test_an_image_s_name_may_have_spaces(tmp_path):
    model = write_model(tmp_path)
    (tmp_path / "images" / "001.png").rename(tmp_path / "images" / "a photo.png")
    images = model / "images.txt"
    images.write_text(images.read_text().replace("001.png", "a photo.png"))
    assert [photo.image.name for photo in load(tmp_path).photos] == ["000.png", "a photo.png", "002.png"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("binary", "spoil", "message"),
    [
        (True, lambda model: truncate(model / "images.bin"), "0/images.bin is truncated"),
        (True, lambda model: (model / "images.bin").write_bytes(b"\3\0"), "0/images.bin is truncated"),
        (True, lambda model: (model / "images.bin").write_text(POINTER), "0/images.bin is a Git LFS pointer"),
        (True, lambda model: (model / "images.bin").unlink(), "0/images.bin does not exist"),
        (True, lambda model: (model / "cameras.bin").write_bytes(b""), "0/cameras.bin is empty"),
        (True, lambda model: (model / "cameras.bin").write_bytes(b"\1\0\0"), "0/cameras.bin is truncated"),
        (True, lambda model: (model / "cameras.bin").unlink(), "0/cameras.bin does not exist"),
        (
            True,
            lambda model: (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 1, 99, 24, 16)),
            "0/cameras.bin: the camera model with the number 99 is not known",
        ),
        (False, lambda model: (model / "images.txt").unlink(), "0/images.txt does not exist"),
        (False, lambda model: (model / "images.txt").write_text("# none\n"), "the COLMAP model in .*0 lists no images"),
        (False, lambda model: (model / "images.txt").write_text("1 2 3 4\n"), "0/images.txt, line 1, is not an image"),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("1 PINHOLE x 16\n"),
            "0/cameras.txt, line 1, is not a",
        ),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("2 PINHOLE 24 16 20 21 12 8\n"),
            "0: the camera 1 of the image 000.png is not listed",
        ),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("1 FOV 24 16 20 21 12 8 1\n"),
            "the camera model 'FOV' of .*000.png .* cannot be trained with.*SIMPLE_RADIAL_FISHEYE",
        ),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("1 PINHOLE 24 16 20 21 12\n"),
            "0: a camera of model PINHOLE has 4 parameters, got 3",
        ),
        (
            False,
            lambda model: (model / "images.txt").write_text("1 0 0 0 0 0 0 0 1 000.png\n\n"),
            "0: the rotation of the image 000.png is no quaternion",
        ),
    ],
)
def test_a_damaged_model_is_named_with_the_file_and_the_reason(tmp_path, binary, spoil, message):
    spoil(write_model(tmp_path, binary=binary))
    with pytest.raises(CaptureError, match=message):
        load(tmp_path)


def test_two_kinds_of_lenses_are_read_each_as_it_is(tmp_path):
    model = write_model(tmp_path)
    fisheye = " ".join(map(str, CAMERAS["OPENCV_FISHEYE"]))
    with (model / "cameras.txt").open("a") as file:
        file.write(f"2 OPENCV_FISHEYE 24 16 {fisheye}\n")
    images = model / "images.txt"
    images.write_text(images.read_text().replace(" 1 000.png", " 2 000.png"))
    photos = load(tmp_path).photos
    assert [photo.camera.lens for photo in photos] == ["fisheye", "perspective", "perspective"]
    assert [photo.camera.distortion.get("k4") for photo in photos] == [0.04, None, None]
