"""Photos that are blurred, exposed unlike the others, or the same twice are found, and no others."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.load import load
from staf_nerf.captures.quality import measure_quality, sharpness
from tests.conftest import write_capture

COUNT = 12


@pytest.fixture
def photos(tmp_path):
    """Photos of a textured wall, each of another part of it."""
    write_capture(tmp_path, count=COUNT, size=(160, 120))
    rng = np.random.default_rng(1)
    wall = np.kron(rng.integers(60, 200, (60, 80, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    for i in range(COUNT):
        Image.fromarray(wall[20 * i : 20 * i + 120, 30 * i : 30 * i + 160]).save(tmp_path / "images" / f"{i:03d}.png")
    return tmp_path / "images"


def odd(folder):
    quality = measure_quality(load(folder.parent).photos)
    names = {name: [path.stem for path in getattr(quality, name)] for name in ("blurred", "dark", "bright")}
    return {**names, "same": [(a.stem, b.stem) for a, b in quality.same]}


def change(folder, name, how):
    with Image.open(folder / f"{name}.png") as image:
        changed = how(image)
    changed.save(folder / f"{name}.png")


def test_nothing_is_odd_about_photos_of_one_kind(photos):
    assert odd(photos) == {"blurred": [], "dark": [], "bright": [], "same": []}


def test_a_blurred_photo_is_found(photos):
    change(photos, "004", lambda image: image.filter(ImageFilter.GaussianBlur(4)))
    assert odd(photos) == {"blurred": ["004"], "dark": [], "bright": [], "same": []}


def test_photos_that_are_darker_or_brighter_by_two_stops_are_found(photos):
    change(photos, "002", lambda image: image.point(lambda v: v * 0.25 ** (1 / 2.2)))
    change(photos, "007", lambda image: image.point(lambda v: min(v * 4 ** (1 / 2.2), 255)))
    assert odd(photos) == {"blurred": [], "dark": ["002"], "bright": ["007"], "same": []}


def test_contrast_and_noise_free_brightness_do_not_change_sharpness():
    rng = np.random.default_rng(0)
    image = rng.uniform(50, 200, (64, 64))
    assert sharpness(0.5 * image + 20) == pytest.approx(sharpness(image), rel=1e-9)  # float64, no rounding to bytes


def test_two_photos_of_the_same_from_the_same_place_are_found(tmp_path):
    meta = write_capture(tmp_path, count=6)
    twice = {"file_path": "images/again.png", "transform_matrix": meta["frames"][2]["transform_matrix"]}
    (tmp_path / "images" / "again.png").write_bytes((tmp_path / "images" / "002.png").read_bytes())
    photos = load(tmp_path).photos
    again = [*photos, *load_with(tmp_path, meta, twice)]
    found = measure_quality(again)
    assert [(a.stem, b.stem) for a, b in found.same] == [("002", "again")]


def load_with(folder, meta, frame):
    """The photo of one more frame."""
    import json

    (folder / "transforms.json").write_text(json.dumps({**meta, "frames": [*meta["frames"], frame]}))
    return [photo for photo in load(folder).photos if photo.image.name == "again.png"]


def test_photos_of_the_same_pixels_from_other_places_are_not_the_same(tmp_path):
    write_capture(tmp_path, count=6)
    for i in range(6):  # a turntable in front of a plain wall
        Image.new("RGB", (24, 16), "grey").save(tmp_path / "images" / f"{i:03d}.png")
    assert measure_quality(load(tmp_path).photos).same == ()


def test_an_image_that_vanished_is_named(photos):
    capture = load(photos.parent)
    (photos / "003.png").unlink()
    with pytest.raises(CaptureError, match=r"003\.png"):
        measure_quality(capture.photos)
