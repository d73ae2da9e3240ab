"""Metrics of sounds: signal-to-noise ratios and the distance of log spectra."""

from __future__ import annotations

import math

import numpy as np
import torch

from staf_nerf.metrics.image import psnr
from staf_nerf.signals.audio import Sound

WINDOW, HOP = 2048, 512
"""Window length of the spectrogram, and step between windows, in samples."""
SILENCE = 1e-8
"""Lower limit of the power in spectrograms (-80 dB relative to full scale 1)."""


def sound_psnr(rendered: Sound, sound: Sound) -> float:
    """Returns 10 log10(peak² / mean squared error) in dB, with the sound's largest absolute value as peak."""
    error = (rendered.astype(np.float64) - sound) ** 2
    return psnr(float(error.mean()), float(np.abs(sound).max()) or 1.0)


def measure_sound(rendered: Sound, sound: Sound) -> dict[str, float]:
    """Compares a rendered sound with the original, both (samples, channels).

    Returns:
        "snr": 10 log10(Σ sound² / Σ error²) in dB.
        "psnr": 10 log10(peak² / mean squared error) in dB, with the sound's largest absolute value as peak.
        "log_spectral_distance": root mean square difference of log power spectra in dB over frequencies, averaged over
        windows of 2048 samples, with powers of at least 1e-8.
    """
    error = (rendered.astype(np.float64) - sound) ** 2
    energy = float((sound.astype(np.float64) ** 2).sum())
    total = float(error.sum())
    first, second = log_power(rendered), log_power(sound)
    return {
        "snr": (10.0 * math.log10(energy / total) if energy else -math.inf) if total else math.inf,
        "psnr": sound_psnr(rendered, sound),
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
