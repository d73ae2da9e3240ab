"""Sounds as signals: samples of any rate and number of channels.

Conventions: a sound is (samples, channels), float32, with full scale 1. Time is x in [-1, 1], and a sample is evaluated
at the centre of its interval. Field values are the sound's values, divided by the largest absolute value.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import AudioConfig
from staf_nerf.fields import NeuralField
from staf_nerf.signals.image import psnr
from staf_nerf.signals.sampling import first_omega, in_chunks, order, to_learn

Sound = np.ndarray[Any, np.dtype[np.float32]]

MOST_CHANNELS = 64
WINDOW, HOP = 2048, 512
"""Window length of the spectrogram, and step between windows, in samples."""
SILENCE = 1e-8
"""Lower limit of the power in spectrograms (-80 dB relative to full scale 1)."""
STRIP = 2**16
"""Number of samples that are rendered at a time."""


@dataclass(frozen=True)
class Track:
    """The length, rate and range of a sound: everything that is needed to render a field as such a sound."""

    samples: int
    channels: int
    rate: int
    peak: float
    """Largest absolute value of the sound. It corresponds to a field value of 1."""
    subtype: str = "FLOAT"
    """Sample format of libsndfile: "PCM_16", "FLOAT", …"""

    @classmethod
    def of(cls, sound: Sound, rate: int, subtype: str = "FLOAT") -> Track:
        """Returns the track of a sound, (samples, channels).

        Raises:
            ValueError: If the sound has no samples, more than 64 channels, or values that are not finite.
        """
        if sound.ndim != 2 or not sound.size:
            raise ValueError(f"a sound must have shape (samples, channels), both >= 1, got {sound.shape}")
        if sound.shape[1] > MOST_CHANNELS:
            raise ValueError(f"a sound has 1 to {MOST_CHANNELS} channels, got {sound.shape[1]}")
        if rate < 1:
            raise ValueError(f"rate must be >= 1, got {rate}")
        if bad := int((~np.isfinite(sound)).sum()):
            raise ValueError(f"{bad} of the sound's {sound.size} values are NaN or infinite")
        samples, channels = sound.shape
        return cls(samples, channels, rate, float(np.abs(sound).max()) or 1.0, subtype)

    def coordinates(self, places: Tensor) -> Tensor:
        """Returns coordinates (n, 1) of positions (n,) float64 in samples from the start: the first sample is at ½."""
        return ((2.0 * places - self.samples) / self.samples).float()[:, None]

    def scaled(self, scale: float) -> Track:
        """Returns the track at `scale` times its rate."""
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        samples, rate = (max(round(scale * n), 1) for n in (self.samples, self.rate))
        return Track(samples, self.channels, rate, self.peak, self.subtype)


class AudioSignal:
    """The samples of a sound as a signal.

    Args:
        sound: The sound, (samples, channels).
        track: Length, rate and range of the sound.
        config: Settings of the fit.
        device: Device of the batches.
    """

    def __init__(self, sound: Sound, track: Track, config: AudioConfig, *, device: torch.device | str = "cpu") -> None:
        self.track, self.config, self.device = track, config, device
        self._values = torch.from_numpy(sound)
        self.samples = len(sound)
        self.passes, self._choose = order(self.samples, in_passes=bool(config.fit.passes))

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns times (count, 1) and values (count, channels) in [-1, 1]; see `choose` for the count."""
        index = self._choose(count, generator)
        values = self._values[index] / self.track.peak
        return self.track.coordinates(index.double() + 0.5).to(self.device), values.to(self.device)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error for values in [-1, 1]."""
        points, values = batch
        return {"squared error": (to_learn(field, points) - values).square().mean()}


def audio_field(config: AudioConfig, track: Track, *, generator: Generator | None = None) -> NeuralField:
    """Returns the field (…, 1) -> (…, channels) of a configuration, for a sound of this length."""
    field = first_omega(config.field, in_features=1, samples=track.samples, band=config.band)
    return NeuralField(1, track.channels, field, generator=generator)


@torch.no_grad()
def render_sound(field: nn.Module, track: Track, *, scale: float = 1.0, device: torch.device | str = "cpu") -> Sound:
    """Renders a field as a sound at `scale` times its rate, clipped to full scale."""
    track = track.scaled(scale)
    places = torch.arange(track.samples, dtype=torch.float64) + 0.5
    strips = [in_chunks(field, track.coordinates(part).to(device)).cpu() for part in places.split(STRIP)]
    full = max(track.peak, 1.0)  # float files may exceed 1
    return (track.peak * torch.cat(strips)).clamp(-full, full).numpy()


def sound_psnr(found: Sound, sound: Sound) -> float:
    """Returns 10 log10(peak² / mean squared error) in dB, with the sound's largest absolute value as peak."""
    error = (found.astype(np.float64) - sound) ** 2
    return psnr(float(error.mean()), float(np.abs(sound).max()) or 1.0)


