"""Sounds as signals: samples of any rate and number of channels.

Conventions: a sound is (samples, channels), float32, full scale 1. Time is x in [-1, 1], at the middles of the samples'
intervals. A field's values are the sound's, divided by its largest absolute one.
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
"""Samples of a window of the spectrogram, and between windows."""
SILENCE = 1e-8
"""Power below which the spectrogram's logarithm is held (full scale 1: -80 dB)."""
STRIP = 2**16
"""Samples that are rendered at a time."""


@dataclass(frozen=True)
class Track:
    """The length of a sound and what its numbers mean: all that is needed to render a field into one like it."""

    samples: int
    channels: int
    rate: int
    peak: float
    """Largest absolute value, which the field calls 1."""
    subtype: str = "FLOAT"
    """How libsndfile stores a sample: "PCM_16", "FLOAT", …"""

    @classmethod
    def of(cls, sound: Sound, rate: int, subtype: str = "FLOAT") -> Track:
        """That of a sound, (samples, channels).

        Raises:
            ValueError: If it has no samples, more than 64 channels, or values that are not finite.
        """
        if sound.ndim != 2 or not sound.size:
            raise ValueError(f"a sound must have shape (samples, channels) and some of both, got {sound.shape}")
        if sound.shape[1] > MOST_CHANNELS:
            raise ValueError(f"a sound has 1 to {MOST_CHANNELS} channels, got {sound.shape[1]}")
        if rate < 1:
            raise ValueError(f"rate must be >= 1, got {rate}")
        if bad := int((~np.isfinite(sound)).sum()):
            raise ValueError(f"{bad} of the sound's {sound.size} values are not finite")
        samples, channels = sound.shape
        return cls(samples, channels, rate, float(np.abs(sound).max()) or 1.0, subtype)

    def coordinates(self, places: Tensor) -> Tensor:
        """(n, 1) of places (n,) float64, in samples from the start: the first sample's middle is ½."""
        return ((2.0 * places - self.samples) / self.samples).float()[:, None]

    def scaled(self, scale: float) -> Track:
        """The same sound at `scale` times its rate."""
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        samples, rate = (max(round(scale * n), 1) for n in (self.samples, self.rate))
        return Track(samples, self.channels, rate, self.peak, self.subtype)


class AudioSignal:
    """The samples of a sound.

    Args:
        sound: (samples, channels).
        track: What its numbers mean.
        config: What is learned, and how.
        device: Where the points are handed out.
    """

    def __init__(self, sound: Sound, track: Track, config: AudioConfig, *, device: torch.device | str = "cpu") -> None:
        self.track, self.config, self.device = track, config, device
        self._values = torch.from_numpy(sound)
        self.samples = len(sound)
        self.passes, self._choose = order(self.samples, in_passes=bool(config.fit.passes))

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Times (count, 1) and values (count, channels) in [-1, 1]; see `choose` for the count."""
        index = self._choose(count, generator)
        values = self._values[index] / self.track.peak
        return self.track.coordinates(index.double() + 0.5).to(self.device), values.to(self.device)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """The mean squared error, of values in [-1, 1]."""
        points, values = batch
        return {"squared error": (to_learn(field, points) - values).square().mean()}


def audio_field(config: AudioConfig, track: Track, *, generator: Generator | None = None) -> NeuralField:
    """The field (…, 1) -> (…, channels) of a configuration, for a sound of this length."""
    field = first_omega(config.field, in_features=1, samples=track.samples, band=config.band)
    return NeuralField(1, track.channels, field, generator=generator)


@torch.no_grad()
def render_sound(field: nn.Module, track: Track, *, scale: float = 1.0, device: torch.device | str = "cpu") -> Sound:
    """The sound that a field has become, at `scale` times its rate; what lies beyond full scale is held there."""
    track = track.scaled(scale)
    places = torch.arange(track.samples, dtype=torch.float64) + 0.5
    strips = [in_chunks(field, track.coordinates(part).to(device)).cpu() for part in places.split(STRIP)]
    full = max(track.peak, 1.0)  # files of floats may go beyond 1
    return (track.peak * torch.cat(strips)).clamp(-full, full).numpy()


def sound_psnr(found: Sound, sound: Sound) -> float:
    """10 log10(peak² / mean squared error), dB, with the sound's largest absolute value as its peak."""
    error = (found.astype(np.float64) - sound) ** 2
    return psnr(float(error.mean()), float(np.abs(sound).max()) or 1.0)


def measure_sound(found: Sound, sound: Sound) -> dict[str, float]:
    """Compares two sounds (samples, channels).

    Returns:
        "snr": 10 log10(Σ sound² / Σ error²), dB; "psnr": 10 log10(peak² / mean squared error), dB, with the sound's
        largest absolute value as its peak; "log_spectral_distance": of log power spectra in dB, the root mean square
        over frequencies, averaged over windows of 2048 samples, powers below 1e-8 held there.
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
    """Log power, dB, (channels, frequencies, windows): Hann windows of 2048 samples, or of all if there are fewer."""
    values = torch.from_numpy(np.ascontiguousarray(sound.T)).double()
    size = min(WINDOW, values.shape[1])
    window = torch.hann_window(size, dtype=torch.float64)
    spectrum = torch.stft(values, size, HOP, window=window, center=False, return_complex=True)
    power = spectrum.abs().square() / float(window.square().sum())
    return (10.0 * power.clamp(min=SILENCE).log10()).numpy()


# --- files -----------------------------------------------------------------------------------------------------------

STREAMED = 0x7FFFF000
"""Bytes that programs promise which do not know yet how many will come, at least."""
SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")


def read_sound(path: Path) -> tuple[Sound, Track]:
    """Reads (samples, channels) of WAV, FLAC, OGG and what else libsndfile knows.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no sound, has no samples, or values that are not finite.
    """
    import soundfile

    if not path.is_file():
        raise FileNotFoundError(f"no sound {path}")
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
    """Refuses a WAV that ends before its samples do, which libsndfile takes for a shorter sound.

    Raises:
        ValueError: If its header promises more bytes than there are.
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
                    raise ValueError(f"the file is cut off: {there} of {length} bytes of samples are there")
                return
            file.seek(length + length % 2, 1)


def write_sound(path: Path, sound: Sound, track: Track) -> None:
    """Writes a sound as WAV, with samples stored as in the track's file where WAV has such.

    Raises:
        OSError: If the file cannot be written.
    """
    import soundfile

    subtype = track.subtype if soundfile.check_format("WAV", track.subtype) else "PCM_16"
    try:
        soundfile.write(path, sound, track.rate, subtype=subtype, format="WAV")
    except soundfile.LibsndfileError as error:
        raise OSError(f"could not write {path}: {error}") from error
