"""Photos: what is gathered, and upright copies with what EXIF says."""

import math

import numpy as np
import pytest
from PIL import ExifTags, Image

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.masks import WHITE_ENOUGH, threshold
from staf_nerf.sfm.photos import check_formats, focal_length, gather, sharpness, write_upright

TAG = ExifTags.Base


def picture(width=60, height=40):
    """Four plain quarters: red, green above blue, white."""
    values = np.zeros((height, width, 3), np.uint8)
    values[: height // 2, : width // 2, 0] = values[: height // 2, width // 2 :, 1] = 255
    values[height // 2 :, : width // 2, 2] = 255
    values[height // 2 :, width // 2 :] = 255
    return values


def stored(values: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores a picture with an EXIF orientation, by the standard's table of rows and columns."""
    first_row_is = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right", 8: "left"}
    first_column_is = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    row, column = first_row_is[orientation], first_column_is[orientation]
    if row in ("left", "right"):  # stored rows are columns of the picture
        values = values.swapaxes(0, 1)
    if row in ("bottom", "right"):
        values = values[::-1]
    return values[:, ::-1] if column in ("bottom", "right") else values


def save(path, values, **tags):
    exif = Image.Exif()
    sub = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        base = name in ("Orientation", "Make", "Model")
        (exif if base else sub)[TAG[name]] = value
    options = {} if path.suffix == ".png" else {"quality": 95, "subsampling": 0}
    Image.fromarray(values).save(path, exif=exif, **options)
    return path


def copies(folder, *inputs, masks=None):
    """Upright copies of all photos, with the folder of the images and that of the masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sources, _ = gather(inputs, masks)
    own = [source.mask for source in sources if source.mask is not None]
    least = threshold(own) if own else WHITE_ENOUGH
    return [write_upright(source, folder / "images", folder / "masks", least) for source in sources]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_copy_lies_upright_whatever_exif_s_orientation_and_says_no_other(tmp_path, orientation):
    path = save(tmp_path / "a.jpg", stored(picture(), orientation), Orientation=orientation)
    (copy,) = copies(tmp_path / "out", path)
    with Image.open(tmp_path / "out" / "images" / copy.name) as image:
        assert image.getexif().get(TAG.Orientation, 1) == 1
        values = np.asarray(image)
    assert copy.size == (60, 40) == image.size
    assert np.abs(values.astype(int) - picture()).mean() < 4, "JPEG's error at the edges of the quarters"


def test_a_photo_that_is_upright_is_copied_byte_for_byte(tmp_path):
    path = save(tmp_path / "a.jpg", picture())
    (copy,) = copies(tmp_path / "out", path)
    assert (tmp_path / "out" / "images" / copy.name).read_bytes() == path.read_bytes()


def test_focal_lengths_are_exif_s_equivalent_over_the_diagonal():
    exif = {TAG.FocalLengthIn35mmFilm: 26, TAG.ExifImageWidth: 4032, TAG.ExifImageHeight: 3024}
    expected = 26 / math.sqrt(36**2 + 24**2) * 5040.0
    assert focal_length(exif, (4032, 3024)) == pytest.approx(expected, rel=1e-4), "the diagonal is known to 5 digits"
    assert focal_length(exif, (2016, 1512)) == pytest.approx(expected / 2, rel=1e-4), "a reduced photo"


def test_a_cropped_photo_has_no_focal_length_by_exif():
    exif = {TAG.FocalLengthIn35mmFilm: 26, TAG.ExifImageWidth: 4032, TAG.ExifImageHeight: 3024}
    assert focal_length(exif, (3024, 3024)) is None


def test_focal_lengths_follow_from_the_density_of_the_sensor():
    exif = {TAG.FocalLength: 50.0, TAG.FocalPlaneXResolution: 4000.0, TAG.FocalPlaneResolutionUnit: 3}
    assert focal_length({**exif, TAG.ExifImageWidth: 6000}, (3000, 2000)) == pytest.approx(50 * 400 / 2)
    assert focal_length({TAG.FocalLength: 50.0}, (3000, 2000)) is None


@pytest.mark.parametrize("value", [0, float("nan"), "x", None])
def test_a_focal_length_that_is_no_number_is_none(value):
    assert focal_length({TAG.FocalLengthIn35mmFilm: value}, (300, 200)) is None


def test_photos_of_one_body_lens_length_and_size_share_a_camera(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, tags in {"a": {"FocalLength": 4.2}, "b": {"FocalLength": 4.2}, "c": {"FocalLength": 9.0}}.items():
        save(folder / f"{name}.jpg", picture(), Model="X", **tags)
    save(folder / "d.jpg", picture(80, 40), Model="X", FocalLength=4.2)
    cameras = [copy.camera for copy in copies(tmp_path / "out", folder)]
    assert cameras[0] == cameras[1]
    assert len(set(cameras)) == 3


def test_photos_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 1):
        save(tmp_path / f"IMG_{number}.jpg", picture())
    sources, _ = gather([tmp_path])
    assert [source.stem for source in sources] == ["IMG_1", "IMG_9", "IMG_10"]


def test_photos_of_one_name_in_two_folders_get_names_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "IMG_1.jpg", picture())
    sources, _ = gather([tmp_path / "a", tmp_path / "b"])
    assert [source.stem for source in sources] == ["a_IMG_1", "b_IMG_1"]


def test_of_a_capture_with_reduced_copies_and_masks_only_the_images_are_taken(tmp_path):
    for folder in ("images", "images_2", "masks"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "a.png", picture())
    (tmp_path / "transforms.json").write_text("{}")
    sources, videos = gather([tmp_path])
    assert [source.path for source in sources] == [tmp_path / "images" / "a.png"]
    assert sources[0].mask == tmp_path / "masks" / "a.png"
    assert not videos


def test_patterns_are_expanded(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.jpg", picture())
    assert len(gather([tmp_path / "[ab].jpg"])[0]) == 2


def test_films_beside_photos_are_left_out_and_films_alone_are_taken(tmp_path):
    (tmp_path / "IMG_1.mov").write_bytes(b"")
    assert gather([tmp_path]) == ([], [tmp_path / "IMG_1.mov"])
    save(tmp_path / "IMG_1.jpg", picture())
    assert [source.path.name for source in gather([tmp_path])[0]] == ["IMG_1.jpg"]


@pytest.mark.parametrize("name", ["a.mask.png", "a_mask.png", "masks/a.png", "mask/a.jpg.png"])
def test_a_mask_beside_a_photo_is_found_and_is_no_photo(tmp_path, name):
    save(tmp_path / "a.jpg", picture())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    save(tmp_path / name, picture())
    (source,) = gather([tmp_path])[0]
    assert source.mask == tmp_path / name


@pytest.mark.parametrize("white", [1, 255])
def test_a_mask_is_written_as_0_and_255_at_the_photo_s_size(tmp_path, white):
    photo = save(tmp_path / "a.jpg", picture())
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :15] = white
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    (copy,) = copies(tmp_path / "out", photo)
    values = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{copy.name}.png"))
    assert copy.masked
    assert values.shape == (40, 60)
    assert (values[:, :30] == 255).all()
    assert not values[:, 30:].any()


@pytest.mark.parametrize("turned", [True, False], ids=["as stored", "as shown"])
def test_a_mask_is_turned_with_its_photo_if_it_lies_as_the_photo_is_stored(tmp_path, turned):
    photo = save(tmp_path / "a.jpg", stored(picture(), 6), Orientation=6)
    shown = np.zeros((40, 60), np.uint8)
    shown[:10] = 255
    Image.fromarray(stored(shown, 6) if turned else shown).save(tmp_path / "a.mask.png")
    (copy,) = copies(tmp_path / "out", photo)
    assert (np.asarray(Image.open(tmp_path / "out" / "masks" / f"{copy.name}.png")) == shown).all()


def test_where_a_photo_is_transparent_it_is_masked_and_the_copy_stays_transparent(tmp_path):
    values = np.dstack([picture(), np.full((40, 60), 255, np.uint8)])
    values[:, 40:, 3] = 0
    Image.fromarray(values).save(tmp_path / "a.png")
    (copy,) = copies(tmp_path / "out", tmp_path / "a.png")
    assert copy.masked
    assert Image.open(tmp_path / "out" / "images" / copy.name).mode == "RGBA"
    assert not np.asarray(Image.open(tmp_path / "out" / "masks" / f"{copy.name}.png"))[:, 40:].any()


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".bmp"])
def test_other_formats_become_jpeg_or_png(tmp_path, suffix):
    Image.fromarray(picture()).save(tmp_path / f"a{suffix}")
    (copy,) = copies(tmp_path / "out", tmp_path / f"a{suffix}")
    with Image.open(tmp_path / "out" / "images" / copy.name) as image:
        assert image.format == ("JPEG" if suffix == ".webp" else "PNG")


def test_a_photo_of_16_bits_keeps_its_greys(tmp_path):
    ramp = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    (copy,) = copies(tmp_path / "out", tmp_path / "a.png")
    values = np.asarray(Image.open(tmp_path / "out" / "images" / copy.name)).astype(float)
    assert np.abs(values[..., 0] - ramp / 257.0).max() <= 0.51, "rounding"


def test_a_blurred_picture_is_less_sharp():
    generator = np.random.default_rng(0)
    sharp = generator.integers(0, 255, (50, 50)).astype(np.uint8)
    blurred = (sharp[:-1].astype(int) + sharp[1:]) // 2
    assert sharpness(blurred) < 0.7 * sharpness(sharp)


def test_what_cannot_be_read_is_named_with_the_remedy(tmp_path):
    whole = save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(CaptureError, match=r"cut\.jpg cannot be read"):
        copies(tmp_path / "out", cut)
    (tmp_path / "b.dng").write_bytes(b"")
    with pytest.raises(CaptureError, match=r"b\.dng is a raw photo\. Convert"):
        gather([tmp_path / "b.dng"])
    (tmp_path / "c.txt").write_text("x")
    with pytest.raises(CaptureError, match=r"c\.txt is no photo and no video"):
        gather([tmp_path / "c.txt"])
    with pytest.raises(CaptureError, match="nowhere does not exist"):
        gather([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptureError, match="holds no photos and no video"):
        gather([tmp_path / "empty"])
    with pytest.raises(CaptureError, match=r"has no mask of a\.jpg: it must be a\.png"):
        gather([whole], tmp_path / "empty")


def test_heic_without_its_package_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a.heic").write_bytes(b"")
    sources, _ = gather([tmp_path])
    with pytest.raises(CaptureError, match="pip install pillow-heif"):
        check_formats(sources)
