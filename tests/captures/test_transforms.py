"""The reader of `transforms.json`: what other programs write into it, and what is refused."""

import json
import math
import re

import numpy as np
import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import load
from tests.conftest import pose, write_capture


def edited(folder, change, *, encoding="utf-8"):
    """A capture of six photos whose listing is changed. Returns it as it is loaded."""
    meta = write_capture(folder)
    change(meta)
    (folder / "transforms.json").write_bytes(json.dumps(meta).encode(encoding))
    return load(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_any_unicode_encoding_is_read(tmp_path, encoding):
    capture = edited(tmp_path, lambda meta: None, encoding=encoding)
    np.testing.assert_array_equal([photo.pose for photo in capture.photos], [pose(math.pi * i / 3) for i in range(6)])


@pytest.mark.parametrize("name", ["poses.json", "base_cam.JSON", "transforms_orig.json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_listing_of_any_name_may_be_given(tmp_path, name, encoding):
    meta = write_capture(tmp_path)
    (tmp_path / name).write_bytes(json.dumps(meta).encode(encoding))
    (tmp_path / "transforms.json").unlink()
    assert load(tmp_path / name).kind == "transforms"


def test_numbers_as_text_nulls_and_unknown_keys_change_nothing(tmp_path):
    expected = edited(tmp_path / "a", lambda meta: None)

    def change(meta):
        meta.update({key: str(meta[key]) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1")})
        meta.update(k2=None, camera_model=None, aabb_scale=16, offset=[0, 0, 0], train_filenames=None, alpha=3)
        for frame in meta["frames"]:
            frame.update(sharpness=3.0, mask_path=None, fl_x=None, lidar_path="x", depth_path="y")
            frame["transform_matrix"] = [[str(value) for value in row] for row in frame["transform_matrix"]]

    found = edited(tmp_path / "b", change)
    assert [photo.camera for photo in found.photos] == [photo.camera for photo in expected.photos]
    np.testing.assert_array_equal([photo.pose for photo in found.photos], [photo.pose for photo in expected.photos])
    assert found.notes == ()


def test_frames_say_what_differs_from_the_file(tmp_path):
    def change(meta):
        meta["frames"][1].update(camera_model="OPENCV_FISHEYE", fl_x=25.0, k1=0.5)
        meta["frames"][2].update(is_fisheye=True)

    photos = edited(tmp_path, change).photos
    assert [photo.camera.lens for photo in photos[:4]] == ["perspective", "fisheye", "fisheye", "perspective"]
    assert [photo.camera.fx for photo in photos[:3]] == [20.0, 25.0, 20.0]
    assert [photo.camera.distortion["k1"] for photo in photos[:3]] == [0.01, 0.5, 0.01]


@pytest.mark.parametrize("absent", [None, [], "no key"])
def test_frames_without_a_pose_are_left_out_and_counted(tmp_path, absent):
    def change(meta):
        for frame in meta["frames"][3:5]:
            frame.update(transform_matrix=absent)
            if absent == "no key":
                frame.pop("transform_matrix")

    capture = edited(tmp_path, change)
    assert [photo.image.stem for photo in capture.photos] == ["000", "001", "002", "005"]
    assert capture.notes == ("transforms.json: 2 frames without a pose left out.",)


def test_a_listing_without_any_pose_is_refused(tmp_path):
    with pytest.raises(CaptureError, match=r"transforms.json lists no frames that have a pose"):
        edited(tmp_path, lambda meta: [frame.update(transform_matrix=None) for frame in meta["frames"]])


def test_a_photo_that_is_listed_twice_is_used_once(tmp_path):
    capture = edited(tmp_path, lambda meta: meta["frames"].append({**meta["frames"][0], "file_path": "./images/000"}))
    assert len(capture.photos) == 6
    assert capture.notes == ("1 photo listed more than once: used once.",)


def test_a_photo_with_two_poses_is_refused(tmp_path):
    with pytest.raises(CaptureError, match=r"lists .*000.png twice, with different poses"):
        edited(tmp_path, lambda meta: meta["frames"].append({**meta["frames"][1], "file_path": "images/000.png"}))


def test_flat_and_scaled_poses_are_made_matrices_of_rotations(tmp_path):
    def change(meta):
        for frame in meta["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] *= 2.5
            frame["transform_matrix"] = matrix.ravel().tolist()

    capture = edited(tmp_path, change)
    expected = [pose(math.pi * i / 3) for i in range(6)]
    np.testing.assert_allclose([photo.pose for photo in capture.photos], expected, atol=1e-14)
    assert capture.notes == ("6 poses with axes of length 2.5: made rotations.",)


@pytest.mark.parametrize("binary", [True, False])
def test_sparse_points_of_a_ply_file_are_read(tmp_path, binary):
    trimesh = pytest.importorskip("trimesh")
    positions = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    colors = np.arange(20, dtype=np.uint8).reshape(5, 4) + 100
    content = trimesh.PointCloud(positions, colors).export(file_type="ply", encoding="binary" if binary else "ascii")
    (tmp_path / "sparse.ply").write_bytes(content)
    points = edited(tmp_path / "scene", lambda meta: meta.update(ply_file_path="..\\sparse.ply")).points
    np.testing.assert_allclose(points.positions, positions, atol=1e-7)  # decimals in the ASCII file
    np.testing.assert_array_equal(points.colors, colors[:, :3])
    assert points.observations is None


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (None, "There are no sparse points: .*p.ply does not exist"),
        (b"", "There are no sparse points: .*p.ply is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "There are no sparse points: .*p.ply is a Git LFS pointer"),
        (b"ply\nformat ascii 1.0\nend_header\n", "sparse points in .*p.ply cannot be read"),
        (b"nothing", "sparse points in .*p.ply cannot be read"),
    ],
)
def test_a_damaged_ply_file_is_a_note(tmp_path, content, note):
    if content is not None:
        (tmp_path / "p.ply").write_bytes(content)
    capture = edited(tmp_path / "scene", lambda meta: meta.update(ply_file_path="../p.ply"))
    assert capture.points is None
    (said,) = capture.notes
    assert re.search(note, said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "transforms.json is empty"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "transforms.json is a Git LFS pointer.*git lfs pull",
        ),
        ('{"frames": [\n1,\n]}', r"is not valid JSON: .*line 3 column 1.*trailing commas"),
        ('{"w": 3, // pixels\n"frames": []}', r"is not valid JSON: .*line 1 column 10.*Comments"),
        ("<html>", "is not valid JSON"),
        ('{"frames": {"0": {}}}', "lists no frames: a list 'frames' is needed, got {'0': {}}"),
        ('{"w": 3}', "lists no frames: a list 'frames' is needed, got None"),
        ("[]", "lists no frames"),
        ('{"frames": []}', "lists no frames that have a pose"),
        ('{"frames": [1]}', "frame 0 must be an object with 'file_path', got 1"),
        ('{"frames": [{}]}', "frame 0 has no 'file_path'"),
        ('{"frames": [{"file_path": 3}]}', "frame 0 has no 'file_path'"),
    ],
)
def test_what_is_no_listing_is_refused_with_the_place(tmp_path, text, message):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(CaptureError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(rolling_shutter=[0, 0, 0.5, 0]), "has 'rolling_shutter': rows"),
        (lambda meta: meta.update(ftheta_p0=0.0), "has 'ftheta_p0': an f-theta lens"),
        (
            lambda meta: meta["frames"][2].update(equirectangular=True),
            "has 'equirectangular': instant-ngp's equal-area",
        ),
        (lambda meta: meta["frames"][2].update(transform_matrix_start=[[1]]), "has 'transform_matrix_start': a camera"),
        (lambda meta: meta["frames"][2].update(mask_path=3), "'mask_path' of frame 2 must be a path, got 3"),
        (lambda meta: meta.update(val_filenames="images/000.png"), "'val_filenames' must be a list of paths"),
        (
            lambda meta: meta["frames"][2].update(k1="much"),
            r"k1 of .*002.png \(listed in .*transforms.json\) must be a",
        ),
        (lambda meta: meta.update(fl_x=math.nan), r"fl_x of .*000.png .* must be a finite number, got nan"),
        (
            lambda meta: meta["frames"][2]["transform_matrix"][0].pop(),
            "the pose of .*002.png is not a matrix of numbers",
        ),
    ],
)
def test_entries_that_cannot_be_used_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(CaptureError, match=message):
        edited(tmp_path, change)


def test_a_shutter_of_zeros_is_no_rolling_shutter(tmp_path):
    assert (
        len(edited(tmp_path, lambda meta: meta.update(rolling_shutter=[0, 0, 0, 0], equirectangular=False)).photos) == 6
    )
