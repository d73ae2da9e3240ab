"""Readers of other programs' formats, against the projections that the programs document."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from staf_nerf.captures.capture import ListedPhoto, Listing
from staf_nerf.captures.load import READERS, load
from staf_nerf.captures.prepare import prepare
from tests.captures import written_formats as formats
from tests.captures.written_formats import COLORS, HEIGHT, POINTS, WIDTH

EXACT = 1e-6
"""Tolerance in pixels. Files have all digits; what remains is the rounding of float64."""

CASES: dict[str, Any] = {
    "llff": formats.write_llff,
    "llff, images of a quarter": partial(formats.write_llff, reduced=4),
    "neus": formats.write_neus,
    "middlebury": formats.write_middlebury,
    "metashape": formats.write_metashape,
    "metashape, no component's transform": partial(formats.write_metashape, placed=False),
    "metashape, geocentric": partial(formats.write_metashape, origin=(3.9e6, 4.0e5, 5.0e6)),
    "metashape, fisheye": partial(formats.write_metashape, kind="fisheye"),
    "metashape, spherical": partial(formats.write_metashape, kind="spherical"),
    "realitycapture": formats.write_realitycapture,
    **{f"opensfm, {kind}": partial(formats.write_opensfm, kind=kind) for kind in formats.OPENSFM},
    **{f"openmvg, {kind}": partial(formats.write_openmvg, kind=kind) for kind in (*formats.OPENMVG, "spherical")},
    "bundler": formats.write_bundler,
    "polycam": formats.write_polycam,
    "polycam, not corrected": partial(formats.write_polycam, prefix=""),
    "record3d": formats.write_record3d,
    "record3d, each image its own lens": partial(formats.write_record3d, each=True),
    **{f"kapture, {model}": partial(formats.write_kapture, model=model) for model in formats.KAPTURE},
}


def listing_of(case: str, folder) -> Listing:
    kind = case.split(",")[0]
    reader = READERS[kind]  # type: ignore[index]
    source = reader.find(folder)
    assert source is not None
    return reader.read(source, folder)


def project(photo: ListedPhoto, points: np.ndarray) -> np.ndarray:
    """Pixels of points by a photo as it is listed: the lens models of nerfstudio's cameras, forwards."""
    camera, pose = dict(photo.camera), np.asarray(photo.pose)
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    if camera["camera_model"] == "EQUIRECTANGULAR":
        around, down = np.arctan2(x, -z), np.arccos(y / np.sqrt(x * x + y * y + z * z))
        return np.stack([(0.5 + around / (2 * np.pi)) * camera["w"], down / np.pi * camera["h"]], -1)
    assert (z < 0).all()
    x, y = x / -z, y / z
    if "FISHEYE" in camera["camera_model"]:
        r = np.hypot(x, y)
        x, y = x * np.arctan(r) / r, y * np.arctan(r) / r
    k1, k2, k3, k4, p1, p2 = (camera.get(name, 0.0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    r = x * x + y * y
    d = 1.0 + r * (k1 + r * (k2 + r * (k3 + r * k4)))
    u = d * x + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = d * y + 2 * p2 * x * y + p1 * (r + 2 * y * y)
    width, height = camera.get("w", WIDTH), camera.get("h", HEIGHT)
    center = camera.get("cx", width / 2), camera.get("cy", height / 2)
    return np.stack([u * camera["fl_x"] + center[0], v * camera["fl_y"] + center[1]], -1)


@pytest.mark.parametrize("case", CASES)
def test_points_fall_on_the_pixels_that_the_program_s_own_formula_gives(tmp_path, case):
    projections = CASES[case](tmp_path)
    listing = listing_of(case, tmp_path)
    assert [photo.image.name for photo in listing.photos] == list(projections)
    # Coordinates of 5e6 have 1e-9 of them as rounding, which is 2e-8 of the distance to the points.
    origin = np.array([3.9e6, 4.0e5, 5.0e6]) if "geocentric" in case else 0.0
    for photo in listing.photos:
        expected = projections[photo.image.name](POINTS)
        np.testing.assert_allclose(project(photo, POINTS + origin), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("case", CASES)
def test_a_capture_is_recognised_and_can_be_loaded(tmp_path, case):
    projections = CASES[case](tmp_path)
    capture = load(tmp_path)
    assert capture.kind == case.split(",")[0]
    assert [photo.image.name for photo in capture.photos] == list(projections)
    assert capture.dropped == ()
    for photo in capture.photos:
        axes = photo.pose[:3, :3]
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) > 0


LENSES = ["metashape", "metashape, fisheye", "metashape, spherical", "realitycapture", "opensfm, brown"]


@pytest.mark.parametrize("case", [*LENSES, "opensfm, fisheye_opencv", "opensfm, spherical", "openmvg, fisheye"])
def test_nerfstudio_s_rays_through_those_pixels_meet_the_points(tmp_path, case):
    pytest.importorskip("nerfstudio")
    import torch
    from nerfstudio.cameras.camera_utils import get_distortion_params
    from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, Cameras

    projections = CASES[case](tmp_path)
    photo = listing_of(case, tmp_path).photos[0]
    camera, pose = dict(photo.camera), torch.tensor(photo.pose[:3], dtype=torch.float32)
    names = ("k1", "k2", "k3", "k4", "p1", "p2")
    cameras = Cameras(
        pose,
        *(float(camera[name]) for name in ("fl_x", "fl_y", "cx", "cy")),
        width=camera.get("w", WIDTH),
        height=camera.get("h", HEIGHT),
        distortion_params=get_distortion_params(**{name: camera.get(name, 0.0) for name in names}),
        camera_type=CAMERA_MODEL_TO_TYPE[camera["camera_model"]],
    )
    pixels = torch.tensor(projections[photo.image.name](POINTS), dtype=torch.float32)
    rays = cameras.generate_rays(camera_indices=0, coords=pixels.flip(-1))
    towards = POINTS - photo.pose[:3, 3]
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    # nerfstudio computes in float32: a pixel of 48 is rounded by 4e-6, and its ray by the 50th of that, a few times.
    np.testing.assert_allclose(rays.directions.numpy(), towards, atol=2e-6)


@pytest.mark.parametrize("kind", sorted(set(READERS) - {"transforms", "blender", "colmap"}))
def test_a_capture_can_be_prepared_for_training(tmp_path, kind):
    case = next(case for case in CASES if case.split(",")[0] == kind)
    CASES[case](tmp_path / "data")
    listing = listing_of(case, tmp_path / "data")
    prepared = prepare(tmp_path / "data", cache=tmp_path / "cache")
    for photo, listed in zip(prepared.capture.photos, listing.photos, strict=True):
        np.testing.assert_allclose(photo.pose, listed.pose, atol=1e-9)  # it may be made orthonormal again
        assert photo.camera.fx == pytest.approx(listed.camera["fl_x"])


# --- what else the files say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, EXACT), (np.float32, 1e-4)])
def test_a_principal_point_in_the_exact_middle_stays_there(tmp_path, dtype, tolerance):
    matrix = np.array([[50.0, 0, WIDTH / 2], [0, 50.0, HEIGHT / 2], [0, 0, 1]])
    projections = formats.write_neus(tmp_path, matrix=matrix, center=0.0, dtype=dtype)
    for photo in listing_of("neus", tmp_path).photos:
        expected = projections[photo.image.name](POINTS)
        # float32 rounds a projection's numbers of up to 100 by 4e-6, several of which add up.
        np.testing.assert_allclose(project(photo, POINTS), expected, atol=tolerance)


def test_neus_scale_is_the_region_and_its_masks_may_have_other_names(tmp_path):
    formats.write_neus(tmp_path)
    listing = listing_of("neus", tmp_path)
    np.testing.assert_allclose(listing.world["region"], [0.1, -0.2, 0.3, 1.5])
    assert [photo.mask and photo.mask.name for photo in listing.photos] == [f"{i:06d}.png" for i in range(4)]


def test_neus_images_that_are_missing_are_told_by_the_numbers_in_the_names(tmp_path):
    projections = formats.write_neus(tmp_path)
    (tmp_path / "image" / "001.png").unlink()
    listing = listing_of("neus", tmp_path)
    assert [photo.image.name for photo in listing.photos] == ["000.png", "002.png", "003.png"]
    for photo in listing.photos:
        np.testing.assert_allclose(project(photo, POINTS), projections[photo.image.name](POINTS), atol=EXACT)


@pytest.mark.parametrize("case", ["opensfm, brown", "openmvg, pinhole", "bundler", "kapture, OPENCV"])
def test_sparse_points_have_their_positions_and_the_photos_that_see_them(tmp_path, case):
    CASES[case](tmp_path)
    listing = listing_of(case, tmp_path)
    assert listing.points is not None
    np.testing.assert_array_equal(listing.points.positions, POINTS)
    seeing = {"opensfm, brown": (0, 1, 2), "openmvg, pinhole": (0, 2), "bundler": (0, 3), "kapture, OPENCV": (0, 2)}[
        case
    ]
    assert listing.points.observations is not None
    seen = {(int(photo), int(point)) for photo, point in listing.points.observations}
    assert seen == {(photo, point) for photo in seeing for point in range(len(POINTS))}


@pytest.mark.parametrize("case", ["opensfm, brown", "bundler", "kapture, OPENCV"])
def test_sparse_points_have_their_colours(tmp_path, case):
    CASES[case](tmp_path)
    points = listing_of(case, tmp_path).points
    assert points is not None
    assert points.colors is not None
    assert points.colors.dtype == np.uint8
    np.testing.assert_array_equal(points.colors, COLORS)


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("metashape", "1 of 5 images are not aligned in cameras.xml, and is left out."),
        ("opensfm, brown", "1 of 5 images are in 1 smaller reconstructions of reconstruction.json, and is left out."),
        ("openmvg, pinhole", "1 of 5 images have no pose in sfm_data.json, and is left out."),
        ("bundler", "1 of 5 images have no pose in bundle.out, and is left out."),
        ("kapture, OPENCV", "1 of 5 images have no pose in trajectories.txt, and is left out."),
    ],
)
def test_images_without_a_pose_are_counted_in_a_note(tmp_path, case, note):
    CASES[case](tmp_path)
    assert listing_of(case, tmp_path).notes == (note,)


