"""Frames of a film: spread over the motion, sharp, upright, and none twice."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from staf_nerf.captures.capture import CaptureError
from staf_nerf.sfm.frames import LEAST_MOTION, Examined, choose_frames, examine, spread, write_frames

WIDTH, HEIGHT = 160, 120
DIAGONAL = 200.0


@pytest.fixture(scope="module")
def ground():
    """A wide picture with details of some pixels, over which the films move."""
    generator = np.random.default_rng(0)
    return cv2.resize(generator.integers(0, 255, (40, 900, 3)).astype(np.uint8), (3600, 160), interpolation=1)


def film(path, ground, offsets, *, blurred=(), times=None, rate=12):
    """Writes a film whose frame i shows the ground from column offsets[i] on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = WIDTH, HEIGHT, "yuv420p", {"crf": "12"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, offset in enumerate(offsets):
            part = cv2.getRectSubPix(ground, (WIDTH, HEIGHT), (float(offset) + WIDTH / 2, 80))
            part = cv2.GaussianBlur(part, (0, 0), 4) if number in blurred else part
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part), format="rgb24")
            frame.pts = round(1000 * (times[number] if times is not None else number / rate))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_are_spread_over_the_motion_and_not_over_the_time(tmp_path, ground):
    offsets = np.concatenate([np.full(40, 0.0), np.arange(0, 400, 10), np.full(40, 400.0)])
    chosen = choose_frames(film(tmp_path / "a.mp4", ground, offsets), 8)
    places = offsets[[frame.index for frame in chosen]]
    assert len(chosen) == 8
    assert np.diff(places).min() >= 30, "400 columns in 8 stretches of 50, each frame from the inner 30"
    assert np.diff(places).max() <= 90


def test_where_the_camera_stands_still_one_frame_is_taken(tmp_path, ground):
    offsets = np.concatenate([np.arange(0, 200, 5), np.full(60, 195.0), np.arange(195, 400, 5)])
    chosen = choose_frames(film(tmp_path / "a.mp4", ground, offsets), 30)
    places = offsets[[frame.index for frame in chosen]]
    assert len(set(places)) == len(places)


def test_no_blurred_frame_is_taken_where_a_sharp_one_is_near(tmp_path, ground):
    blurred = {number for number in range(100) if number % 5 in (1, 2, 3)}
    path = film(tmp_path / "a.mp4", ground, np.arange(100) * 4.0, blurred=blurred)
    chosen = choose_frames(path, 10)
    assert len(chosen) == 10
    assert not {frame.index for frame in chosen} & blurred


def test_there_are_2_5_frames_a_second_and_at_least_40(tmp_path, ground):
    path = film(tmp_path / "a.mp4", ground, np.arange(300) * 10.0)  # 25 seconds
    assert 55 <= len(choose_frames(path)) <= 63, "2.5 * 25 stretches, some without a frame"
    short = film(tmp_path / "b.mp4", ground, np.arange(60) * 10.0)  # 5 seconds
    assert 32 <= len(choose_frames(short)) <= 40, "60 frames in 40 stretches"


def test_a_variable_frame_rate_changes_nothing(tmp_path, ground):
    offsets = np.arange(100) * 4.0
    times = np.cumsum(np.random.default_rng(1).uniform(0.09, 0.6, 100))
    chosen = choose_frames(film(tmp_path / "a.mp4", ground, offsets, times=times), 10)
    assert len(chosen) == 10
    assert np.abs(np.diff(offsets[[frame.index for frame in chosen]]) - 40).max() <= 24, (
        "from the inner 24 of 40 columns"
    )
    assert chosen[-1].seconds == pytest.approx(times[chosen[-1].index], abs=2e-3), "of a clock in milliseconds"


def test_a_short_film_is_looked_at_frame_by_frame(tmp_path, ground):
    path = film(tmp_path / "a.mp4", ground, np.arange(60) * 10.0, rate=60)
    assert len(list(examine(path))) == 60


def test_more_frames_than_the_motion_is_worth_are_not_taken():
    examined = [Examined(i, i / 12, 1.0, 0.0 if i == 0 else LEAST_MOTION / 4) for i in range(41)]
    assert len(spread(examined, 40)) == 11


def test_a_camera_that_stands_still_is_said(tmp_path, ground):
    with pytest.raises(CaptureError, match=r"hardly moves in .*a\.mp4"):
        choose_frames(film(tmp_path / "a.mp4", ground, np.zeros(50)))


def test_the_written_frames_are_those_chosen(tmp_path, ground):
    path = film(tmp_path / "a.mp4", ground, np.arange(60) * 10.0)
    chosen = choose_frames(path, 5)
    written = write_frames(path, chosen, tmp_path, stem="frame")
    assert [image.name for image in written] == [f"frame_{frame.index:06d}.jpg" for frame in chosen]
    for frame, image in zip(chosen, written, strict=True):
        found = np.asarray(Image.open(tmp_path / image.name)).astype(float)
        truth = cv2.getRectSubPix(ground, (WIDTH, HEIGHT), (10.0 * frame.index + WIDTH / 2, 80))
        assert np.abs(found - truth).mean() < 12, "colours lose half of their detail in yuv420p"


def test_a_phone_s_film_is_turned_upright(tmp_path, ground):
    path = film(tmp_path / "a.mp4", ground, np.arange(60) * 10.0)
    plain = write_frames(path, choose_frames(path, 5), tmp_path, stem="plain")
    data = path.read_bytes()
    identity, quarter = (
        b"".join(value.to_bytes(4, "big", signed=True) for value in values)
        for values in ((1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    )
    start = data.index(identity, data.index(b"tkhd"))
    (tmp_path / "turned.mp4").write_bytes(data[:start] + quarter + data[start + 36 :])
    turned = write_frames(tmp_path / "turned.mp4", choose_frames(path, 5), tmp_path, stem="turned")
    assert turned[0].size == (HEIGHT, WIDTH)
    one, other = (np.asarray(Image.open(tmp_path / images[2].name)).astype(float) for images in (turned, plain))
    clockwise = other.swapaxes(0, 1)[:, ::-1]  # the first column of the stored picture is the first row shown
    assert np.abs(one - clockwise).mean() < 3, "two encodings as JPEG"


def test_what_is_no_film_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(CaptureError, match=r"the video .*a\.mp4 cannot be read"):
        choose_frames(tmp_path / "a.mp4")


def test_a_film_that_was_cut_off_is_used_up_to_there(tmp_path, ground):
    path = film(tmp_path / "a.mkv", ground, np.arange(100) * 10.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert len(choose_frames(path, 5)) == 5
