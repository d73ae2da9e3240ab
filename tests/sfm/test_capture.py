"""`staf capture` from photos to a capture, by the real pycolmap: right, interrupted, refused."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.poses import errors
from staf_nerf.captures.load import load
from staf_nerf.jobs.capture import CapturePhotos
from tests.conftest import ROOT
from tests.sfm.room import FOCAL, SIZE, photo, walk, write_photos

pytest.importorskip("pycolmap")

COUNT = 12
POSES = walk(COUNT)
FAST = ("--features", "800")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300"}


def line(*arguments):
    return [sys.executable, "-m", "staf_nerf", "capture", *map(str, arguments)]


def run(*arguments, cwd=None):
    return subprocess.run(
        line(*arguments), capture_output=True, text=True, timeout=500, check=False, env=ENVIRONMENT, cwd=cwd
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photos of the room, and one of something else."""
    folder = tmp_path_factory.mktemp("photos") / "room"
    write_photos(folder, POSES)
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "photo_99.jpg")
    return folder


@pytest.fixture(scope="module")
def scene(photos, tmp_path_factory):
    """The capture of them, and what was printed."""
    output = tmp_path_factory.mktemp("scene") / "scene"
    names = ("photo_00", "photo_11", str(float(np.linalg.norm(POSES[0][:3, 3] - POSES[11][:3, 3]))))
    result = run(photos, "-o", output, *FAST, "--distance", *names)
    assert result.returncode == 0, result.stderr + result.stdout
    return output, result.stdout


def test_poses_are_those_that_the_photos_were_made_with(scene):
    output, _ = scene
    capture = load(output)
    assert [photo.image.name for photo in capture.photos] == [f"photo_{number:02d}.jpg" for number in range(COUNT)]
    rotations, places = errors(np.stack([photo.pose for photo in capture.photos]), np.stack(POSES))
    assert rotations.max() < 0.2, "one pixel of a view of 380 pixels' focal length, and a third"
    assert places.max() < 0.01, "half a pixel at the corner of the room"


def test_intrinsics_are_those_that_the_photos_were_made_with(scene):
    camera = load(scene[0]).photos[0].camera
    assert camera.fx == pytest.approx(FOCAL, rel=0.01)
    assert (camera.cx, camera.cy) == pytest.approx((SIZE[0] / 2, SIZE[1] / 2), abs=4)


def test_the_world_has_z_up_and_the_scale_of_the_given_distance(scene):
    poses = np.stack([photo.pose for photo in load(scene[0]).photos])
    assert np.degrees(np.arccos((poses[:, 2, 1] / np.stack(POSES)[:, 2, 1]).clip(-1, 1))).max() < 3
    steps, truth = (
        np.linalg.norm(found[1:, :3, 3] - found[:-1, :3, 3], axis=-1).sum() for found in (poses, np.stack(POSES))
    )
    assert steps == pytest.approx(truth, rel=0.01)


def test_points_lie_on_the_walls_and_their_observations_where_they_are_seen(scene):
    import trimesh

    output, _ = scene
    capture = load(output)
    points = np.asarray(trimesh.load(output / "sparse_points.ply").vertices)
    with np.load(output / "observations.npz") as found:
        seen, pixels = found["observations"], found["pixels"]
    assert len(points) > 300
    camera = capture.photos[0].camera
    offsets = []
    for (image, point), pixel in list(zip(seen, pixels, strict=True))[::50]:
        x, y, z, _ = np.linalg.inv(capture.photos[image].pose) @ [*points[point], 1.0]
        offsets.append([camera.cx - camera.fx * x / z, camera.cy + camera.fy * y / z] - pixel)
    assert np.median(np.linalg.norm(offsets, axis=-1)) < 1.5, "pixels; distortion is left out here"


