"""The reader of COLMAP's models, compared with nerfstudio's, and what it refuses."""

import re
import struct

import numpy as np
import pytest

from staf_nerf.captures import colmap
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
    listing = colmap.read(model, tmp_path)
    config = ColmapDataParserConfig(data=tmp_path, colmap_path=model.relative_to(tmp_path))
    expected = config.setup()._get_all_images_and_cameras(model)
    assert listing.world["camera_model"] == expected["camera_model"]
    np.testing.assert_array_equal(listing.world["applied_transform"], expected["applied_transform"])
    for photo, frame in zip(listing.photos, expected["frames"], strict=True):
        assert str(photo.image) == frame["file_path"]
        np.testing.assert_allclose(photo.pose, frame["transform_matrix"], atol=1e-12)
        for name in ("w", "h", "fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2"):
            assert photo.camera.get(name, 0.0) == frame.get(name, 0.0), name


def test_an_image_s_name_may_have_spaces(tmp_path):
    model = write_model(tmp_path)
    (tmp_path / "images" / "001.png").rename(tmp_path / "images" / "a photo.png")
    images = model / "images.txt"
    images.write_text(images.read_text().replace("001.png", "a photo.png"))
    assert [photo.image.name for photo in load(tmp_path).photos] == ["000.png", "a photo.png", "002.png"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("binary", "spoil", "message"),
    [
        (True, lambda model: truncate(model / "images.bin"), "a file is truncated"),
        (True, lambda model: truncate(model / "cameras.bin"), "a file is truncated"),
        (False, lambda model: (model / "images.txt").unlink(), "No such file or directory"),
        (False, lambda model: (model / "images.txt").write_text("# none\n"), "No images found in the colmap model"),
        (False, lambda model: (model / "images.txt").write_text("1 2 3\n"), "not enough values to unpack"),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("2 PINHOLE 24 16 20 21 12 8\n"),
            "an image's camera 1 is not listed",
        ),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("1 FOV 24 16 20 21 12 8 1\n"),
            "FOV camera model is not supported yet!",
        ),
        (
            False,
            lambda model: (model / "cameras.txt").write_text("1 PINHOLE 24 16 20 21 12\n"),
            "a camera of model PINHOLE has 4 parameters, got 3",
        ),
    ],
)
def test_a_damaged_model_is_named_with_the_reason(tmp_path, binary, spoil, message):
    model = write_model(tmp_path, binary=binary)
    spoil(model)
    with pytest.raises(CaptureError, match=f"{re.escape(str(model))} is not a usable COLMAP model: .*{message}"):
        load(tmp_path)


def test_two_kinds_of_lenses_are_refused(tmp_path):
    model = write_model(tmp_path)
    fisheye = " ".join(map(str, CAMERAS["OPENCV_FISHEYE"]))
    with (model / "cameras.txt").open("a") as file:
        file.write(f"2 OPENCV_FISHEYE 24 16 {fisheye}\n")
    images = model / "images.txt"
    images.write_text(images.read_text().replace(" 1 000.png", " 2 000.png"))
    with pytest.raises(CaptureError, match="Multiple camera models are not supported"):
        load(tmp_path)
