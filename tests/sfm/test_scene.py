"""The capture that is written: up, scale, files; and what the user is told."""

import json

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from benchmarks.poses import errors
from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import load
from staf_nerf.sfm.advice import advice, missing
from staf_nerf.sfm.photos import Upright
from staf_nerf.sfm.process import Diagnosis, Job, JobCamera, JobImage, Model
from staf_nerf.sfm.scene import scaled, up_direction, upright, write_scene
from tests.sfm.room import pose, walk, write_photos

INTRINSICS = {"fl_x": 380.0, "fl_y": 381.0, "cx": 200.0, "cy": 150.0, "k1": 0.01, "k2": 0.0, "p1": 0.0, "p2": 0.001}


def model_of(poses, camera_of=None):
    generator = np.random.default_rng(0)
    count = len(poses)
    names = tuple(f"photo_{number:02d}.jpg" for number in range(count))
    return Model(
        names, np.stack(poses), tuple(camera_of or [0] * count), (INTRINSICS, {**INTRINSICS, "fl_x": 500.0}),
        generator.uniform(0, 1, (50, 3)), generator.integers(0, 255, (50, 3)).astype(np.uint8),
        np.ones(50, np.float32), np.array([[0, 3], [1, 3]], np.int32), np.ones((2, 2), np.float32),
    )  # fmt: skip


def images_of(names, sharpness=100.0, masked=False):
    return [Upright(name, (400, 300), ("x",), None, sharpness, masked) for name in names]


def around(count=12):
    angles = np.arange(count) * 2 * np.pi / count
    return [pose((3 * np.cos(a), 3 * np.sin(a), 1 + 0.3 * np.sin(3 * a)), (0, 0, 0)) for a in angles]


def strip():
    """Cameras that look straight down, in any turn about the vertical."""
    found = []
    for number in range(12):
        camera = np.eye(4)
        camera[:3, :3] = Rotation.from_euler("z", number * 30, degrees=True).as_matrix()
        camera[:3, 3] = [number, 0.3 * number % 2, 5.0]
        found.append(camera)
    return found


@pytest.mark.parametrize("poses", [around(), walk(12), strip()], ids=["around", "one side", "from above"])
def test_z_points_up_again_after_any_turn_of_the_world(poses):
    generator = np.random.default_rng(1)
    for turn in Rotation.random(10, rng=generator):
        turned = np.stack(poses)
        turned[:, :3] = turn.as_matrix() @ turned[:, :3]
        assert up_direction(turned) @ turn.apply([0.0, 0.0, 1.0]) > np.cos(np.radians(0.1)), "all are level"
        found = upright(model_of(list(turned)))
        axes = np.linalg.norm(found.poses[:, 2, 1] - np.stack(poses)[:, 2, 1])
        assert axes < 1e-3


def test_the_middle_of_the_points_becomes_the_origin_and_nothing_is_bent():
    before = model_of(around())
    after = upright(before)
    assert np.abs(np.median(after.positions, axis=0)).max() < 1e-12
    rotations, places = errors(after.poses, before.poses)
    assert rotations.max() < 1e-5
    assert places.max() < 1e-9


def test_a_distance_between_two_photos_gives_the_scale():
    before = model_of(around())
    after = scaled(before, "photo_00", "photo_06.jpg", 12.0)
    assert np.linalg.norm(after.poses[0, :3, 3] - after.poses[6, :3, 3]) == pytest.approx(12.0)
    ratio = np.linalg.norm(after.positions[0] - after.positions[1]) / np.linalg.norm(
        before.positions[0] - before.positions[1]
    )
    assert ratio == pytest.approx(12.0 / np.linalg.norm(before.poses[0, :3, 3] - before.poses[6, :3, 3]))


def test_a_distance_that_tells_nothing_is_refused():
    model = model_of(around())
    with pytest.raises(CaptureError, match="x has no pose"):
        scaled(model, "x", "photo_00", 1.0)
    with pytest.raises(CaptureError, match="from one place"):
        scaled(model, "photo_00", "photo_00", 1.0)
    with pytest.raises(CaptureError, match="must be positive, got -1"):
        scaled(model, "photo_00", "photo_01", -1.0)


