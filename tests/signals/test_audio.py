import math

import numpy as np
import pytest
import soundfile
import torch

from staf_nerf.config import AudioConfig, FieldConfig
from staf_nerf.files.sound import read_sound, write_sound
from staf_nerf.metrics.sound import measure_sound
from staf_nerf.signals.audio import AudioSignal, Track, audio_field, render_sound

SMALL = AudioConfig(field=FieldConfig(hidden_features=8, hidden_layers=1))


def tones(samples=4000, channels=2, peak=0.5):
    time = np.arange(samples) / 8000
    waves = np.stack([np.sin(2 * np.pi * (200 + 150 * c) * time) for c in range(channels)], -1)
    return (peak * waves / np.abs(waves).max()).astype(np.float32)


class Lookup(torch.nn.Module):
    """A field that is a given sound: the nearest sample."""

    def __init__(self, sound):
        super().__init__()
        self.sound = torch.from_numpy(sound)

    def forward(self, points):
        place = torch.floor((points[:, 0].double() + 1.0) / 2.0 * len(self.sound)).long()
        return self.sound[place] / self.sound.abs().max()


def test_a_field_that_is_the_sound_gives_it_back_also_at_twice_the_rate(generator):
    sound = tones()
    track = Track.of(sound, 8000)
    np.testing.assert_allclose(render_sound(Lookup(sound), track), sound, atol=1e-7)
    np.testing.assert_allclose(render_sound(Lookup(sound), track, scale=2.0), sound.repeat(2, 0), atol=1e-7)
    signal = AudioSignal(sound, track, SMALL)
    for count in (0, 100):
        points, values = signal.batch(count, generator)
        assert points.shape == (count or 4000, 1)
        assert float(signal.losses(Lookup(sound), (points, values))["squared error"]) < 1e-12
        assert float(values.abs().max()) <= 1.0


def test_places_are_exact_in_long_sounds():
    track = Track(10_000_000, 1, 48000, 1.0)
    last = track.coordinates(torch.tensor([9_999_999.5], dtype=torch.float64))
    assert float(last) == pytest.approx(1.0 - 1e-7, abs=6e-8)  # float32 at 1


def test_measures_are_their_formulas():
    sound = tones()
    error = 0.01 * np.random.default_rng(0).standard_normal(sound.shape).astype(np.float32)
    metrics = measure_sound(sound + error, sound)
    assert metrics["snr"] == pytest.approx(10 * math.log10((sound**2).sum() / (error**2).sum()), abs=1e-3)
    assert metrics["psnr"] == pytest.approx(10 * math.log10(0.25 / (error**2).mean()), abs=1e-3)
    assert metrics["log_spectral_distance"] > 10.0  # noise where there was silence between the tones


def test_the_log_spectral_distance_of_a_sound_at_half_its_loudness_is_six_decibels():
    sound = np.random.default_rng(0).standard_normal((8000, 1)).astype(np.float32)
    metrics = measure_sound(0.5 * sound, sound)
    assert metrics["log_spectral_distance"] == pytest.approx(20 * math.log10(2), abs=0.01)


def test_the_same_sound_has_no_error():
    metrics = measure_sound(tones(), tones())
    assert metrics["snr"] == math.inf
    assert metrics["log_spectral_distance"] == 0.0


def test_the_first_layer_s_frequency_is_the_same_in_hertz_for_any_length():
    for samples in (1000, 50_000):
        track = Track(samples, 1, 44100, 1.0)
        omega = audio_field(AudioConfig(bandwidth=0.01), track).mlp.layers[0].activation.omega
        seconds_per_unit = samples / 44100 / 2
        assert omega / (2 * math.pi) / seconds_per_unit == pytest.approx(0.01 * 22050)


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "PCM_16"), (".flac", "PCM_24"), (".wav", "FLOAT")])
def test_files_are_read_and_written_back_with_their_precision(suffix, subtype, tmp_path):
    sound = tones()
    soundfile.write(tmp_path / f"a{suffix}", sound, 8000, subtype=subtype)
    stored, track = read_sound(tmp_path / f"a{suffix}")
    assert (track.samples, track.channels, track.rate, track.subtype) == (4000, 2, 8000, subtype)
    np.testing.assert_allclose(stored, sound, atol=2**-15)
    write_sound(tmp_path / "b.wav", stored, track)
    again, _ = read_sound(tmp_path / "b.wav")
    np.testing.assert_array_equal(stored, again)


def test_ogg_is_read(tmp_path):
    soundfile.write(tmp_path / "a.ogg", tones(), 8000)
    stored, track = read_sound(tmp_path / "a.ogg")
    assert stored.shape == (track.samples, 2)
    write_sound(tmp_path / "b.wav", stored, track)  # WAV has no Vorbis
    assert soundfile.info(tmp_path / "b.wav").subtype == "PCM_16"


def test_silence_and_a_single_sample_are_sounds(generator):
    for sound in (np.zeros((500, 1), np.float32), np.full((1, 1), 0.25, np.float32)):
        track = Track.of(sound, 8000)
        field = audio_field(SMALL, track, generator=generator)
        points, values = AudioSignal(sound, track, SMALL).batch(16, generator)
        assert torch.isfinite(field(points)).all()
        assert torch.isfinite(values).all()
        metrics = measure_sound(render_sound(field, track), sound)
        assert not any(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_file_that_is_cut_off_is_refused_and_one_of_unknown_length_is_not(subtype, tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, tones(), 8000, subtype=subtype)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.wav: the file is cut off: it contains \d+ of \d+ bytes of samples"):
        read_sound(path)
    place = whole.index(b"data") + 4
    path.write_bytes(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])  # as a program streams it
    assert read_sound(path)[1].samples == 4000


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_sound(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is no sound")
    with pytest.raises(ValueError, match=r"text.wav cannot be read as a sound"):
        read_sound(tmp_path / "text.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 8000)
    with pytest.raises(ValueError, match=r"empty.wav: a sound must have shape"):
        read_sound(tmp_path / "empty.wav")
    broken = tones()
    broken[3] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan.wav: 2 of the sound's 8000 values are NaN or infinite"):
        read_sound(tmp_path / "nan.wav")
    with pytest.raises(OSError, match="could not write"):
        write_sound(tmp_path / "none" / "a.wav", tones(), Track.of(tones(), 8000))
    with pytest.raises(ValueError, match="1 to 64 channels, got 65"):
        Track.of(np.zeros((5, 65), np.float32), 8000)