@pytest.mark.parametrize(("case", "up"), [("polycam", (0, 1, 0)), ("record3d", (0, 1, 0))])
def test_a_world_with_y_up_is_turned_to_z_up(tmp_path, case, up):
    CASES[case](tmp_path)
    upright = listing_of(case, tmp_path).upright
    assert upright is not None
    np.testing.assert_allclose(upright @ up, (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(upright @ upright.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(upright) > 0


def test_geocentric_coordinates_are_turned_upright(tmp_path):
    origin = np.array([3.9e6, 4.0e5, 5.0e6])
    formats.write_metashape(tmp_path, origin=tuple(origin))
    upright = listing_of("metashape", tmp_path).upright
    assert upright is not None
    # The cameras' middle is some units from the origin of the scene, seen from the earth's centre.
    np.testing.assert_allclose(upright @ (origin / np.linalg.norm(origin)), (0, 0, 1), atol=1e-5)
    assert np.linalg.det(upright) > 0
    assert (upright @ (0, 0, 1))[1] > 0, "the earth's axis points to the north"


def test_realitycapture_s_heading_is_clockwise_from_north_and_a_pitch_of_90_looks_ahead():
    from staf_nerf.captures.realitycapture import axes

    east = axes(90.0, 90.0, 0.0)
    np.testing.assert_allclose(east @ (0, 0, -1), (1, 0, 0), atol=1e-12)  # it looks to the east
    np.testing.assert_allclose(east @ (0, 1, 0), (0, 0, 1), atol=1e-12)  # with the sky above
    down = axes(0.0, 0.0, 0.0)
    np.testing.assert_allclose(down @ (0, 0, -1), (0, 0, -1), atol=1e-12)


def test_only_k1_of_realitycapture_may_be_the_division_model_which_a_note_says(tmp_path):
    formats.write_realitycapture(tmp_path, coefficients=(0.1, 0.0, 0.0, 0.0, 0.0, 0.0))
    (note,) = listing_of("realitycapture", tmp_path).notes
    assert "division model" in note


def test_several_components_of_metashape_without_transforms_leave_the_largest(tmp_path):
    formats.write_metashape(tmp_path, placed=False)
    path = tmp_path / "cameras.xml"
    path.write_text(
        path.read_text().replace('id="2" sensor_id="1" component_id="0"', 'id="2" sensor_id="1" component_id="1"')
    )
    listing = listing_of("metashape", tmp_path)
    assert [photo.image.name for photo in listing.photos] == ["000.jpg", "001.jpg", "003.jpg"]
    assert listing.notes[1] == "1 of 5 images belong to another component than most, and is left out."


@pytest.mark.parametrize(
    "case",
    [
        *("llff", "neus", "middlebury", "metashape", "realitycapture", "bundler", "record3d"),
        *("opensfm, brown", "openmvg, pinhole"),
    ],
)
def test_the_file_with_the_cameras_may_be_given_itself(tmp_path, case):
    projections = CASES[case](tmp_path)
    reader = READERS[case.split(",")[0]]  # type: ignore[index]
    source = reader.find(tmp_path)
    assert source is not None
    assert reader.find(source) == source
    listing = reader.read(source, source.parent)
    assert [photo.image.name for photo in listing.photos if photo.image.is_file()] == list(projections)


def test_photos_anywhere_below_are_found_by_their_names_and_masks_are_none(tmp_path):
    projections = formats.write_metashape(tmp_path)
    (tmp_path / "DCIM").mkdir()
    (tmp_path / "ring").rename(tmp_path / "DCIM" / "100MEDIA")
    formats.write_images(tmp_path / "masks", list(projections))
    images = [photo.image for photo in listing_of("metashape", tmp_path).photos]
    assert images == [tmp_path / "DCIM" / "100MEDIA" / name for name in projections]


def test_a_project_of_odm_has_its_images_above(tmp_path):
    formats.write_opensfm(tmp_path)
    (tmp_path / "opensfm").mkdir()
    for name in ("reconstruction.json", "tracks.csv"):
        (tmp_path / name).rename(tmp_path / "opensfm" / name)
    for data in (tmp_path, tmp_path / "opensfm"):
        assert [photo.image for photo in load(data).photos] == [tmp_path / "images" / f"{i:03d}.jpg" for i in range(4)]