@pytest.mark.parametrize("cameras", [[0] * 12, [0] * 6 + [1] * 6], ids=["one camera", "two cameras"])
def test_the_capture_that_is_written_is_read_with_the_same_poses_and_cameras(tmp_path, cameras):
    poses = around()
    model = model_of(poses, cameras)
    write_photos(tmp_path / "images", poses)
    write_scene(model, {image.name: image for image in images_of(model.names)}, {}, tmp_path)
    capture = load(tmp_path)
    for photo, camera, truth in zip(capture.photos, cameras, poses, strict=True):
        assert np.array_equal(photo.pose, truth)
        assert photo.camera.fx == (380.0, 500.0)[camera]
        assert (photo.camera.fy, photo.camera.cx, dict(photo.camera.distortion)["p2"]) == (381.0, 200.0, 0.001)
    told = json.loads((tmp_path / "transforms.json").read_text())
    assert told["camera_model"] == "OPENCV"
    assert ("fl_x" in told) == (len(set(cameras)) == 1)


def test_points_and_who_sees_them_are_written_in_one_order(tmp_path):
    model = model_of(around())
    write_photos(tmp_path / "images", model.poses)
    write_scene(model, {image.name: image for image in images_of(model.names)}, {}, tmp_path)
    told = json.loads((tmp_path / "transforms.json").read_text())
    cloud = trimesh.load(tmp_path / told["ply_file_path"])
    assert np.array_equal(cloud.vertices, model.positions)
    assert np.array_equal(cloud.colors[:, :3], model.colors)
    with np.load(tmp_path / "observations.npz", allow_pickle=False) as found:
        assert found["images"].tolist() == [frame["file_path"] for frame in told["frames"]]
        assert np.array_equal(found["observations"], model.observations)
        assert found["pixels"].shape == (2, 2)
    points = load(tmp_path).points
    np.testing.assert_array_equal(points.positions, model.positions)
    np.testing.assert_array_equal(points.observations, model.observations)
    del told["frames"][0]
    (tmp_path / "transforms.json").write_text(json.dumps(told))
    fewer = load(tmp_path).points.observations
    kept = model.observations[model.observations[:, 0] > 0]
    np.testing.assert_array_equal(fewer, kept - [1, 0], err_msg="the first photo is not listed any more")


def test_a_model_without_points_can_be_written(tmp_path):
    import dataclasses

    write_photos(tmp_path / "images", around())
    model = dataclasses.replace(
        model_of(around()), positions=np.zeros((0, 3)), colors=np.zeros((0, 3), np.uint8), errors=np.zeros(0)
    )
    write_scene(model, {image.name: image for image in images_of(model.names)}, {}, tmp_path)
    assert load(tmp_path).points is None


def test_masks_are_listed_at_their_frames(tmp_path):
    model = model_of(around())
    images = {image.name: image for image in images_of(model.names)}
    write_scene(model, images, {"photo_03.jpg": True}, tmp_path)
    frames = json.loads((tmp_path / "transforms.json").read_text())["frames"]
    assert [frame.get("mask_path") for frame in frames[2:5]] == [None, "masks/photo_03.jpg.png", None]


def test_the_likely_reason_of_a_missing_pose_is_told():
    names = [f"{number}.jpg" for number in range(8)]
    model = model_of(around(3))
    job = Job(tuple(JobImage(name, 0) for name in names), (JobCamera(400, 300),))
    images = images_of(names)
    images[3] = images_of(["3.jpg"], sharpness=1.0)[0]
    diagnosis = Diagnosis(
        (900, 900, 900, 900, 20, 900, 900, 900), (500, 500, 500, 5, 5, 5, 400, 90), (2,) * 8,
        (0, 0, 0, -1, -1, -1, -1, 1), (), (),
    )  # fmt: skip
    found = missing(job, model_of([*around(3)]), diagnosis, images)
    assert len(found) == 8, "the model's images have other names"
    import dataclasses

    model = dataclasses.replace(model, names=tuple(names[:3]))
    reasons = {photo.name: photo.reason for photo in missing(job, model, diagnosis, images)}
    assert list(reasons) == names[3:]
    for name, word in zip(names[3:], ("blurred", "few details", "alone", "do not fit", "connected"), strict=True):
        assert word in reasons[name]
    said = advice(job, model, diagnosis, images)
    assert any("2.jpg" in sentence for sentence in said), "overlap with the last photo that has a pose"
    assert any("steadier" in sentence for sentence in said)
