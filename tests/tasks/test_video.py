"""Videos, from files to a folder of results."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from staf_nerf.config import FieldConfig, FitConfig
from staf_nerf.jobs import evaluate
from staf_nerf.jobs.export import Export, export_field
from staf_nerf.jobs.fit import fit_files
from staf_nerf.tasks.video import AtTime, Clip, VideoConfig, VideoSignal, read_video, write_video
from tests.fits import fit_job

SMALL = VideoConfig(
    field=FieldConfig(hidden_features=64, hidden_layers=2),
    fit=FitConfig(steps=500, points=2048, hidden_learning_rate=1e-2, activation_learning_rate=1e-2),
    bandwidth=0.2,
)


def moving_disc(frames: int = 8, height: int = 24, width: int = 32) -> np.ndarray:
    """A soft disc that moves to the right over a gradient."""
    y, x = np.mgrid[0:height, 0:width]
    middles = np.linspace(8, width - 8, frames)
    disc = [np.clip(6.0 - np.hypot(x - middle, y - height / 2), 0, 1) for middle in middles]
    return np.stack([np.stack([200 * d, 6.0 * x, 9.0 * y], -1) for d in disc]).clip(0, 255).astype(np.uint8)


@pytest.fixture
def film(tmp_path):
    write_video(tmp_path / "film.mp4", moving_disc(), 12.5)
    return tmp_path / "film.mp4"


def test_a_video_becomes_a_field_and_the_field_the_video(film, tmp_path):
    output = tmp_path / "out"
    (found,) = fit_files(fit_job("video", film, output, config=SMALL, slow_motion=3, scale=2.0))
    assert found["metrics"]["psnr"] > 25.0
    assert found["metrics"]["ssim"] > 0.85
    assert {path.name for path in output.iterdir()} == {
        "curve.png", "field.safetensors", "frames.png", "metrics.json", "report.html", "sinusoids.npz", "sinusoids.png",
        "video.mp4",
    }  # fmt: skip
    made, rate = read_video(output / "video.mp4")
    assert made.shape == (24, 48, 64, 3)
    assert rate == 12.5
    # Frame 1 of three is the file's first, up to the codec and the fit; the disc has moved by the end.
    first, last = (made[i, ::2, ::2].astype(float) for i in (1, 22))
    truth = read_video(film)[0].astype(float)
    assert np.abs(first - truth[0]).mean() < 12
    assert np.abs(last - truth[-1]).mean() < 12
    assert np.abs(last - truth[0]).mean() > 20
    assert evaluate.evaluate_field(evaluate.Evaluate(output))["metrics"] == found["metrics"]
    assert export_field(Export(output, "onnx", tmp_path / "film.onnx")).stat().st_size > 10_000


def test_a_batch_has_pixels_at_their_places_and_times():
    pixels = moving_disc(3, 5, 8)
    signal = VideoSignal(pixels, Clip(3, 5, 8, 25.0, time_step=2.0), SMALL)
    points, values = signal.batch(0, torch.Generator())
    points, values = points.reshape(3, 5, 8, 3), values.reshape(3, 5, 8, 3)
    torch.testing.assert_close(values, torch.from_numpy(pixels / 127.5 - 1.0).float())
    step = 2.0 / 8.0  # from one pixel to the next
    assert points[2, 0, 0, 0] - points[1, 0, 0, 0] == pytest.approx(2.0 * step)
    assert points[0, 0, 1, 1] - points[0, 0, 0, 1] == pytest.approx(step)
    assert points[0, 1, 0, 2] - points[0, 0, 0, 2] == pytest.approx(step)
    assert points.reshape(-1, 3).mean(0).abs().max() < 1e-6


def test_a_frame_of_a_field_is_the_field_at_its_time():
    x = torch.rand(6, 2)
    assert torch.equal(AtTime(torch.nn.Identity(), 0.25)(x), torch.cat([torch.full((6, 1), 0.25), x], -1))


def test_gifs_and_odd_sizes_are_read_and_large_frames_reduced(tmp_path):
    frames = [Image.fromarray(frame) for frame in moving_disc(4, 15, 21)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    pixels, rate = read_video(tmp_path / "film.gif")
    assert pixels.shape == (4, 15, 21, 3)
    assert rate == pytest.approx(10.0)
    assert np.abs(pixels.astype(float) - moving_disc(4, 15, 21)).mean() < 12  # a palette of 256 colours
    small, _ = read_video(tmp_path / "film.gif", max_image_size=7)
    assert small.shape == (4, 5, 7, 3)
    write_video(tmp_path / "odd.mp4", pixels, rate)
    assert read_video(tmp_path / "odd.mp4")[0].shape == (4, 16, 22, 3)


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video")
    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    for name, message in (
        ("none.mp4", "does not exist"),
        ("text.mp4", "text.mp4 cannot be read as a video: Invalid data"),
        ("sound.wav", "sound.wav contains no video"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_video(tmp_path / name)
    with pytest.raises(ValueError, match=r"time_step must be between 0.001 and 1000, got 0"):
        dataclasses.replace(SMALL, time_step=0.0)
