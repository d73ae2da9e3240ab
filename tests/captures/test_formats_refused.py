"""What the readers of other programs' formats refuse: the message names the file, what is wrong, and the remedy."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import load
from tests.captures import written_formats as formats

FILES = {
    "llff": (formats.write_llff, "poses_bounds.npy"),
    "neus": (formats.write_neus, "cameras_sphere.npz"),
    "middlebury": (formats.write_middlebury, "temple_par.txt"),
    "metashape": (formats.write_metashape, "cameras.xml"),
    "realitycapture": (formats.write_realitycapture, "registration.csv"),
    "opensfm": (formats.write_opensfm, "reconstruction.json"),
    "openmvg": (formats.write_openmvg, "sfm_data.json"),
    "bundler": (formats.write_bundler, "bundle/bundle.out"),
    "polycam": (formats.write_polycam, "keyframes/corrected_cameras/1001.json"),
    "record3d": (formats.write_record3d, "metadata.json"),
    "kapture": (formats.write_kapture, "sensors/trajectories.txt"),
}


def refusal(folder) -> str:
    with pytest.raises(CaptureError) as refused:
        load(folder)
    message = str(refused.value)
    assert len(message.splitlines()) <= 3
    return message


@pytest.mark.parametrize("kept", [0.6, 0.9])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_off_is_named(tmp_path, kind, kept):
    write, name = FILES[kind]
    write(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert str(path) in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["llff", "neus", "middlebury", "metashape", "opensfm", "openmvg", "polycam"])
def test_a_git_lfs_pointer_says_how_to_get_the_file(tmp_path, kind):
    write, name = FILES[kind]
    write(tmp_path)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = refusal(tmp_path)
    assert str(tmp_path / name) in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("kind", FILES)
def test_a_capture_of_which_no_image_exists_is_refused(tmp_path, kind):
    write, _ = FILES[kind]
    write(tmp_path)
    images = [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".JPG")]
    for image in images:
        image.unlink()
    assert re.search("exist|there are|contains no capture", refusal(tmp_path))


@pytest.mark.parametrize("kind", ["middlebury", "metashape", "realitycapture", "opensfm", "openmvg", "bundler"])
def test_an_image_that_does_not_exist_is_left_out(tmp_path, kind):
    write, _ = FILES[kind]
    names = list(write(tmp_path))
    (missing,) = tmp_path.rglob(names[0])
    missing.unlink()
    capture = load(tmp_path)
    assert [path.stem for path in capture.dropped] == [missing.stem]
    assert [photo.image.name for photo in capture.photos] == names[1:]


@pytest.mark.parametrize(("kind", "folder"), [("llff", "images"), ("neus", "image")])
def test_images_that_the_poses_are_not_for_are_refused(tmp_path, kind, folder):
    write, name = FILES[kind]
    write(tmp_path)
    formats.write_images(tmp_path / folder, ["another.png"])
    message = refusal(tmp_path)
    assert str(tmp_path / name) in message
    assert "in the order of their names" in message


@pytest.mark.parametrize(
    ("write", "changes", "named"),
    [
        (formats.write_metashape, {"kind": "cylindrical"}, "'cylindrical'"),
        (formats.write_metashape, {"p3": 0.1}, "p3"),
        (formats.write_metashape, {"b2": 2.0}, "sheared by 2"),
        (formats.write_opensfm, {"k4": 0.1}, "'brown' with k4"),
        (formats.write_opensfm, {"kind": "fisheye", "p1": 0.1}, "'fisheye' with p1"),
    ],
)
def test_a_lens_that_nerfstudio_s_cameras_lack_is_named_with_the_remedy(tmp_path, write, changes, named):
    write(tmp_path, **changes)
    message = refusal(tmp_path)
    assert named in message
    assert "Export undistorted images" in message


@pytest.mark.parametrize("write", [formats.write_metashape, formats.write_opensfm, formats.write_openmvg])
def test_a_spherical_image_that_is_cut_is_refused(tmp_path, monkeypatch, write):
    monkeypatch.setattr(formats, "ALL_AROUND", (48, 20))
    write(tmp_path, kind="spherical")
    message = refusal(tmp_path)
    assert "48x20" in message
    assert "twice as wide as high" in message


def test_a_lens_of_another_kind_of_opensfm_is_refused(tmp_path):
    formats.write_opensfm(tmp_path)
    path = tmp_path / "reconstruction.json"
    path.write_text(path.read_text().replace('"brown"', '"dual"'))
    assert "'dual'" in refusal(tmp_path)


def test_a_sheared_camera_of_middlebury_is_refused(tmp_path):
    formats.write_middlebury(tmp_path)
    path = tmp_path / "temple_par.txt"
    path.write_text(path.read_text().replace(f"{formats.FOCAL!r} 0.0 22.3", f"{formats.FOCAL!r} 4.0 22.3"))
    assert f"{path} has a camera whose pixels are sheared by 4" in refusal(tmp_path)


def test_a_camera_of_kapture_that_is_unknown_is_refused(tmp_path):
    formats.write_kapture(tmp_path)
    path = tmp_path / "sensors" / "sensors.txt"
    path.write_text(path.read_text().replace("OPENCV", "UNKNOWN_CAMERA"))
    assert f"{path} has a camera UNKNOWN_CAMERA, 48, 36" in refusal(tmp_path)


def test_a_sheared_projection_is_refused_and_a_rounded_one_is_not(tmp_path):
    matrix = formats.CAMERA_MATRIX.copy()
    matrix[0, 1] = 1e-4
    formats.write_neus(tmp_path / "rounded", matrix=matrix)
    assert len(load(tmp_path / "rounded").photos) == 4
    matrix[0, 1] = 3.0
    formats.write_neus(tmp_path / "sheared", matrix=matrix)
    assert "sheared by 3" in refusal(tmp_path / "sheared")


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("metashape", "transform>", "unknown>"),
        ("bundler", f"{formats.FOCAL!r} 0.1 -0.05", "0 0 0"),
    ],
)
def test_a_file_without_any_pose_is_refused(tmp_path, kind, old, new):
    write, name = FILES[kind]
    write(tmp_path)
    path = tmp_path / name
    path.write_text(path.read_text().replace(old, new))
    assert f"{path} has no image with a pose" in refusal(tmp_path)


def test_openmvg_s_scene_before_the_reconstruction_is_refused(tmp_path):
    formats.write_openmvg(tmp_path)
    path = tmp_path / "sfm_data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extrinsics": []}))
    assert "Export the scene after the reconstruction" in refusal(tmp_path)


def test_openmvg_s_binary_scene_names_the_program_that_converts_it(tmp_path):
    (tmp_path / "sfm_data.bin").write_bytes(b"\0")
    assert "openMVG_main_ConvertSfM_DataFormat" in refusal(tmp_path)


def test_an_opensfm_project_without_aligned_photos_is_refused(tmp_path):
    formats.write_opensfm(tmp_path)
    (tmp_path / "reconstruction.json").write_text("[]")
    assert "no photos were aligned" in refusal(tmp_path)


def test_bundler_s_cameras_without_a_list_of_images_are_refused(tmp_path):
    formats.write_bundler(tmp_path)
    (tmp_path / "list.txt").unlink()
    message = refusal(tmp_path)
    assert "bundle.out has 5 cameras" in message
    assert "Put list.txt there" in message


def test_realitycapture_s_list_without_intrinsics_names_the_right_export(tmp_path):
    formats.write_realitycapture(tmp_path)
    path = tmp_path / "registration.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join(row[:7]) for row in rows))
    message = refusal(tmp_path)
    assert f"{path} has no column f" in message
    assert "Internal/External camera parameters" in message


def test_two_photos_of_one_name_are_refused(tmp_path):
    formats.write_metashape(tmp_path)
    path = tmp_path / "cameras.xml"
    path.write_text(path.read_text().replace('label="001.jpg"', 'label="003.jpg"'))
    assert "lists 003.jpg more than once" in refusal(tmp_path)


@pytest.mark.parametrize("shape", [(4, 12), (17,), (0, 17)])
def test_an_array_of_another_shape_is_not_llff_s(tmp_path, shape):
    formats.write_llff(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.ones(shape))
    assert f"got {shape}" in refusal(tmp_path)
