"""Sounds as signals: samples of any rate and number of channels.

Conventions: a sound is (samples, channels), float32, with full scale 1. Time is x in [-1, 1], and a sample is evaluated
at the centre of its interval. Field values are the sound's values, divided by the largest absolute value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import AudioConfig
from staf_nerf.fields import NeuralField
from staf_nerf.signals.sampling import SampledSignal, first_omega, in_chunks, to_learn

Sound = np.ndarray[Any, np.dtype[np.float32]]

MOST_CHANNELS = 64
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

    def coordinates(self, positions: Tensor) -> Tensor:
        """Returns coordinates (n, 1) of positions (n,) float64 in samples from the start: the first sample is at ½."""
        return ((2.0 * positions - self.samples) / self.samples).float()[:, None]

    def scaled(self, scale: float) -> Track:
        """Returns the track at `scale` times its rate."""
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        samples, rate = (max(round(scale * n), 1) for n in (self.samples, self.rate))
        return Track(samples, self.channels, rate, self.peak, self.subtype)


class AudioSignal(SampledSignal):
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
        super().__init__(len(sound), in_epochs=bool(config.fit.epochs))

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns times (count, 1) and values (count, channels) in [-1, 1]; see `Sampler` for the count."""
        index = self._sampler.draw(count, generator)
        values = self._values[index] / self.track.peak
        return self.track.coordinates(index.double() + 0.5).to(self.device), values.to(self.device)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error for values in [-1, 1]."""
        points, values = batch
        return {"squared error": (to_learn(field, points) - values).square().mean()}


def audio_field(config: AudioConfig, track: Track, *, generator: Generator | None = None) -> NeuralField:
    """Returns the field (…, 1) -> (…, channels) of a configuration, for a sound of this length."""
    field = first_omega(config.field, in_features=1, samples=track.samples, bandwidth=config.bandwidth)
    return NeuralField(1, track.channels, field, generator=generator)


@torch.no_grad()
def render_sound(field: nn.Module, track: Track, *, scale: float = 1.0, device: torch.device | str = "cpu") -> Sound:
    """Renders a field as a sound at `scale` times its rate, clipped to full scale."""
    track = track.scaled(scale)
    positions = torch.arange(track.samples, dtype=torch.float64) + 0.5
    strips = [in_chunks(field, track.coordinates(part).to(device)).cpu() for part in positions.split(STRIP)]
    full_scale = max(track.peak, 1.0)  # float files may exceed 1
    return (track.peak * torch.cat(strips)).clamp(-full_scale, full_scale).numpy()
