"""`staf fit audio`: fits a field to a sound, and writes it with the sound, metrics and a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Generator, nn
from tyro.conf import OmitArgPrefixes

from staf_nerf.checkpoint import FIELD_FILE, Checkpoint, save_field
from staf_nerf.config import AudioConfig
from staf_nerf.jobs.figures import draw_spectrograms, draw_waves
from staf_nerf.jobs.fitting import (
    SCORE,
    FitFiles,
    Processes,
    fit_signal,
    processes,
    refuse_failures,
    remove_old_results,
    say_left,
    trace_of,
    write_results,
)
from staf_nerf.jobs.progress import Stages
from staf_nerf.memory import keep_freed_memory
from staf_nerf.presets import load_preset
from staf_nerf.signals.audio import (
    AudioSignal,
    audio_field,
    measure_sound,
    read_sound,
    render_sound,
    sound_psnr,
    write_sound,
)
from staf_nerf.signals.sampling import refuse_unused_frequency


@dataclass(frozen=True)
class FitAudio(FitFiles):
    """Fits a sound. Writes the field, the sound at any sampling rate, metrics and a report."""

    config: OmitArgPrefixes[AudioConfig] = field(default_factory=lambda: load_preset("audio", "cpu", AudioConfig()))
    """Network and training."""


def run(job: FitAudio) -> list[dict[str, Any]]:
    """Runs the job and returns the content of each `metrics.json` (under torchrun: for this process's files)."""
    refuse_unused_frequency(job.config.field, band=job.config.band)
    keep_freed_memory()
    with processes(len(job.files)) as mine:
        found, pairs = [], job.work("audio", mine)
        for number, (file, output) in enumerate(pairs, 1):
            results, is_interrupted = fit_sound(job, file, output, mine)
            found += results
            if is_interrupted:
                say_left(len(pairs) - number, mine.console)
                break
    refuse_failures(found)
    return found


def fit_sound(job: FitAudio, file: Path, output: Path, mine: Processes) -> tuple[list[dict[str, Any]], bool]:
    """Fits a sound. Returns its results, in a process that writes, and whether the fit was interrupted."""
    sound, track = read_sound(file)
    console = mine.console
    console.print(f"{file}: {track.samples / track.rate:.2f} s at {track.rate} Hz, {track.channels} channels")
    signal = AudioSignal(sound, track, job.config, device=job.where)
    model = audio_field(job.config, track, generator=Generator().manual_seed(job.seed)).to(job.where)
    trace = trace_of(model, output, resume=job.resume)

    def score(field: nn.Module) -> dict[str, float]:
        return {SCORE: sound_psnr(render_sound(field, track, device=job.where), sound)}

    with Stages(console) as stages:
        with stages("fitting") as report:
            history = fit_signal(
                model,
                signal,
                job.config,
                output,
                seed=job.seed,
                subject=file.name,
                traces=[trace],
                report=report,
                score=score if job.score_passes else None,
            )
        if not mine.writes:
            return [], history.interrupted
        save_field(output / FIELD_FILE, Checkpoint(model, job.config, track, str(file), job.seed))
        remove_old_results(output)
        with stages("rendering"):
            found = render_sound(model, track, device=job.where)
        measures: dict[str, float | None] = {}
        with stages.attempt("measures"):
            measures = {**measure_sound(found, sound)}
        figures: list[tuple[str, Path]] = []
        with stages.attempt("sound"):
            made = found if job.scale == 1.0 else render_sound(model, track, scale=job.scale, device=job.where)
            write_sound(output / "sound.wav", made, track.scaled(job.scale))
        with stages.attempt("pictures"):
            drawn = [("sound and error", output / "waves.png"), ("spectrograms", output / "spectrograms.png")]
            draw_waves(drawn[0][1], found, sound, track.rate)
            draw_spectrograms(drawn[1][1], found, sound, track.rate)
            figures = drawn
    results = write_results(
        output,
        file,
        job.config,
        job.seed,
        model=model,
        history=history,
        trace=trace,
        measures=measures,
        figures=figures,
        stages=stages,
    )
    return [results], history.interrupted
