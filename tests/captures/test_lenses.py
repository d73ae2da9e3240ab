"""Cameras by their many spellings. What a model means is compared with OpenCV's projections."""

import importlib.util
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.lenses import MODELS, camera_of, fits, lens_of

SIZE = (64, 48)
PLAIN = {"fl_x": 60.0, "fl_y": 50.0, "cx": 33.0, "cy": 22.0}
POINTS = np.array([[0.3, -0.2, 1.0], [-0.4, 0.1, 1.2], [0.05, 0.35, 0.9], [0.0, 0.0, 2.0]])
"""In OpenCV's axes: x right, y down, z forward."""


def read(size=SIZE, **listed):
    return camera_of(listed, size, "1.png (listed in a.json)")


def pixels(camera):
    """Where our camera sees the points: the projection of this package's conventions, point by point."""
    k1, k2, k3, k4, p1, p2 = (camera.distortion.get(name, 0.0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    seen = []
    for x, y, z in POINTS.tolist():
        if camera.lens == "equirectangular":
            across, down = math.atan2(x, z) / math.pi, math.atan2(y, math.hypot(x, z)) / math.pi
            seen.append((camera.cx + camera.fx * across, camera.cy + camera.fy * down))
            continue
        u, v = x / z, y / z
        if camera.lens == "fisheye" and (radius := math.hypot(u, v)) > 0:
            u, v = u / radius * math.atan(radius), v / radius * math.atan(radius)
        r = u * u + v * v
        radial = 1 + k1 * r + k2 * r**2 + k3 * r**3 + k4 * r**4
        u, v = (
            u * radial + 2 * p1 * u * v + p2 * (r + 2 * u * u),
            v * radial + 2 * p2 * u * v + p1 * (r + 2 * v * v),
        )
        seen.append((camera.fx * u + camera.cx, camera.fy * v + camera.cy))
    return np.array(seen)


def by_opencv(distortion, *, fisheye=False):
    """Where OpenCV sees them. `distortion` is in its order: k1 k2 p1 p2 k3, or of the fisheye model k1 k2 k3 k4."""
    cv2 = pytest.importorskip("cv2")
    matrix = np.array([[60.0, 0, 33.0], [0, 50.0, 22.0], [0, 0, 1]])
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    order = (POINTS[:, None], np.zeros(3), np.zeros(3), matrix, np.array(distortion))
    return project(*order)[0][:, 0]


@pytest.mark.parametrize("name", [None, "OPENCV", "opencv", "Perspective", "RADIAL", "pinhole", "FULL_OPENCV"])
def test_perspective_models_project_as_opencv_does(name):
    camera = read(**PLAIN, camera_model=name, k1=0.1, k2=-0.05, k3=0.02, p1=0.01, p2=-0.02)
    np.testing.assert_allclose(pixels(camera), by_opencv([0.1, -0.05, 0.01, -0.02, 0.02]), atol=1e-9)


@pytest.mark.parametrize(
    "spelling",
    [
        {"camera_model": "OPENCV_FISHEYE"},
        {"camera_model": "opencv-fisheye"},
        {"camera_model": "fisheye"},
        {"camera_model": "THIN_PRISM_FISHEYE", "sx1": 0},
        {"camera_model": "RAD_TAN_THIN_PRISM_FISHEYE"},
        {"is_fisheye": True},
        {"is_fisheye": "true", "camera_model": "OPENCV_FISHEYE"},
        {"is_fisheye": 1},
    ],
)
def test_fisheye_models_project_as_opencv_s_does(spelling):
    camera = read(**PLAIN, **spelling, k1=0.1, k2=-0.05, k3=0.02, k4=0.01)
    np.testing.assert_allclose(pixels(camera), by_opencv([0.1, -0.05, 0.02, 0.01], fisheye=True), atol=1e-9)


def random_parameters(name):
    """Parameters of a model of COLMAP, in its order. Those that must be 0 are."""
    rng, values = np.random.default_rng(0), {"f": 60.0, **PLAIN, "w": SIZE[0], "h": SIZE[1]}
    zero = dict.fromkeys(MODELS[name].zero, 0.0)
    return {key: {**values, **zero}.get(key, rng.uniform(-0.05, 0.05)) for key in MODELS[name].parameters}


COLMAP = """
import json, sys, pycolmap
size, points, models = json.load(sys.stdin)
cameras = {name: pycolmap.Camera(model=name, width=size[0], height=size[1], params=v) for name, v in models.items()}
seen = {name: [camera.img_from_cam(point).tolist() for point in points] for name, camera in cameras.items()}
numbers = {name: int(model.value) for name, model in pycolmap.CameraModelId.__members__.items() if name != "INVALID"}
print(json.dumps([seen, numbers]))
"""


@pytest.fixture(scope="module")
def colmap():
    """Where COLMAP's models see the points, and their numbers. In a process of its own: pycolmap brings its own zlib,
    with which Pillow then crashes."""
    if importlib.util.find_spec("pycolmap") is None:
        pytest.skip("needs pycolmap")
    models = {name: list(random_parameters(name).values()) for name, model in MODELS.items() if model.lens is not None}
    given = json.dumps([SIZE, POINTS.tolist(), models])
    return json.loads(
        subprocess.run([sys.executable, "-c", COLMAP], input=given, text=True, capture_output=True, check=True).stdout
    )


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.lens is not None])
def test_each_model_of_colmap_projects_as_colmap_does(colmap, name):
    parameters = random_parameters(name)
    if "f" in parameters:
        parameters["fl_x"] = parameters["fl_y"] = parameters.pop("f")
    ours = read(camera_model=name, **{"w": SIZE[0], "h": SIZE[1], **parameters})
    np.testing.assert_allclose(pixels(ours), colmap[0][name], atol=1e-9)  # rounding in float64


