"""Pages in a real browser: their pixels against torch's."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch

from staf_nerf.export.network import network_of
from staf_nerf.export.page import image_page, largest_difference, rounded, shape_page
from staf_nerf.mesh.extract import distance_bound
from staf_nerf.signals.raster import render
from staf_nerf.tasks.shape import CUBE
from tests.browser import wait_for
from tests.export.conftest import KINDS, image, shape, staf

WIDTH, HEIGHT = 90, 60


def shown(browser, page: str, folder, *, width: int = WIDTH, height: int = HEIGHT, start: str = "") -> None:
    """Opens a page in a window of that size and waits until it is started, its controls out of the picture."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    browser.resize(width, height)
    browser.open(path.as_uri())
    wait_for(
        lambda: browser.run("Boolean(window.staf && staf.view)"), 60, lambda: browser.run("document.body.innerText")
    )
    browser.run(
        f"document.querySelectorAll('.note, #bar, #help').forEach((e) => {{ e.style.display = 'none'; }}); {start}"
    )


def page_of(checkpoint, **options) -> str:
    field, config = checkpoint.field, checkpoint.config
    if config.task == "shape":
        return shape_page(network_of(field), field, distance_bound(field, CUBE, "cpu"), "a potato", **options)
    return image_page(network_of(field), field, checkpoint.frame, checkpoint.file, **options)


def evaluated(browser, x: np.ndarray, *, slopes: bool = False) -> np.ndarray:
    """What the page's shaders compute at points."""
    numbers = json.dumps(x.astype(np.float32).ravel().tolist())
    found = browser.run(
        f"staf.evaluator.evaluate(Float32Array.from({numbers}), {json.dumps(slopes)}).then((v) => Array.from(v))"
    )
    return np.array(found, np.float32).reshape(len(x), -1)


def assert_same_bytes(found: np.ndarray, exact: np.ndarray) -> None:
    """float32 in another order moves a value by 1e-5 of the range: now and then across the middle between two bytes."""
    difference = np.abs(found.astype(int) - exact.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_shaders_compute_what_the_field_computes(browser, kind, points, tmp_path):
    checkpoint = image(kind)
    shown(browser, page_of(checkpoint), tmp_path, width=8, height=8)
    with torch.no_grad():
        exact = checkpoint.field(points).numpy()
    assert evaluated(browser, points.numpy())[:, :3] == pytest.approx(exact, abs=2e-4)  # as in `TOLERANCE`
    assert browser.run("document.getElementById('warning').textContent") == ""
    assert 0 < browser.run("staf.difference") < 2e-4


@pytest.mark.parametrize("kind", ["staf", "staf with skips", "finer", "gaussian", "sinc", "relu of octaves"])
def test_derivatives_are_those_of_autograd(browser, kind, tmp_path):
    field = shape(kind).field
    x = 2 * torch.rand(31, 3, generator=torch.Generator().manual_seed(0)) - 1
    shown(browser, page_of(shape(kind)), tmp_path, width=8, height=8)
    found = evaluated(browser, x.numpy(), slopes=True)
    x.requires_grad_()
    values = field(x)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    assert found[:, :1] == pytest.approx(values.detach().numpy(), abs=2e-5)
    assert found[:, 4::4] == pytest.approx(gradient.numpy(), abs=2e-3)  # frequencies of about 10 on the values' 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "staf with skips", "align_corners": True, "value_min": 0.0, "dtype": "uint16", "high": 65535.0},
        {"channels": 1},
    ],
    ids=["rgb", "corners, 16 bits", "grey"],
)
def test_the_pixels_are_those_that_are_written(browser, options, tmp_path):
    checkpoint = image(**options)
    shown(browser, page_of(checkpoint), tmp_path)
    browser.run("staf.settled()")
    exact = render(checkpoint.field, checkpoint.frame).astype(np.float64) / checkpoint.frame.high
    exact = np.broadcast_to((255 * exact).round(), (HEIGHT, WIDTH, 3))
    assert exact.min() == 0  # clipping is seen
    assert_same_bytes(browser.picture(), exact)


