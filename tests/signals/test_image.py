import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from staf_nerf.config import ActivationConfig, DenoisingConfig, FieldConfig, ImageConfig, SuperResolutionConfig
from staf_nerf.fields import NeuralField
from staf_nerf.files.image import read_image, write_image
from staf_nerf.fitting.loop import steps_per_epoch
from staf_nerf.metrics.image import measure_image
from staf_nerf.signals import sampling
from staf_nerf.signals.image import ImageSignal, image_field, image_field_config
from staf_nerf.signals.raster import Raster, render
from staf_nerf.tasks import find_task
from staf_nerf.tasks.denoising import with_sensor_noise
from staf_nerf.tasks.superresolution import area_average


def problem_of(pixels, config):
    """What a fit of these pixels is given."""
    task = find_task(config.task)
    return task.problem(Path("a.png"), pixels, task.raster(pixels, config), config, 0)


SMALL = ImageConfig(field=FieldConfig(hidden_features=8, hidden_layers=1))


def picture(height=13, width=21, channels=3, dtype=np.uint8, seed=0):
    random = np.random.default_rng(seed)
    if dtype == np.float32:
        return random.uniform(-2.0, 9.0, (height, width, channels)).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


class Lookup(torch.nn.Module):
    """A field that is a given image: the value of the nearest pixel, found by loops of its own."""

    def __init__(self, pixels):
        super().__init__()
        self.pixels = pixels
        self.raster = Raster.of(pixels)

    def forward(self, points):
        height, width, _ = self.pixels.shape
        longest = max(height, width)
        values = []
        for x, y in points.reshape(-1, 2).tolist():
            column = math.floor((x * longest + width) / 2.0)
            row = math.floor((y * longest + height) / 2.0)
            values.append(self.raster.normalize(torch.from_numpy(self.pixels[row, column].astype(np.float32))))
        return torch.stack(values).reshape(*points.shape[:-1], -1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_field_that_is_the_image_gives_it_back_exactly(dtype, channels):
    pixels = picture(channels=channels, dtype=dtype)
    rendered = render(Lookup(pixels), Raster.of(pixels))
    if dtype == np.float32:
        np.testing.assert_allclose(rendered, pixels, atol=1e-5)  # float32, of a range of 11
    else:
        np.testing.assert_array_equal(rendered, pixels)


def test_twice_the_size_repeats_each_pixel_of_a_field_that_is_one():
    pixels = picture()
    rendered = render(Lookup(pixels), Raster.of(pixels), scale=2.0)
    np.testing.assert_array_equal(rendered, pixels.repeat(2, 0).repeat(2, 1))


def test_the_longer_side_spans_the_coordinates_and_a_unit_is_as_long_on_both_axes():
    raster = Raster.of(picture(height=10, width=40))
    corners = raster.coordinates(torch.tensor([0.0, 10.0]), torch.tensor([0.0, 40.0]))
    assert corners.tolist() == [[-1.0, -0.25], [1.0, 0.25]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_batch_holds_pixels_at_their_places(dtype, generator):
    pixels = picture(dtype=dtype)
    signal = ImageSignal(pixels, SMALL)
    points, values = signal.batch(50, generator)
    assert points.shape == (50, 1, 2)
    torch.testing.assert_close(Lookup(pixels)(points[:, 0]), values)
    assert float(signal.losses(Lookup(pixels), (points, values))["squared error"]) < 1e-10


@pytest.mark.parametrize("count", [0, 13 * 21, 10**6])
def test_a_full_batch_holds_each_pixel_once(count, generator):
    points, values = ImageSignal(picture(), SMALL).batch(count, generator)
    assert len(points) == len(values) == 13 * 21
    assert len({tuple(p) for p in points[:, 0].tolist()}) == 13 * 21


def test_a_pixel_can_be_the_mean_of_points_in_each_cell_of_it(generator):
    signal = ImageSignal(picture(), dataclasses.replace(SMALL, pixel_samples=3))
    points, _ = signal.batch(40, generator)
    assert points.shape == (40, 9, 2)
    pixel = (points.double() * 21 + torch.tensor([21.0, 13.0])) / 2.0
    assert (pixel.floor() == pixel[:, :1].floor()).all()
    cells = ((pixel - pixel.floor()) * 3).floor()
    assert all(len({tuple(c) for c in one}) == 9 for one in cells.tolist())


def test_published_coordinates_and_values(generator):
    config = dataclasses.replace(SMALL, align_corners=True, zero_to_one=True)
    task = problem_of(picture(), config)
    points, values = ImageSignal(task.given, config, raster=task.frame).batch(0, generator)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 13), torch.linspace(-1, 1, 21), indexing="ij")
    torch.testing.assert_close(points[:, 0], torch.stack([x, y], -1).reshape(-1, 2))
    torch.testing.assert_close(values, torch.from_numpy(picture().reshape(-1, 3) / 255.0).float())
    torch.testing.assert_close(
        task.frame.denormalize(values).round().byte(), torch.from_numpy(picture().reshape(-1, 3))
    )
    # The loss is that of values that span [-1, 1], so that it means the same decibels.
    assert float(task.frame.squared_error(torch.tensor(0.0), torch.tensor(0.5))) == 1.0
    assert Raster.of(picture(1, 1)).coordinates(torch.tensor(0.5), torch.tensor(0.5)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("points", [(300, 2), (4, 75, 2)])
def test_a_step_of_very_many_points_is_taken_in_pieces_with_the_same_gradients(points, generator, monkeypatch):
    class Counted(torch.nn.Module):
        def __init__(self, field):
            super().__init__()
            self.field, self.largest = field, 0

        def forward(self, x):
            self.largest = max(self.largest, x[..., 0].numel())
            return self.field(x)

    field = Counted(NeuralField(2, 3, FieldConfig(hidden_features=8, hidden_layers=2), generator=generator))
    x = torch.rand(points, generator=generator)
    gradients = []
    for large in (1000, 100):
        monkeypatch.setattr(sampling, "LARGE", large)
        monkeypatch.setattr(sampling, "PIECE", large // 2)
        field.largest = 0
        loss = sampling.to_learn(field, x).square().mean()
        gradients.append(torch.autograd.grad(loss, list(field.parameters())))
        assert field.largest == (300 if large == 1000 else 50 if len(points) == 2 else 48)
    for whole, in_pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, in_pieces, rtol=1e-4, atol=1e-7)


def test_in_a_pass_each_pixel_comes_once(generator):
    config = dataclasses.replace(SMALL, fit=SMALL.fit.lasting(epochs=2))
    signal = ImageSignal(picture(), config)
    for _ in range(2):
        batches = [signal.batch(100, generator)[0][:, 0] for _ in range(3)]
        assert [len(batch) for batch in batches] == [100, 100, 73]
        assert len({tuple(p) for p in torch.cat(batches).tolist()}) == 273
    assert steps_per_epoch(signal, 100) == 3
    assert steps_per_epoch(signal, 0) == steps_per_epoch(signal, 999) == 1


def test_held_out_pixels_are_never_learned_and_are_judged(generator):
    pixels = picture(height=30, width=30)
    signal = ImageSignal(pixels, dataclasses.replace(SMALL, held_out=0.2), seed=3)
    learned = {tuple(p) for p in signal.batch(0, generator)[0][:, 0].tolist()}
    assert 0.7 * 900 < len(learned) < 0.9 * 900
    wrong = pixels.copy()
    for x, y in learned:  # what is learned does not count
        wrong[math.floor((y + 1.0) * 15.0), math.floor((x + 1.0) * 15.0)] ^= 255
    assert signal.held_out_error(Lookup(wrong)) < 1e-10
    assert signal.held_out_error(Lookup(255 - pixels)) > 0.1


def test_metrics_are_those_of_other_libraries():
    truth = cv2.GaussianBlur(picture(300, 40), (5, 5), 1.5)  # more rows than one strip of a narrow image would need
    noise = np.random.default_rng(1).integers(-9, 9, truth.shape)
    rendered = np.clip(truth.astype(int) + noise, 0, 255).astype(np.uint8)
    metrics = measure_image(Lookup(rendered), Raster.of(truth), truth)
    error = ((rendered.astype(float) - truth) ** 2).mean()
    assert metrics["psnr"] == pytest.approx(10 * math.log10(255**2 / error), abs=1e-3)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = structural_similarity(truth, rendered, channel_axis=2, **options)
    assert metrics["ssim"] == pytest.approx(expected, abs=1e-6)  # the field gives float32


def test_strips_do_not_change_the_metrics(monkeypatch):
    truth, rendered = picture(60, 30), picture(60, 30, seed=1)
    whole = measure_image(Lookup(rendered), Raster.of(truth), truth)
    monkeypatch.setattr("staf_nerf.signals.raster.STRIP", 30 * 7)
    strips = measure_image(Lookup(rendered), Raster.of(truth), truth)
    assert strips["psnr"] == pytest.approx(whole["psnr"], rel=1e-6)
    assert strips["ssim"] == pytest.approx(whole["ssim"], rel=1e-5)


def test_an_image_smaller_than_the_window_has_no_ssim():
    pixels = picture(1, 1)
    assert measure_image(Lookup(pixels), Raster.of(pixels), pixels)["ssim"] is None


def test_the_first_layer_s_frequency_follows_the_number_of_pixels():
    def first_omega(config, raster):
        return image_field_config(config, raster).activation.options["first_omega"]

    raster = Raster.of(picture(height=50, width=100))
    config = ImageConfig(bandwidth=0.1)
    # Half a cycle a pixel: 100 pixels in two units are 50 π radians per unit; a tenth of it, over weights of ±1/2.
    assert first_omega(config, raster) == pytest.approx(0.1 * 50 * math.pi * 2)
    assert first_omega(config, raster.scaled(2.0)) == pytest.approx(0.2 * 50 * math.pi * 2)
    fixed = ImageConfig(bandwidth=0.0, field=FieldConfig(activation=ActivationConfig("staf", {"first_omega": 7.0})))
    assert first_omega(fixed, raster) == 7.0
    weights = image_field(config, raster, generator=torch.Generator().manual_seed(0)).mlp.layers[0].linear.weight
    assert 0.45 < float(weights.abs().max()) <= 0.5


def test_averages_over_blocks_are_means():
    pixels = picture(6, 9, dtype=np.uint16)
    averaged = area_average(pixels, 3)
    for row in range(2):
        for column in range(3):
            block = pixels[3 * row : 3 * row + 3, 3 * column : 3 * column + 3].astype(float)
            np.testing.assert_allclose(averaged[row, column], block.mean((0, 1)), rtol=1e-6)
    with pytest.raises(ValueError, match="factor must divide 9 x 6, got 4"):
        area_average(pixels, 4)


def test_super_resolution_sees_the_small_image_and_is_measured_on_the_large_one():
    pixels = picture(23, 31)
    task = problem_of(pixels, SuperResolutionConfig(factor=4))
    assert (task.frame.height, task.frame.width) == (20, 28)
    assert (task.given_raster.height, task.given_raster.width) == (5, 7)
    np.testing.assert_array_equal(task.truth, pixels[:20, :28])
    # A small pixel's middle is that of its block.
    small = task.given_raster.coordinates(torch.tensor(1.5), torch.tensor(2.5))
    torch.testing.assert_close(small, task.frame.coordinates(torch.tensor(6.0), torch.tensor(10.0)))
    assert task.baseline["bicubic_psnr"] > 5.0
    with pytest.raises(ValueError, match="factor must be <= the image's sides"):
        problem_of(pixels, SuperResolutionConfig(factor=24))


def test_sensor_noise_has_the_variance_of_photons_and_readout():
    pixels = np.full((300, 300, 4), 128, np.uint8)
    noisy = with_sensor_noise(pixels, Raster.of(pixels), photon_count=30.0, read_noise=2.0, seed=1)
    level = 128 / 255
    expected = 255.0 * math.sqrt(30.0 * level + 4.0) / 30.0
    assert noisy[..., :3].std() == pytest.approx(expected, rel=0.01)
    assert noisy[..., :3].mean() == pytest.approx(128.0, rel=0.01)
    assert (noisy[..., 3] == 128).all()
    again = with_sensor_noise(pixels, Raster.of(pixels), photon_count=30.0, read_noise=2.0, seed=1)
    np.testing.assert_array_equal(noisy, again)
    with pytest.raises(ValueError, match="photon_count must be positive, got 0"):
        with_sensor_noise(pixels, Raster.of(pixels), photon_count=0.0, read_noise=1.0)


def test_denoising_never_sees_the_clean_image_and_of_a_noisy_file_no_truth_is_known():
    pixels = picture()
    task = problem_of(pixels, DenoisingConfig(photon_count=30.0, read_noise=2.0))
    assert not np.array_equal(task.given, task.truth)
    assert task.baseline["noisy_psnr"] < 30.0
    own = problem_of(pixels, DenoisingConfig())
    assert own.truth is None
    assert own.baseline == {}


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_of_integers_are_read_back_as_they_were_written(suffix, dtype, channels, tmp_path):
    pixels = picture(channels=channels, dtype=dtype)
    write_image(tmp_path / f"a{suffix}", pixels)
    stored = read_image(tmp_path / f"a{suffix}")
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, pixels)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".exr", 1e-3), (".hdr", 1 / 128), (".tiff", 0.0)])
def test_files_of_floats_are_read_back_as_precisely_as_they_hold_them(suffix, tolerance, tmp_path):
    pixels = np.random.default_rng(0).uniform(1.0, 50.0, (9, 8, 3)).astype(np.float32)
    write_image(tmp_path / f"a{suffix}", pixels)
    stored = read_image(tmp_path / f"a{suffix}")
    assert stored.dtype == np.float32
    # HDR has one exponent for a pixel's three channels.
    assert (np.abs(stored - pixels) <= tolerance * pixels.max(2, keepdims=True)).all()


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    stored = read_image(tmp_path / "a.jpg")
    assert stored.shape == (40, 20, 3)
    assert stored[:15, :, 0].mean() > 240
    assert stored[25:, :, 0].mean() < 15


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "none.png")
    text = tmp_path / "text.png"
    text.write_text("this is no image")
    whole = tmp_path / "whole.png"
    write_image(whole, picture())
    cut = tmp_path / "cut.jpg"
    Image.fromarray(picture(64, 64)).save(cut)
    cut.write_bytes(cut.read_bytes()[:600])
    empty = tmp_path / "empty.png"
    empty.touch()
    for path in (text, cut, empty):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as an image"):
            read_image(path)
    for suffix, dtype in ((".png", np.uint8), (".tiff", np.uint16), (".exr", np.float32), (".hdr", np.float32)):
        write_image(whole := tmp_path / f"short{suffix}", picture(64, 64, dtype=dtype))
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
        with pytest.raises(ValueError, match=f"short{suffix} cannot be read as an image"):
            read_image(whole)
    broken = picture(dtype=np.float32)
    broken[0, 0, 0], broken[1, 1, 1] = np.nan, np.inf
    write_image(tmp_path / "nan.tiff", broken)
    with pytest.raises(ValueError, match=r"nan.tiff: 2 of the image's 819 values are NaN or infinite"):
        read_image(tmp_path / "nan.tiff")
    with pytest.raises(OSError, match="could not write"):
        write_image(tmp_path / "none" / "a.png", picture())


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), r"must have shape \(height, width, channels\), got \(0, 5, 3\)"),
        (np.zeros((5, 5), np.uint8), r"must have shape"),
        (np.zeros((5, 5, 16), np.uint8), "has 1 to 4 channels, got 16"),
        (np.zeros((5, 5, 3), np.int64), "must be uint8, uint16 or float32, got int64"),
    ],
)
def test_arrays_that_are_no_image_are_refused(pixels, message):
    with pytest.raises(ValueError, match=message):
        Raster.of(pixels)


def test_an_image_of_one_value_has_a_range(generator):
    raster = Raster.of(np.full((4, 4, 1), 3.0, np.float32))
    assert (raster.low, raster.high) == (3.0, 4.0)
    _, values = ImageSignal(np.full((4, 4, 1), 3.0, np.float32), SMALL).batch(0, generator)
    assert (values == -1.0).all()