def test_the_table_has_all_models_of_colmap(colmap):
    assert {name: model.number for name, model in MODELS.items()} == colmap[1]


@pytest.mark.parametrize(
    "spelling", [{"camera_model": "EQUIRECTANGULAR"}, {"camera_model": "Spherical"}, {"latlong": True}]
)
def test_an_equirectangular_image_needs_no_focal_length(spelling):
    camera = read(size=(96, 48), **spelling)
    assert (camera.lens, camera.distortion) == ("equirectangular", {})
    # nerfstudio: (x - cx) / fx goes from -1 to 1 for 360 degrees, (y - cy) / fy from -1/2 to 1/2 for 180 degrees.
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (48, 48, 48, 24)


def test_rays_of_every_lens_are_those_of_nerfstudio_s_cameras():
    """The pixels where our projection sees points are those whose rays go to the points."""
    cameras = pytest.importorskip("nerfstudio.cameras.cameras")
    import torch

    for listed in (
        {**PLAIN, "k1": 0.05, "k2": -0.02, "p1": 0.01, "p2": -0.01},
        {**PLAIN, "is_fisheye": True, "k1": 0.05, "k2": -0.02, "k3": 0.01},
        {"camera_model": "EQUIRECTANGULAR"},
    ):
        camera = read(**listed)
        theirs = cameras.Cameras(
            camera_to_worlds=torch.eye(4)[None, :3],
            **{name: torch.tensor([[getattr(camera, name)]]) for name in ("fx", "fy", "cx", "cy")},
            width=SIZE[0],
            height=SIZE[1],
            distortion_params=torch.tensor(
                [[camera.distortion.get(n, 0.0) for n in ("k1", "k2", "k3", "k4", "p1", "p2")]]
            ),
            camera_type=getattr(cameras.CameraType, camera.lens.upper()),
        )
        coords = torch.tensor(pixels(camera)[:, ::-1].copy(), dtype=torch.float32)
        directions = theirs.generate_rays(camera_indices=0, coords=coords).directions.double().numpy()
        expected = POINTS * [1, -1, -1] / np.linalg.norm(POINTS, axis=-1, keepdims=True)
        for direction, toward in itertools.islice(zip(directions, expected, strict=True), 3):  # not along the axis
            np.testing.assert_allclose(direction, toward, atol=2e-5)  # float32, and Newton's iteration in it


def test_numbers_may_be_text_and_null_means_absent():
    camera = read(fl_x="60.0", fl_y=None, cx=" 33 ", cy="22", w="64.0", h="48", k1=None, k2="0.5")
    assert (camera.fx, camera.fy, camera.cx, camera.cy, camera.distortion) == (60.0, 60.0, 33.0, 22.0, {"k2": 0.5})


def test_a_list_of_distortion_is_in_nerfstudio_s_order():
    camera = read(**PLAIN, distortion_params=[1, 2, "3", 4, 5, 6])
    assert camera.distortion == {"k1": 1, "k2": 2, "k3": 3, "k4": 4, "p1": 5, "p2": 6}