def measure_sound(found: Sound, sound: Sound) -> dict[str, float]:
    """Compares a rendered sound with the original, both (samples, channels).

    Returns:
        "snr": 10 log10(Σ sound² / Σ error²) in dB.
        "psnr": 10 log10(peak² / mean squared error) in dB, with the sound's largest absolute value as peak.
        "log_spectral_distance": root mean square difference of log power spectra in dB over frequencies, averaged over
        windows of 2048 samples, with powers of at least 1e-8.
    """
    error = (found.astype(np.float64) - sound) ** 2
    energy = float((sound.astype(np.float64) ** 2).sum())
    total = float(error.sum())
    first, second = log_power(found), log_power(sound)
    return {
        "snr": (10.0 * math.log10(energy / total) if energy else -math.inf) if total else math.inf,
        "psnr": sound_psnr(found, sound),
        "log_spectral_distance": float(np.sqrt(((first - second) ** 2).mean(1)).mean()),
    }


def log_power(sound: Sound) -> np.ndarray:
    """Returns log power in dB, (channels, frequencies, windows), for Hann windows of at most 2048 samples."""
    values = torch.from_numpy(np.ascontiguousarray(sound.T)).double()
    size = min(WINDOW, values.shape[1])
    window = torch.hann_window(size, dtype=torch.float64)
    spectrum = torch.stft(values, size, HOP, window=window, center=False, return_complex=True)
    power = spectrum.abs().square() / float(window.square().sum())
    return (10.0 * power.clamp(min=SILENCE).log10()).numpy()


# --- files -----------------------------------------------------------------------------------------------------------

STREAMED = 0x7FFFF000
"""Data sizes from here on, in bytes, are placeholders of programs that stream and do not know the size yet."""
SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")


def read_sound(path: Path) -> tuple[Sound, Track]:
    """Reads a sound (samples, channels) from WAV, FLAC, OGG and other formats of libsndfile.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a sound, is cut off, has no samples, or has values that are not finite.
    """
    import soundfile

    if not path.is_file():
        raise FileNotFoundError(f"the sound {path} does not exist")
    try:
        found, rate = soundfile.read(path, dtype="float32", always_2d=True)
        subtype = soundfile.info(path).subtype
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read as a sound: {error}") from error
    sound = np.asarray(found, dtype=np.float32)
    try:
        _refuse_cut_off(path)
        return sound, Track.of(sound, rate, subtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_cut_off(path: Path) -> None:
    """Refuses an incomplete WAV file, which libsndfile would read as a shorter sound.

    Raises:
        ValueError: If its header declares more bytes of samples than the file contains.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                there = size - file.tell()
                if length > there and length < STREAMED:
                    raise ValueError(f"the file is cut off: it contains {there} of {length} bytes of samples")
                return
            file.seek(length + length % 2, 1)


def write_sound(path: Path, sound: Sound, track: Track) -> None:
    """Writes a sound as WAV, in the sample format of the track if WAV supports it.

    Raises:
        OSError: If the file cannot be written.
    """
    import soundfile

    subtype = track.subtype if soundfile.check_format("WAV", track.subtype) else "PCM_16"
    try:
        soundfile.write(path, sound, track.rate, subtype=subtype, format="WAV")
    except soundfile.LibsndfileError as error:
        raise OSError(f"could not write {path}: {error}") from error
