"""Sounds: a field is fitted to all samples of all channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, nn

from staf_nerf.config import AudioConfig
from staf_nerf.fields import NeuralField
from staf_nerf.figures.sound import draw_spectrograms, draw_waves
from staf_nerf.files.sound import read_sound, write_sound
from staf_nerf.metrics.sound import measure_sound, sound_psnr
from staf_nerf.signals.audio import AudioSignal, Sound, Track, audio_field, render_sound
from staf_nerf.signals.sampling import refuse_unused_frequency
from staf_nerf.tasks.task import Figure, Metrics, Problem, Task

if TYPE_CHECKING:
    from staf_nerf.progress import Stages


@dataclass(frozen=True)
class AudioOptions:
    """What a fit of a sound writes."""

    scale: float = 1.0
    """Sampling rate of the written sound, relative to that of the file."""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")


@dataclass(frozen=True, kw_only=True)
class AudioProblem(Problem):
    """A sound to fit."""

    frame: Track
    sound: Sound
    """(samples, channels)."""

    @property
    def lines(self) -> list[str]:
        track = self.frame
        return [f"{track.samples / track.rate:.2f} s at {track.rate} Hz, {track.channels} channels"]

    def signal(self, device: torch.device | str) -> AudioSignal:
        return AudioSignal(self.sound, self.frame, self.config, device=device)

    def field(self, generator: Generator | None = None) -> NeuralField:
        return audio_field(self.config, self.frame, generator=generator)

    def epoch_metrics(self, device: torch.device | str) -> Callable[[nn.Module], dict[str, float]]:
        return lambda field: {"psnr": sound_psnr(render_sound(field, self.frame, device=device), self.sound)}

    def evaluate(self, field: nn.Module, options: AudioOptions, *, device: torch.device | str) -> Metrics:
        return {**measure_sound(render_sound(field, self.frame, device=device), self.sound)}

    def write(
        self, field: nn.Module, output: Path, options: AudioOptions, stages: Stages, *, device: torch.device | str
    ) -> tuple[Metrics, list[Figure]]:
        with stages("rendering"):
            found = render_sound(field, self.frame, device=device)
        metrics: Metrics = {}
        with stages.attempt("metrics"):
            metrics = {**measure_sound(found, self.sound)}
        with stages.attempt("sound"):
            scale = options.scale
            made = found if scale == 1.0 else render_sound(field, self.frame, scale=scale, device=device)
            write_sound(output / "sound.wav", made, self.frame.scaled(scale))
        figures: list[Figure] = []
        with stages.attempt("pictures"):
            drawn = [("sound and error", output / "waves.png"), ("spectrograms", output / "spectrograms.png")]
            draw_waves(drawn[0][1], found, self.sound, self.frame.rate)
            draw_spectrograms(drawn[1][1], found, self.sound, self.frame.rate)
            figures = drawn
        return metrics, figures


class AudioTask(Task):
    """Fits a sound. Writes the field, the sound at any sampling rate, metrics and a report."""

    name = "audio"
    title = "Sounds"
    coordinates = 1
    config = AudioConfig()
    options = AudioOptions()
    metric, peak = "snr", 1.0
    methods = ("audio", "audio-sine")
    results = ("sound.wav", "waves.png", "spectrograms.png")

    def read(self, file: Path, config: AudioConfig, *, seed: int = 0) -> AudioProblem:
        refuse_unused_frequency(config.field, bandwidth=config.bandwidth)
        sound, track = read_sound(file)
        return AudioProblem(file=file, config=config, frame=track, seed=seed, sound=sound)

    def frame(self, description: Mapping[str, Any]) -> Track:
        return Track(**description)

    def field(self, config: AudioConfig, frame: Track, *, generator: Generator | None = None) -> NeuralField:
        return audio_field(config, frame, generator=generator)

    def sizes(self) -> Track:
        return Track(44100, 1, 44100, 1.0)

    def meaning(self, config: AudioConfig, frame: Track) -> tuple[str, str]:
        return f"time: [-1, 1] are the {frame.samples} samples", f"{frame.channels} channels; 1 is {frame.peak:g}"


TASK = AudioTask()