def test_fields_of_view_are_radians_as_camera_angle_and_degrees_as_fov():
    expected = 32 / math.tan(0.35)
    assert read(camera_angle_x=0.7).fx == pytest.approx(expected)
    assert read(camera_angle_x="0.7", camera_angle_y=0.5).fy == pytest.approx(24 / math.tan(0.25))
    assert read(x_fov=math.degrees(0.7)).fy == pytest.approx(expected)


def test_intrinsics_of_another_size_are_scaled_exactly():
    camera = read(size=(32, 12), **PLAIN, w=128, h=48, k1=0.1)
    assert (camera.width, camera.height) == (32, 12)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (15.0, 12.5, 8.25, 5.5)
    assert camera.distortion == {"k1": 0.1}  # of normalised coordinates


def test_each_axis_is_scaled_by_its_own_ratio_where_sides_were_rounded():
    camera = read(size=(50, 37), fl_x=101.0, fl_y=150.0, cx=50.5, cy=30.0, w=101, h=75)
    assert (camera.fx, camera.fy) == pytest.approx((50.0, 74.0))
    assert (camera.cx, camera.cy) == pytest.approx((25.0, 14.8))


@pytest.mark.parametrize(
    ("listed", "actual", "same"),
    [
        ((64, 48), (64, 48), True),
        ((64, 48), (32, 24), True),
        ((4946, 3286), (1237, 822), True),  # a quarter, rounded
        ((4946, 3286), (1236, 821), True),  # a quarter, rounded down
        ((100, 75), (200, 150), True),
        ((64, 48), (48, 64), False),
        ((64, 48), (63, 48), False),
        ((64, 48), (32, 20), False),
        ((24, 16), (30, 16), False),
    ],
)
def test_an_image_fits_a_size_if_it_is_a_copy_in_that_shape(listed, actual, same):
    assert fits(listed, actual) is same


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({}, "no intrinsics for 1.png .* fl_x or camera_angle_x is needed"),
        ({"fl_x": "wide"}, r"fl_x of 1.png \(listed in a.json\) must be a finite number, got 'wide'"),
        ({"fl_x": 0}, "fl_x of .* must be positive, got 0"),
        ({"fl_x": math.nan}, "fl_x of .* must be a finite number, got nan"),
        ({"fl_x": True}, "fl_x of .* must be a finite number, got True"),
        ({**PLAIN, "k1": [0.1]}, r"k1 of .* must be a finite number, got \[0.1\]"),
        ({**PLAIN, "cx": math.inf}, "cx of .* must be a finite number, got inf"),
        ({**PLAIN, "w": 63.5, "h": 48}, "w of .* must be a whole number of pixels, got 63.5"),
        ({**PLAIN, "cx": 640}, "cx, cy of .* lie outside of its 64x48 pixels, got 640, 22"),
        ({"camera_angle_x": 40}, "camera_angle_x of .* must be an angle in radians below 3.142, got 40"),
        ({**PLAIN, "k5": 0.1}, "k5 of .* is 0.1: the lens may have no distortion beyond"),
        ({**PLAIN, "camera_model": "FULL_OPENCV", "k4": 0.1}, "k4 of .* is 0.1: .*\n.*image_undistorter"),
        ({**PLAIN, "camera_model": "THIN_PRISM_FISHEYE", "sx1": "1e-3"}, "sx1 of .* is 1e-3: "),
        (
            {**PLAIN, "camera_model": "FOV"},
            "the camera model 'FOV' .* cannot be trained with. These can: SIMPLE_PINHOLE,",
        ),
        ({**PLAIN, "camera_model": "FISHEYE624"}, "the camera model 'FISHEYE624' .* cannot be trained with"),
        ({**PLAIN, "camera_model": 1}, "the camera model 1 .* cannot be trained with"),
        ({**PLAIN, "camera_model": "OPENCV", "is_fisheye": True}, "camera_model 'OPENCV' .* contradicts 'is_fisheye'"),
        (
            {**PLAIN, "distortion_params": [1, 2, 3, 4]},
            "distortion_params of .* must be six numbers, k1 k2 k3 k4 p1 p2",
        ),
        ({**PLAIN, "distortion_params": [1, 2, 3, 4, 5, None]}, "p2 in distortion_params of .* got None"),
    ],
)
def test_a_camera_that_cannot_be_used_is_refused_by_name(listed, message):
    with pytest.raises(CaptureError, match=message):
        read(**listed)


def test_a_flag_that_is_off_changes_nothing():
    assert lens_of({"is_fisheye": False, "latlong": "false"}, "1.png") == "perspective"