def test_what_was_found_and_what_not_is_told_with_the_reason(scene):
    output, printed = scene
    assert f"{COUNT} of {COUNT + 1} photos have a pose (92 %)" in printed
    assert "without a pose: photo_99.jpg, " in printed
    assert f"ns-train staf-nerf --data {output}" in printed
    told = json.loads((output / "report.json").read_text())
    assert (told["images"], told["registered"], list(told["missing"])) == (COUNT + 1, COUNT, ["photo_99.jpg"])
    assert told["reprojection_error"] < 1


def test_the_folder_holds_the_capture_and_nothing_else(scene):
    names = {path.name for path in scene[0].iterdir()}
    pictures = {"cameras.html", "cameras.png"}
    assert names == {*pictures, "images", "observations.npz", "report.json", "sparse_points.ply", "transforms.json"}


def test_a_capture_is_never_overwritten(scene, photos):
    result = run(photos, "-o", scene[0])
    assert result.returncode == 1
    assert f"{scene[0]} is not empty" in result.stderr


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def with_features(database: Path) -> list[str]:
    """Names of the images whose features are in a database."""
    if not database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            query = "select name from images join descriptors using (image_id)"
            return [name for (name,) in connection.execute(query)]
    except sqlite3.OperationalError:
        return []


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
def test_ctrl_c_ends_all_at_once_and_the_same_command_goes_on(photos, tmp_path):
    output = tmp_path / "scene"
    arguments = (photos, "-o", output, *FAST)
    database = output / ".capture" / "plain.db"
    process = subprocess.Popen(line(*arguments), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for(lambda: len(with_features(database)) >= 2)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Interrupted" in printed
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(output).encode() in _content(path)]
    assert not (output / "transforms.json").exists()
    # Features that were found are used: this image has none any more.
    done = with_features(database)[0]
    Image.new("RGB", SIZE).save(output / ".capture" / "images" / done)
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert "Going on" in result.stdout
    assert done in {photo.image.name for photo in load(output).photos}
    assert not (output / ".capture").exists()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_unfinished_capture_of_other_photos_is_not_mixed_in(photos, tmp_path):
    work = tmp_path / "scene" / ".capture"
    work.mkdir(parents=True)
    (work / "inputs.json").write_text("{}")
    result = run(photos, "-o", tmp_path / "scene")
    assert result.returncode == 1
    assert "holds an unfinished capture of other photos or settings. Remove" in result.stderr


def test_photos_that_show_different_things_are_an_error_that_leaves_nothing_behind(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(2):
        noise = generator.integers(0, 255, (24, 32, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(tmp_path / "photos" / f"{number}.jpg")
    result = run(tmp_path / "photos", "-o", tmp_path / "scene")
    assert result.returncode == 1
    assert "no two of the 2 photos could be connected" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "scene").exists()


def test_masks_that_hide_nearly_everything_are_left_out_and_that_is_said(photos, tmp_path):
    (tmp_path / "photos").mkdir()
    spot = Image.new("L", SIZE)
    spot.paste(255, (0, 0, 8, 8))
    for number in range(4, 9):
        path = tmp_path / "photos" / f"photo_{number:02d}.jpg"
        path.write_bytes((photos / path.name).read_bytes())
        spot.save(path.with_suffix(".mask.png"))
    result = run(tmp_path / "photos", "-o", tmp_path / "scene", *FAST)
    assert result.returncode == 0, result.stderr
    assert "The masks were not used to find the cameras" in result.stdout
    capture = load(tmp_path / "scene")
    assert len(capture.photos) == 5
    assert all(photo.mask is not None and photo.mask.is_file() for photo in capture.photos), "they are kept"


def test_masks_without_any_white_are_refused_before_the_work(photos, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("photo_04.jpg", "photo_05.jpg"):
        (tmp_path / "photos" / name).write_bytes((photos / name).read_bytes())
        Image.new("L", SIZE).save((tmp_path / "photos" / name).with_suffix(".mask.png"))
    result = run(tmp_path / "photos", "-o", tmp_path / "scene", *FAST)
    assert result.returncode != 0
    assert "no mask has a white pixel" in result.stderr
    assert not (tmp_path / "scene").exists()


@pytest.mark.parametrize("matching", ["sequential", "retrieval"])
def test_other_ways_of_choosing_pairs_find_the_same_cameras(photos, tmp_path, matching):
    chosen = [photos / f"photo_{number:02d}.jpg" for number in range(0, COUNT, 2)]
    result = run(*chosen, "-o", tmp_path / "scene", *FAST, "--matching", matching)
    assert result.returncode == 0, result.stderr
    assert len(load(tmp_path / "scene").photos) == 6


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "holds no photos and no video"), (("a.jpg",), r"is 1 photo: at least 2 are needed")],
)
def test_too_few_photos_are_refused_before_anything_is_written(tmp_path, names, message):
    (tmp_path / "photos").mkdir()
    for name in names:
        Image.new("RGB", SIZE).save(tmp_path / "photos" / name)
    result = run(tmp_path / "photos", "-o", tmp_path / "scene")
    assert result.returncode == 1
    assert message in result.stderr
    assert not (tmp_path / "scene").exists()


