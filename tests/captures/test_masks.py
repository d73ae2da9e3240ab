"""Masks of every kind give the pixels of the object: the left half of a photo of 24 x 16, if nothing else is said."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.masks import read_mask, threshold

SIZE = (24, 16)
LEFT = np.zeros((16, 24), dtype=bool)
LEFT[:, :12] = True


def grey(path, inside, outside=0, dtype=np.uint8, **options):
    Image.fromarray(np.where(LEFT, inside, outside).astype(dtype)).save(path, **options)


def two_colors(path, palette):
    """A palette image: index 1 inside, 0 outside."""
    image = Image.fromarray(LEFT.astype(np.uint8))
    image = Image.frombytes("P", SIZE, image.tobytes())
    image.putpalette(palette)
    image.save(path)


def with_alpha(path, color, mode="RGBA"):
    """The mask is in the alpha channel."""
    pixels = np.zeros((16, 24, 4), dtype=np.uint8)
    pixels[..., :3] = color
    pixels[..., 3] = np.where(LEFT, 255, 0)
    Image.fromarray(pixels).convert(mode).save(path)


def opaque(path):
    """The mask is in the colours, and the alpha channel says nothing."""
    Image.fromarray(np.where(LEFT, 255, 0).astype(np.uint8)).convert("RGBA").save(path)


KINDS = {
    "white.png": lambda path: grey(path, 255),
    "soft.png": lambda path: grey(path, 128, 127),
    "ones.png": lambda path: grey(path, 1),
    "numbers.png": lambda path: grey(path, np.arange(24) % 3 + 1),
    "dim.png": lambda path: grey(path, 100, 40),
    "16-bit.png": lambda path: grey(path, 65535, 300, np.uint16),
    "ones of 16 bits.png": lambda path: grey(path, 1, 0, np.uint16),
    "from 0 to 1.tif": lambda path: grey(path, 1.0, 0.2, np.float32),
    "up to 255.tif": lambda path: grey(path, 255.0, 20.0, np.float32),
    "bits.png": lambda path: Image.fromarray(LEFT).save(path),
    "rgb.png": lambda path: Image.fromarray(np.where(LEFT[..., None], (0, 0, 255), 0).astype(np.uint8)).save(path),
    "palette.png": lambda path: two_colors(path, [0, 0, 0, 255, 255, 255]),
    "palette of greys.png": lambda path: two_colors(path, [90, 90, 90, 200, 200, 200]),
    "labels.png": lambda path: two_colors(path, [0, 0, 0, 90, 0, 0]),
    "alpha.png": lambda path: with_alpha(path, 255),
    "cut-out.webp": lambda path: with_alpha(path, (9, 200, 30)),
    "grey-alpha.png": lambda path: with_alpha(path, 0, "LA"),
    "opaque.png": opaque,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_mask_of_any_kind_counts_the_object(tmp_path, name):
    path = tmp_path / name
    KINDS[name](path)
    np.testing.assert_array_equal(read_mask(path, SIZE, least=threshold([path])), np.where(LEFT, 255, 0))


def test_the_ringing_of_jpeg_does_not_count(tmp_path):
    y, x = np.mgrid[:160, :240]
    disc = np.hypot(x - 120, y - 80) < 50
    Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).save(tmp_path / "disc.jpg", quality=60)
    saved = np.asarray(Image.open(tmp_path / "disc.jpg"))
    assert (saved[~disc] > 0).mean() > 0.01  # there is some
    counts = read_mask(tmp_path / "disc.jpg", (240, 160)) == 255
    assert (counts != disc).mean() < 0.001  # the edge, to a few pixels


def test_the_palette_s_colours_count_and_not_its_numbers(tmp_path):
    two_colors(tmp_path / "swapped.png", [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(tmp_path / "swapped.png", SIZE), np.where(LEFT, 0, 255))


def test_a_frame_without_the_object_is_black_although_its_noise_is_the_largest_value_there(tmp_path):
    grey(tmp_path / "noise.jpg", 3, 1)
    grey(tmp_path / "object.png", 255)
    least = threshold([tmp_path / "noise.jpg", tmp_path / "object.png"])
    assert least == 128
    assert not read_mask(tmp_path / "noise.jpg", SIZE, least=least).any()


def test_dim_masks_of_a_capture_have_one_threshold(tmp_path):
    grey(tmp_path / "object.png", 100)
    grey(tmp_path / "noise.png", 40)
    assert threshold([tmp_path / "object.png", tmp_path / "noise.png"]) == 50


def test_masks_that_are_all_black_are_refused(tmp_path):
    for name in ("a.png", "b.png"):
        grey(tmp_path / name, 0)
    with pytest.raises(CaptureError, match=r"no mask has a white pixel, so nothing would be trained: see .*b\.png"):
        threshold([tmp_path / "a.png", tmp_path / "b.png"])


@pytest.mark.parametrize("size", [(12, 8), (48, 32), (25, 17), (23, 15), (8, 5)])
def test_a_mask_of_another_size_counts_the_same_part(tmp_path, size):
    inside = np.arange(size[0]) < size[0] / 2
    Image.fromarray(np.where(inside, 255, 0)[None].repeat(size[1], 0).astype(np.uint8)).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", SIZE)
    assert set(np.unique(mask)) == {0, 255}
    edge = (mask == 255).sum(1)
    assert (edge == edge[0]).all()
    assert abs(edge[0] - 12) <= max(24 / size[0] / 2, 1)  # half a pixel of the mask, or a whole one of the photo


def test_a_reduced_mask_counts_a_pixel_of_which_half_counts(tmp_path):
    fine = np.zeros((32, 48), dtype=np.uint8)
    fine[0, 0] = fine[1, 0] = 255  # two of four
    fine[0, 2] = 255  # one of four
    Image.fromarray(fine).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", SIZE)
    assert mask[0, 0] == 255
    assert mask.sum() == 255


@pytest.mark.parametrize("size", [(16, 24), (24, 18), (30, 16), (24, 12)])
def test_a_mask_of_another_shape_is_refused(tmp_path, size):
    Image.new("L", size, 255).save(tmp_path / "mask.png")
    message = rf"the mask .*mask\.png has size {size[0]}x{size[1]}, its image 24x16, which is of another shape"
    with pytest.raises(CaptureError, match=message):
        read_mask(tmp_path / "mask.png", SIZE)


def test_a_mask_of_the_stored_pixels_is_turned_as_its_photo_was(tmp_path):
    upright = np.where(LEFT, 255, 0).astype(np.uint8)
    stored = np.rot90(upright)  # turned to the left, and turned back by orientation 6
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "stored.png")
    Image.fromarray(upright).save(tmp_path / "upright.png")
    for name in ("stored.png", "upright.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, SIZE, orientation=6), upright)


def test_a_mask_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(CaptureError, match=r"the mask .*absent\.png cannot be read"):
        threshold([tmp_path / "absent.png"])
    (tmp_path / "pointer.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CaptureError, match="is a Git LFS pointer, not the mask"):
        read_mask(tmp_path / "pointer.png", SIZE)
