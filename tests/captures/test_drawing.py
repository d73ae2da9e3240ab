"""The pictures of a capture show its cameras where they are."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from staf_nerf.captures.capture import SparsePoints
from staf_nerf.captures.drawing import SHOWN_POINTS, draw, frustum, scene_of, write_page
from staf_nerf.captures.load import load
from tests.conftest import write_capture


@pytest.fixture
def photos(tmp_path):
    write_capture(tmp_path, count=5)
    return load(tmp_path).photos


def test_the_corners_of_a_frustum_lie_on_the_rays_through_the_corners_of_the_image(photos):
    corners = frustum(photos[1], 2.0)[1:]
    camera, world_to_camera = photos[1].camera, np.linalg.inv(photos[1].pose)
    for corner, pixel in zip(corners, [(0, 0), (24, 0), (24, 16), (0, 16)], strict=True):
        x, y, z = (world_to_camera @ [*corner, 1.0])[:3]
        assert z == pytest.approx(-2.0)
        seen = camera.cx + camera.fx * x / -z, camera.cy - camera.fy * y / -z
        assert seen == pytest.approx(pixel, abs=1e-9)  # float64


def test_the_world_is_turned_upright(photos):
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # -y becomes z
    points = SparsePoints(np.array([[1.0, -2.0, 3.0]]))
    scene = scene_of(photos, points, center=(0, -1, 0), radius=1, upright=turn)
    np.testing.assert_allclose(scene.points, [[1, 3, 2]])
    np.testing.assert_allclose(scene.center, [0, 0, 1])
    np.testing.assert_allclose(scene.frustums[:, 0], [turn @ photo.pose[:3, 3] for photo in photos])


def test_many_points_are_thinned_evenly_with_their_colours(photos):
    count = 3 * SHOWN_POINTS - 1
    place = np.stack([np.arange(count), np.zeros(count), np.zeros(count)], 1).astype(float)
    colors = np.repeat(np.arange(count)[:, None] % 251, 3, 1).astype(np.uint8)
    scene = scene_of(photos, SparsePoints(place, colors), center=(0, 0, 0), radius=1)
    assert len(scene.points) == len(scene.colors) == SHOWN_POINTS
    np.testing.assert_array_equal(scene.points[:, 0] % 251, scene.colors[:, 0])


def test_a_picture_shows_marked_cameras_in_red_and_others_in_blue(photos, tmp_path):
    scene = scene_of(photos, None, center=(0, 0, 0), radius=1)
    draw(scene, tmp_path / "a.png")
    draw(scene, tmp_path / "b.png", marked=frozenset({"003.png"}))
    plain, marked = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("a.png", "b.png"))

    def red(picture):
        return int(((picture[..., 0] - picture[..., 2]) > 100).sum())

    assert red(plain) == 0
    assert red(marked) > 50  # pixels: one camera is drawn twice, with lines of about a pixel


def test_a_page_holds_all_that_it_shows(photos, tmp_path):
    scene = scene_of(photos, SparsePoints(np.ones((7, 3))), center=(0, 0, 0.5), radius=2)
    write_page(scene, photos, tmp_path / "page.html", title="a <b> & c", marked=frozenset({"001.png"}))
    text = (tmp_path / "page.html").read_text()
    assert "a &lt;b&gt; &amp; c" in text
    assert "{{" not in text
    assert not re.search(r"https?://", text)
    held = json.loads(re.search(r"const scene = (\{.*\});", text)[1])
    np.testing.assert_allclose(np.reshape(held["frustums"], (5, 5, 3)), scene.frustums, atol=1e-4)  # rounded digits
    assert held["marked"] == [False, True, False, False, False]
    assert len(held["thumbnails"]) == 5
    assert len(held["points"]) == 7
