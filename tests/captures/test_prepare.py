import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFile

pytest.importorskip("platformdirs")

from staf_nerf.captures.capture import CaptureError, SparsePoints
from staf_nerf.captures.images import open_photo
from staf_nerf.captures.load import find, load
from staf_nerf.captures.prepare import prepare, prepare_capture
from tests.captures.test_images import icc_profile
from tests.conftest import data, pose, write_blender, write_capture


def edit(folder, change, name="transforms.json"):
    """Applies `change` to the listing of a capture."""
    path = folder / name
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_intrinsics_follow_a_reduction_exactly(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    prepared = prepare(tmp_path, downscale_factor=3)
    for photo in prepared.capture.photos:
        camera = photo.camera
        assert (camera.width, camera.height) == (8, 5)
        assert (camera.fx, camera.fy) == (20.0 / 3, 21.0 / 3)
        assert (camera.cx, camera.cy) == (12.5 / 3, 8.0 / 3)
        assert camera.distortion["k1"] == 0.01  # of normalised coordinates: it does not change
        with Image.open(photo.image) as image:
            assert image.size == (8, 5)


def test_reduced_pixels_are_means_of_blocks(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    original = np.asarray(Image.open(tmp_path / "images" / "002.png")).astype(float)
    photo = prepare(tmp_path, downscale_factor=4).capture.photos[2]
    reduced = np.asarray(Image.open(photo.image)).astype(float)
    for row, column in np.ndindex(4, 6):
        block = original[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1, 3)
        np.testing.assert_allclose(reduced[row, column], block.mean(0), atol=0.5)  # rounding to eight bits


def test_a_limit_is_met_exactly_and_what_is_small_enough_stays_as_it_is(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    for limit, size, factor in ((None, (24, 16), 1), (24, (24, 16), 1), (18, (18, 12), 1.33), (7, (7, 5), 3.43)):
        prepared = prepare(tmp_path, max_image_size=limit)
        camera = prepared.capture.photos[0].camera
        assert (camera.width, camera.height) == size
        assert prepared.factor == factor
        is_in_the_data = prepared.capture.photos[0].image.parent == tmp_path / "images"
        assert is_in_the_data == (factor == 1)


def test_each_image_meets_the_limit_by_itself(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    edit(tmp_path, lambda meta: [meta.pop(name) for name in ("w", "h", "cx", "cy")])
    Image.new("RGB", (10, 40)).save(tmp_path / "images" / "001.png")
    Image.new("RGB", (12, 8)).save(tmp_path / "images" / "002.png")
    prepared = prepare(tmp_path, max_image_size=20)
    sizes = [(photo.camera.width, photo.camera.height) for photo in prepared.capture.photos[:3]]
    assert sizes == [(20, 13), (5, 20), (12, 8)]
    for photo in prepared.capture.photos:
        with Image.open(photo.image) as image:
            assert image.size == (photo.camera.width, photo.camera.height)
    assert prepared.factor == 2
    assert prepared.originals[1].camera.height == 40


def test_a_ray_through_a_reduced_image_is_that_through_the_original(tmp_path):
    write_capture(tmp_path, size=(24, 16))
    before, after = (prepare(tmp_path, max_image_size=limit).capture.photos[0].camera for limit in (None, 7))
    for x, y in ((0.0, 0.0), (0.3, 0.9), (1.0, 1.0)):  # shares of the sides: the same place in both images
        for old, new in ((before, after),):
            assert (x * new.width - new.cx) / new.fx == pytest.approx((x * old.width - old.cx) / old.fx, rel=1e-12)
            assert (y * new.height - new.cy) / new.fy == pytest.approx((y * old.height - old.cy) / old.fy, rel=1e-12)
    assert after.fx / after.fy != before.fx / before.fy  # 16 rows become 5, not 4.67
    assert dict(after.distortion) == {"k1": 0.01}


def test_a_lens_survives_a_reduction(tmp_path):
    write_capture(tmp_path)
    capture = load(tmp_path)
    lens = dataclasses.replace(capture.photos[0].camera, lens="fisheye")
    photos = tuple(dataclasses.replace(photo, camera=lens) for photo in capture.photos)
    prepared = prepare_capture(dataclasses.replace(capture, photos=photos), "scene", downscale_factor=2)
    assert {photo.camera.lens for photo in prepared.capture.photos} == {"fisheye"}


def test_what_a_capture_knows_besides_photos_survives(tmp_path):
    write_blender(tmp_path, train=3, test=2)
    points = SparsePoints(np.zeros((2, 3)), observations=np.array([[0, 1]]))
    upright = np.eye(3)[[1, 2, 0]]
    known = {"points": points, "upright": upright, "notes": ("A note.",), "world": {"applied_scale": 2.0}}
    capture = dataclasses.replace(load(tmp_path), **known)
    prepared = prepare_capture(capture, "scene", downscale_factor=2)
    assert prepared.capture.points is points
    assert prepared.capture.upright is upright
    assert prepared.capture.notes == ("A note.",)
    assert prepared.capture.world == {"applied_scale": 2.0}
    assert prepared.originals == capture.photos
    assert prepared.capture.splits == capture.splits
    assert {photo.image for photo in prepared.originals} == {path for part in capture.splits.values() for path in part}


# --- kinds of images -------------------------------------------------------------------------------------------------


def test_images_that_are_not_plain_are_converted_also_at_full_size(tmp_path):
    write_capture(tmp_path, count=5)
    images = tmp_path / "images"
    shown = [np.asarray(Image.open(images / f"{i:03d}.png")) for i in range(5)]
    grey = np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170
    Image.fromarray(grey).save(images / "000.png")
    Image.open(images / "001.png").quantize(16).save(images / "001.png")
    shown[0] = np.repeat(np.rint(grey / 257)[..., None], 3, -1)
    shown[1] = np.asarray(Image.open(images / "001.png").convert("RGB"))
    prepared = prepare(tmp_path)
    for i, photo in enumerate(prepared.capture.photos):
        np.testing.assert_array_equal(np.asarray(Image.open(photo.image)), shown[i])
        assert (photo.image.parent == images) == (i > 1)


def test_all_images_have_transparency_if_one_has(tmp_path):
    write_capture(tmp_path, count=3)
    pixels = np.asarray(Image.open(tmp_path / "images" / "001.png"))
    clear = np.dstack([pixels, np.full((16, 24), 7, dtype=np.uint8)])
    Image.fromarray(clear).save(tmp_path / "images" / "001.png")
    prepared = prepare(tmp_path)
    assert prepared.has_alpha
    alphas = [np.asarray(Image.open(photo.image))[..., 3] for photo in prepared.capture.photos]
    assert [np.unique(alpha).tolist() for alpha in alphas] == [[255], [7], [255]]


def test_an_orientation_is_applied_to_image_and_mask_and_camera(tmp_path):
    write_capture(tmp_path, count=2, size=(24, 16))
    mask = np.zeros((16, 24), dtype=np.uint8)
    mask[:, :12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    edit(tmp_path, lambda meta: [frame.update(mask_path="mask.png") for frame in meta["frames"]])
    capture = load(tmp_path)
    camera = dataclasses.replace(capture.photos[0].camera, width=16, height=24)
    photos = tuple(dataclasses.replace(photo, camera=camera, orientation=6) for photo in capture.photos)
    prepared = prepare_capture(dataclasses.replace(capture, photos=photos), "scene", masks="ignore")
    photo = prepared.capture.photos[0]
    stored = np.asarray(Image.open(tmp_path / "images" / "000.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(photo.image)), np.rot90(stored, -1))
    np.testing.assert_array_equal(np.asarray(Image.open(photo.mask)), np.rot90(mask, -1))
    assert photo.orientation == 1


def test_a_colour_profile_is_converted_with_a_note(tmp_path):
    write_capture(tmp_path, count=2)
    image = Image.open(tmp_path / "images" / "000.png")
    image.save(tmp_path / "images" / "000.png", icc_profile=icc_profile("Display P3"))
    for _ in range(2):  # also from the cache
        prepared = prepare(tmp_path)
        assert prepared.capture.notes == ("1 image with another colour profile than sRGB, Display P3: converted.",)
        shown = np.asarray(Image.open(prepared.capture.photos[0].image))
        np.testing.assert_array_equal(shown, open_photo(tmp_path / "images" / "000.png"))


# --- the cache -------------------------------------------------------------------------------------------------------


def test_nothing_is_written_beside_the_data_and_a_second_call_reuses_the_images(tmp_path):
    folder = tmp_path / "scene"
    write_capture(folder)
    before = sorted(folder.rglob("*"))
    first = prepare(folder, downscale_factor=2).capture.photos[0].image
    stamp = first.stat().st_mtime_ns
    again = prepare(folder, downscale_factor=2).capture.photos[0].image
    assert sorted(folder.rglob("*")) == before
    assert (again, again.stat().st_mtime_ns) == (first, stamp)


def test_a_second_start_reads_no_pixels(tmp_path, monkeypatch):
    write_capture(tmp_path)
    for factor in (1, 2):
        first = prepare(tmp_path, downscale_factor=factor)
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("an image was decoded"))
            second = prepare(tmp_path, downscale_factor=factor)
        assert [photo.image for photo in second.capture.photos] == [photo.image for photo in first.capture.photos]


@pytest.mark.parametrize("patience", [0.0, 1000.0])
def test_progress_is_shown_only_if_it_takes_long(tmp_path, monkeypatch, capfd, patience):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.setattr("staf_nerf.captures.prepare.PATIENCE", patience)
    write_capture(tmp_path)
    prepare(tmp_path, downscale_factor=2)
    assert ("preparing images" in capfd.readouterr().err) == (patience == 0)


def test_a_changed_mask_is_merged_again(tmp_path):
    write_capture(tmp_path, count=2)
    add_masks(tmp_path)
    prepare(tmp_path)
    Image.fromarray(255 - LEFT).save(tmp_path / "mask.png")
    alpha = np.asarray(Image.open(prepare(tmp_path).capture.photos[0].image))[..., 3]
    np.testing.assert_array_equal(alpha, 255 - LEFT)


def test_a_changed_image_is_reduced_again(tmp_path):
    write_capture(tmp_path)
    first = prepare(tmp_path, downscale_factor=2).capture.photos[0].image
    Image.fromarray(np.zeros((16, 24, 3), dtype=np.uint8)).save(tmp_path / "images" / "000.png")
    second = prepare(tmp_path, downscale_factor=2).capture.photos[0].image
    assert second != first
    assert not np.asarray(Image.open(second)).any()


def test_camera_angles_stand_in_for_focal_lengths(tmp_path):
    write_capture(tmp_path)

    def change(meta):
        for name in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            meta.pop(name)
        meta["camera_angle_x"] = 1.0

    edit(tmp_path, change)
    camera = prepare(tmp_path).capture.photos[0].camera
    assert camera.fx == camera.fy == pytest.approx(12.0 / math.tan(0.5))
    assert (camera.cx, camera.cy) == (12.0, 8.0)


# --- masks -----------------------------------------------------------------------------------------------------------

LEFT = np.zeros((16, 24), dtype=np.uint8)
LEFT[:, :12] = 255


def add_masks(folder, mask=LEFT, which=lambda i: True, name="mask.png"):
    """Saves a mask and lists it for some frames."""
    Image.fromarray(mask).save(folder / name)

    def change(meta):
        for i, frame in enumerate(meta["frames"]):
            if which(i):
                frame["mask_path"] = name

    edit(folder, change)


def in_nerfstudio(prepared):
    """The images and masks that nerfstudio's data set makes of the photos."""
    torch = pytest.importorskip("torch")
    cameras = pytest.importorskip("nerfstudio.cameras.cameras")
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
    from nerfstudio.data.datasets.base_dataset import InputDataset

    photos = prepared.capture.photos
    masks = [photo.mask for photo in photos if photo.mask is not None]
    outputs = DataparserOutputs(
        image_filenames=[photo.image for photo in photos],
        mask_filenames=masks or None,
        cameras=cameras.Cameras(torch.eye(4)[None, :3].repeat(len(photos), 1, 1), 20.0, 20.0, 12.0, 8.0, 24, 16),
    )
    dataset = InputDataset(outputs)
    return [dataset.get_data(i, image_type="uint8") for i in range(len(photos))]


def test_masks_become_transparency_or_stay_masks(tmp_path):
    write_capture(tmp_path, count=2)
    add_masks(tmp_path)
    merged = prepare(tmp_path)
    assert merged.has_alpha
    assert all(photo.mask is None for photo in merged.capture.photos)
    for item in in_nerfstudio(merged):
        np.testing.assert_array_equal(item["image"][..., 3], LEFT)
    ignored = prepare(tmp_path, masks="ignore", downscale_factor=2)
    assert not ignored.has_alpha
    for item in in_nerfstudio(ignored):
        np.testing.assert_array_equal(item["mask"][..., 0], LEFT[::2, ::2] > 0)
        assert item["image"].shape == (8, 12, 3)


@pytest.mark.parametrize("masks", ["background", "ignore"])
def test_a_frame_without_a_mask_counts_whole(tmp_path, masks):
    write_capture(tmp_path, count=3)
    add_masks(tmp_path, which=lambda i: i == 1)
    prepared = prepare(tmp_path, masks=masks)
    items = in_nerfstudio(prepared)
    used = [(item["image"][..., 3] if masks == "background" else 255 * item["mask"][..., 0]).numpy() for item in items]
    for i, counts in enumerate(used):
        np.testing.assert_array_equal(counts, LEFT if i == 1 else np.full_like(LEFT, 255))
    assert prepared.capture.notes == ("2 images of 3 without a mask: used whole.",)


KINDS = {
    "jpeg": ("mask.jpg", LEFT),
    "another size": ("mask.png", LEFT[::2, ::2]),
    "transparency": ("mask.png", np.dstack([np.full((16, 24, 3), 255, dtype=np.uint8), LEFT])),
    "0 and 1": ("mask.png", LEFT // 255),
}


@pytest.mark.parametrize("masks", ["background", "ignore"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_all_kinds_reach_nerfstudio(tmp_path, kind, masks):
    write_capture(tmp_path, count=2)
    name, mask = KINDS[kind]
    add_masks(tmp_path, mask, name=name)
    for item in in_nerfstudio(prepare(tmp_path, masks=masks)):
        counts = item["image"][..., 3] == 255 if masks == "background" else item["mask"][..., 0]
        np.testing.assert_array_equal(counts, LEFT > 0)


@pytest.mark.parametrize("masks", ["background", "ignore"])
def test_a_transparent_photo_keeps_its_transparency_beside_a_mask(tmp_path, masks):
    write_capture(tmp_path, count=2, mode="RGBA")
    add_masks(tmp_path)
    own = np.asarray(Image.open(tmp_path / "images" / "000.png"))[..., 3]
    prepared = prepare(tmp_path, masks=masks)
    assert prepared.has_alpha
    item = in_nerfstudio(prepared)[0]
    np.testing.assert_array_equal(item["image"][..., 3], np.minimum(own, LEFT) if masks == "background" else own)
    assert ("mask" in item) == (masks == "ignore")


def test_masks_of_images_of_different_sizes_cannot_be_ignored(tmp_path):
    write_capture(tmp_path, count=3)
    edit(tmp_path, lambda meta: [meta.pop(name) for name in ("w", "h")])
    Image.new("RGB", (20, 16)).save(tmp_path / "images" / "002.png")
    add_masks(tmp_path, which=lambda i: i == 0)
    refused(tmp_path, "images of different sizes cannot be trained with --masks ignore", masks="ignore")
    assert [photo.camera.width for photo in prepare(tmp_path).capture.photos] == [24, 24, 20]


def test_a_mask_that_is_black_everywhere_is_noted_and_masks_that_all_are_is_refused(tmp_path):
    write_capture(tmp_path, count=2)
    add_masks(tmp_path, LEFT * 0, which=lambda i: i == 0, name="black.png")
    refused(tmp_path, "no mask has a white pixel", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "captures").iterdir())
    add_masks(tmp_path, which=lambda i: i == 1)
    assert prepare(tmp_path).capture.notes == ("1 image with a mask that is black everywhere, 000.png for example.",)


# --- formats ---------------------------------------------------------------------------------------------------------


def test_blender_files_keep_their_splits_and_find_images_without_suffix(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    prepared = prepare(tmp_path)
    assert (prepared.capture.kind, prepared.has_alpha) == ("blender", True)
    assert [len(prepared.capture.splits[split]) for split in ("train", "val", "test")] == [4, 2, 2]


def test_colmap_text_models_are_read(tmp_path):
    write_capture(tmp_path, count=3)
    (tmp_path / "transforms.json").unlink()
    model = tmp_path / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 OPENCV 24 16 20 21 12.5 8 0.01 0 0 0\n")
    lines = [f"{i + 1} 1 0 0 0 0 0 {i} 1 {i:03d}.png\n\n" for i in range(3)]
    (model / "images.txt").write_text("".join(lines))
    prepared = prepare(tmp_path)
    assert prepared.capture.kind == "colmap"
    photo = prepared.capture.photos[1]
    assert (photo.camera.fx, photo.camera.fy, photo.camera.cx) == (20.0, 21.0, 12.5)
    assert photo.camera.distortion["k1"] == 0.01
    # The camera is at -Rᵀt of COLMAP's own coordinates.
    assert photo.pose[:3, 3].tolist() == pytest.approx([0.0, 0.0, -1.0])


def test_fox_has_fifty_of_its_sixty_seven_images():
    prepared = prepare(data("fox"), downscale_factor=8)
    capture = prepared.capture
    assert (len(capture.photos), len(capture.dropped)) == (50, 17)
    camera = capture.photos[0].camera
    assert (camera.width, camera.height, camera.fx) == (135, 240, 1375.52 / 8)


def test_chair_is_a_blender_scene_with_transparency():
    assert find(data("chair_200"))[0] == "blender"


# --- what is refused, and how ----------------------------------------------------------------------------------------


def refused(folder, message, **options):
    with pytest.raises(CaptureError, match=message):
        prepare(folder, **options)


def test_missing_and_empty_folders(tmp_path):
    refused(tmp_path / "nowhere", "the data folder .*nowhere does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"contains no capture: looked for transforms.json .* found nothing")


def test_json_that_does_not_parse_or_lists_nothing(tmp_path):
    write_capture(tmp_path)
    (tmp_path / "transforms.json").write_text("{'frames': ")
    refused(tmp_path, "transforms.json is not valid JSON")
    (tmp_path / "transforms.json").write_text("[]")
    refused(tmp_path, "lists no frames")
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, "is not a text file")


def test_missing_intrinsics(tmp_path):
    write_capture(tmp_path)
    edit(tmp_path, lambda meta: [meta.pop(name) for name in ("fl_x", "fl_y")])
    refused(tmp_path, "no intrinsics for .*000.png .*: fl_x or camera_angle_x is needed")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((4, 4)).tolist(), "the pose of .*001.png is singular"),
        ([[float("nan")] * 4] * 4, "the pose of .*001.png has a value that is NaN or infinite"),
        ([[1.0, 0.0]], r"the pose of .*001.png must be 4x4 or 3x4, got \(1, 2\)"),
        ("identity", "the pose of .*001.png is not a matrix of numbers"),
        ([[1], [1, 2]], "the pose of .*001.png is not a matrix of numbers"),
    ],
)
def test_bad_poses_are_named(tmp_path, matrix, message):
    write_capture(tmp_path)
    edit(tmp_path, lambda meta: meta["frames"][1].update(transform_matrix=matrix))
    refused(tmp_path, message)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_truncated_image_is_refused_also_where_images_are_used_as_they_are(tmp_path, factor):
    write_capture(tmp_path, size=(200, 200))
    path = tmp_path / "images" / "003.png"
    path.write_bytes(path.read_bytes()[:1000])
    for _ in range(2):
        refused(tmp_path, r"the image .*003\.png cannot be read", downscale_factor=factor)


def test_an_image_of_another_size(tmp_path):
    write_capture(tmp_path)
    Image.new("RGB", (30, 16)).save(tmp_path / "images" / "004.png")
    refused(tmp_path, "the image .*004.png has size 30x16, but 24x16 is listed")


def test_one_image_only_and_all_images_missing(tmp_path):
    write_capture(tmp_path, count=2)
    (tmp_path / "images" / "000.png").unlink()
    refused(tmp_path, "has 1 image; at least 2 are needed")
    shutil.rmtree(tmp_path / "images")
    refused(tmp_path, "none of the 2 images listed in .* exists, for example .*000.png")


def test_a_refused_capture_leaves_nothing_in_the_cache(tmp_path):
    write_capture(tmp_path / "scene")
    edit(tmp_path / "scene", lambda meta: meta["frames"][1].update(transform_matrix=np.zeros((4, 4)).tolist()))
    refused(tmp_path / "scene", "singular", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_limit_without_pixels(tmp_path):
    write_capture(tmp_path)
    refused(tmp_path, "max_image_size must be >= 1, got 0", max_image_size=0)


def test_a_factor_beyond_the_images(tmp_path):
    write_capture(tmp_path)
    refused(
        tmp_path,
        "downscale_factor must be between 1 and the images' side length in pixels, got 17",
        downscale_factor=17,
    )


def test_pose_helper_is_a_rotation():
    rotation = np.array(pose(0.4))[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