def test_a_photo_that_cannot_be_read_is_named_and_nothing_is_left_behind(photos, tmp_path):
    (tmp_path / "photos").mkdir()
    data = (photos / "photo_00.jpg").read_bytes()
    (tmp_path / "photos" / "a.jpg").write_bytes(data)
    (tmp_path / "photos" / "b.jpg").write_bytes(data[:2000])
    result = run(tmp_path / "photos", "-o", tmp_path / "scene")
    assert result.returncode == 1
    assert f"{tmp_path / 'photos' / 'b.jpg'} cannot be read" in result.stderr
    assert not (tmp_path / "scene").exists()


def test_a_film_becomes_a_capture_of_frames_that_are_not_blurred(tmp_path):
    import av
    import cv2

    poses = walk(45)
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt, stream.options = 320, 240, "yuv420p", {"crf": "18"}
        for number, camera in enumerate(poses):
            picture = photo(camera, size=(320, 240), focal=300.0)
            picture = cv2.blur(picture, (15, 1)) if number % 3 == 1 else picture
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    result = run(tmp_path / "film.mp4", "-o", tmp_path / "scene", "--frames", 14, *FAST)
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / "scene" / "report.json").read_text())
    assert told["images"] == 14
    assert told["registered"] >= 13, "nine in ten"
    frames = load(tmp_path / "scene").photos
    numbers = [int(frame.image.stem.removeprefix("frame_")) for frame in frames]
    assert not [number for number in numbers if number % 3 == 1]
    rotations, places = errors(np.stack([frame.pose for frame in frames]), np.stack([poses[i] for i in numbers]))
    assert rotations.max() < 0.3, "one pixel and a half: the film is compressed"
    assert places.max() < 0.01


def test_a_distance_between_unknown_photos_is_refused_before_the_work(photos, tmp_path):
    result = run(photos, "-o", tmp_path / "scene", "--distance", "photo_00", "photo_77", 1)
    assert "--distance: there is no photo photo_77; there is, for example, photo_00.jpg" in result.stderr
    assert not (tmp_path / "scene").exists()
    with pytest.raises(ValueError, match="distance must be positive, got 0"):
        CapturePhotos((photos,), distance=("a", "b", 0.0))


def test_a_distance_to_a_photo_without_a_pose_does_not_lose_the_work(photos, tmp_path):
    chosen = [photos / f"photo_{number:02d}.jpg" for number in (*range(3, 8), 99)]
    result = run(*chosen, "-o", tmp_path / "scene", "--distance", "photo_03", "photo_99", 1, *FAST)
    assert result.returncode == 0, result.stderr
    assert "--distance has no effect: photo_99 has no pose" in result.stdout
    assert len(load(tmp_path / "scene").photos) == 5


def test_a_number_of_frames_is_refused_for_photos(photos, tmp_path):
    result = run(photos, "-o", tmp_path / "scene", "--frames", 50)
    assert "--frames has no effect on photos" in result.stderr
    with pytest.raises(ValueError, match="frames must be >= 3, got 1"):
        CapturePhotos((photos,), frames=1)