def test_floats_are_shown_up_to_their_99th_percentile_as_in_fits(browser, tmp_path):
    checkpoint = image(dtype="float32", high=7.0)
    shown(browser, page_of(checkpoint), tmp_path)
    browser.run("staf.settled()")
    exact = render(checkpoint.field, checkpoint.frame)
    exact = (exact / np.quantile(exact, 0.99)).clip(0, 1) ** (1 / 2.2)
    assert np.abs(browser.picture() - 255 * exact).max() <= 1.0


def test_transparency_lies_on_a_board(browser, tmp_path):
    checkpoint = image(channels=4)
    shown(browser, page_of(checkpoint), tmp_path)
    browser.run("staf.settled()")
    exact = render(checkpoint.field, checkpoint.frame)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    board = np.where((rows // 8 + columns // 8) % 2, 204, 153)[..., None]
    alpha = exact[..., 3:] / 255
    assert np.abs(browser.picture() - (alpha * exact[..., :3] + (1 - alpha) * board)).max() <= 2.0  # rounded thrice


def test_magnified_pixels_are_the_network_asked_between_the_images_own(browser, tmp_path):
    checkpoint = image()
    shown(browser, page_of(checkpoint), tmp_path)
    browser.run("staf.view.look({x: 31.25, y: 17.5, zoom: 37.5}); staf.settled()")
    browser.run("staf.settled()")
    rows, columns = (np.arange(size) + 0.5 for size in (HEIGHT, WIDTH))
    places = np.meshgrid((rows - HEIGHT / 2) / 37.5 + 17.5, (columns - WIDTH / 2) / 37.5 + 31.25, indexing="ij")
    x = checkpoint.frame.coordinates(*(torch.from_numpy(p) for p in places)).float()
    with torch.no_grad():
        exact = checkpoint.frame.denormalize(checkpoint.field(x)).round().numpy()
    assert np.ptp(exact) > 50
    assert_same_bytes(browser.picture(), exact)
    assert browser.run("staf.view.readout()[0]") == "38×"


def test_mouse_wheel_touch_and_keys_move_the_picture(browser, tmp_path):
    shown(browser, page_of(image()), tmp_path)

    def view():
        return json.loads(browser.run("JSON.stringify(staf.view.view)"))

    def mouse(kind, x, y, **more):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    home = view()
    assert home == {"x": 45, "y": 30, "zoom": 1}
    mouse("mouseWheel", 30, 20, deltaX=0, deltaY=-200)
    near = wait_for(lambda: view()["zoom"] > 1 and view(), 10)
    # What lies under the pointer stays there.
    assert near["x"] + (30 - 45) / near["zoom"] == pytest.approx(30)
    assert near["y"] + (20 - 30) / near["zoom"] == pytest.approx(20)
    mouse("mousePressed", 40, 30, button="left", buttons=1, clickCount=1)
    mouse("mouseMoved", 50, 25, button="left", buttons=1)
    mouse("mouseReleased", 50, 25, button="left")
    moved = wait_for(lambda: view() != near and view(), 10)
    assert moved["x"] == pytest.approx(near["x"] - 10 / near["zoom"])
    assert moved["y"] == pytest.approx(near["y"] + 5 / near["zoom"])
    fingers = [{"x": 20, "y": 30, "id": 1}, {"x": 40, "y": 30, "id": 2}]
    browser.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=fingers)
    browser.ask("Input.dispatchTouchEvent", type="touchMove", touchPoints=[fingers[0], {"x": 60, "y": 30, "id": 2}])
    browser.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    wait_for(lambda: view()["zoom"] == pytest.approx(2 * moved["zoom"]), 10)
    browser.ask("Input.dispatchKeyEvent", type="keyDown", key="0")
    wait_for(lambda: view() == home, 10)


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_surface_is_where_rays_meet_the_zero_of_the_field(browser, up, tmp_path):
    field = shape().field
    width, height = 64, 48
    shown(browser, page_of(shape(), up=up), tmp_path, width=width, height=height, start="staf.view.once = true")
    browser.run("staf.settled()")
    browser.run("staf.view.key('n'); staf.settled()")
    found = np.array(browser.run("Array.from(staf.view.found)"), np.float64).reshape(height, width, 4)
    view = json.loads(browser.run("JSON.stringify(staf.view.view)"))
    eye, along = rays(view, width, height, up)
    distance, normal = traced(field, eye, along)
    met, hit = np.isfinite(distance), found[..., 3] > 0
    assert 0.1 < met.mean() < 0.9
    assert (met != hit).mean() < 0.005  # a silhouette's pixel, decided by less than a hundredth of it
    both = met & hit
    error = np.abs(found[..., 3] - distance)[both]
    assert np.median(error) < 1e-4  # a Newton step from within a tenth of a pixel, which is 0.06 here
    assert error.max() < 0.03  # at grazing incidence
    agreement = (found[..., :3] * normal).sum(-1)[both]
    assert agreement.min() > 0.99
    assert np.median(agreement) > 0.99999
    # The screen shows those normals as colours, and nothing else.
    colors = np.where(hit[..., None], 255 * (0.5 + 0.5 * found[..., :3]), 0.0)
    assert np.abs(browser.picture() - colors).max() <= 1.0


def rays(view: dict, width: int, height: int, up: str) -> tuple[np.ndarray, np.ndarray]:
    """The camera (3,) and unit directions (height, width, 3), from the meaning of the view's numbers."""
    a, e = view["azimuth"], view["elevation"]
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    if up == "z":
        back = np.array([back[0], -back[2], back[1]])
    right = np.cross([0.0, 0.0, 1.0] if up == "z" else [0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    upwards = np.cross(back, right)
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y = ((columns - width / 2), (height / 2 - rows))
    scale = np.tan(0.3) / (min(width, height) / 2)
    along = scale * (x[..., None] * right + y[..., None] * upwards) - back
    return np.array(view["target"]) + view["distance"] * back, along / np.linalg.norm(along, axis=-1, keepdims=True)


def traced(field, eye: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each ray first enters the surface, inf where it does not, and the normal there: 300 places, halving."""
    field, shape_ = field.double(), along.shape[:2]

    def values(t):
        with torch.no_grad():
            return field(torch.from_numpy(eye + t[..., None] * along)).numpy()[..., 0]

    far, step = np.linalg.norm(eye), 0.006
    first = np.full(shape_, np.inf)
    for t in np.arange(far - 0.9, far + 0.9, step):
        new = np.isinf(first) & (values(np.full(shape_, t)) < 0)
        first[new] = t
    low, high = np.where(np.isinf(first), 0.0, first - step), np.where(np.isinf(first), 0.0, first)
    for _ in range(30):
        middle = (low + high) / 2
        inside = values(middle) < 0
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    x = torch.from_numpy(eye + high[..., None] * along).requires_grad_()
    (normal,) = torch.autograd.grad(field(x).sum(), x)
    return np.where(np.isinf(first), np.inf, high), (normal / normal.norm(dim=-1, keepdim=True)).numpy()


def test_the_camera_turns_and_comes_nearer(browser, tmp_path):
    shown(browser, page_of(shape()), tmp_path, width=32, height=24)
    browser.run("staf.view.once = true; staf.settled()")
    before = json.loads(browser.run("JSON.stringify(staf.view.view)"))
    browser.ask("Input.dispatchMouseEvent", type="mousePressed", x=16, y=12, button="left", buttons=1, clickCount=1)
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=20, y=14, button="left", buttons=1)
    assert browser.run("staf.view.moving")  # the grid is shown while a hand holds it
    browser.ask("Input.dispatchMouseEvent", type="mouseReleased", x=20, y=14, button="left")
    browser.ask("Input.dispatchMouseEvent", type="mouseWheel", x=16, y=12, deltaX=0, deltaY=-100)
    after = wait_for(
        lambda: (v := json.loads(browser.run("JSON.stringify(staf.view.view)")))["distance"] < before["distance"] and v,
        10,
    )
    assert after["azimuth"] < before["azimuth"]
    assert after["elevation"] > before["elevation"]
    browser.run("staf.settled()")
    assert not browser.run("staf.view.moving")


@pytest.mark.parametrize("kind", ["image", "shape"])
def test_a_lost_context_comes_back_with_the_same_picture(browser, kind, tmp_path):
    shown(browser, page_of(image() if kind == "image" else shape()), tmp_path, width=40, height=30)
    browser.run("staf.view.once = true; staf.settled()")
    browser.run("staf.view.zoom(1.5, 10, 10); staf.settled()")
    before = browser.picture()
    browser.run("window.extension = staf.gl.getExtension('WEBGL_lose_context'); extension.loseContext()")
    wait_for(lambda: "Waiting" in browser.run("document.getElementById('message').textContent"), 10)
    browser.run("extension.restoreContext()")
    wait_for(lambda: browser.run("Boolean(staf.view && (staf.view.once = true))"), 20)
    browser.run("staf.settled()")
    assert np.abs(browser.picture().astype(int) - before).max() <= 1
    assert browser.run("document.getElementById('message').textContent") == ""


def test_half_precision_says_by_how_much_it_is_off(browser, points, tmp_path):
    network = network_of(image().field)
    page = page_of(image(), precision="float16")
    most, mean = largest_difference(network, rounded(network))
    assert 0 < mean < most < 0.1
    assert f"an RMS error of {mean:.1e} and an error of at most {most:.1e}" in page
    shown(browser, page, tmp_path, width=8, height=8)
    exact = rounded(network).values(points.numpy())
    assert evaluated(browser, points.numpy())[:, :3] == pytest.approx(exact, abs=2e-4)
    assert browser.run("document.getElementById('warning').textContent") == ""


def test_a_device_that_computes_something_else_is_told_of(browser, tmp_path):
    page = re.sub(r'("values": \[)[-0-9.e]+', r"\g<1>9.5", page_of(image()), count=1)
    shown(browser, page, tmp_path, width=8, height=8)
    assert "computes other values than torch" in browser.run("document.getElementById('warning').textContent")


def test_the_page_is_one_file_that_asks_for_nothing_and_holds_any_title(browser, tmp_path):
    page = page_of(image())
    assert "http" not in page.replace("http-equiv", "")
    assert not re.search(r"\{\{\w+\}\}", page)
    shown(browser, page, tmp_path)
    assert browser.run("document.title") == "kitten & <i>co</i>.png"
    assert browser.run("document.querySelector('h1').textContent") == "kitten & <i>co</i>.png"
    loaded = browser.run("performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_weights_are_kept_to_the_bit():
    import zlib

    network = network_of(image().field)
    page = page_of(image())
    packed = base64.b64decode(re.search(r'id="network">([^<]+)<', page)[1])  # pyright: ignore[reportOptionalSubscript]
    about = json.loads(re.search(r'id="facts">(.+?)</script>', page)[1])  # pyright: ignore[reportOptionalSubscript]
    raw, count = np.frombuffer(zlib.decompress(packed), np.uint8), about["numbers"]["full"]
    stored = np.ascontiguousarray(raw[: 4 * count].reshape(4, count).T).view("<f4")[:, 0]
    assert np.array_equal(stored, np.concatenate([layer.weight.ravel() for layer in network.layers]))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (image({"hidden_features": 1200, "hidden_layers": 1}), "at most 1,024 neurons in a layer, got 1,200"),
        (image({"hidden_features": 800, "hidden_layers": 3}), "at most 1,048,576 parameters, got 1,28"),
        (image({"hidden_features": 4, "hidden_layers": 40}), "at most 32 layers, got 41"),
        (image({"hidden_features": 4, "activation": staf(num_frequencies=300)}), "at most 256 sinusoids, got 300"),
        (image(channels=5), "1 to 4 channels, got 2 and 5"),
    ],
)
def test_what_is_too_large_for_a_page_is_refused_with_a_reason(checkpoint, message):
    with pytest.raises(ValueError, match=message):
        page_of(checkpoint)


def test_bad_options_are_refused():
    field, network = shape().field, network_of(shape().field)
    with pytest.raises(ValueError, match="bound must be positive and finite, got inf"):
        shape_page(network, field, float("inf"), "potato")
    with pytest.raises(ValueError, match="a signed distance needs 3 coordinates and 1 value, got 2 and 3"):
        shape_page(network_of(image().field), image().field, 1.0, "potato")
    with pytest.raises(ValueError, match="precision must be 'float32' or 'float16', got 'float8'"):
        shape_page(network, field, 1.0, "potato", precision="float8")  # pyright: ignore[reportArgumentType]
