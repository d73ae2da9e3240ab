"""What training on a capture costs on this machine, from a few steps of it."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from staf_nerf.machine.cores import shared_cores
from staf_nerf.machine.device import detect_device
from staf_nerf.plugin import run
from staf_nerf.plugin.methods import trainer_config
from staf_nerf.presets import load_preset
from staf_nerf.progress import Cost, peak_memory

FIRST_STEPS, STEPS, SECONDS = 5, 40, 8.0
"""A trial leaves out the first steps, and ends after this number of further steps or seconds."""


@shared_cores()
def measure_cost(method: str, data: Path) -> Cost:
    """Trains a method on a capture for some seconds. Nothing is kept but the prepared photos in the cache.

    Raises:
        CaptureError: If the capture cannot be used.
    """
    device = detect_device()
    preset = load_preset(method, device)
    config = trainer_config(method, preset, device)
    config.pipeline.datamanager.data = data
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, run.quiet():
        config.output_dir = Path(folder)
        trainer = run.set_up(config, seed=0)
        start = time.perf_counter() - begin
        times = []
        try:
            for step in range(FIRST_STEPS + STEPS):
                before = time.perf_counter()
                run.step(trainer, step)
                if device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - before)
                if step >= FIRST_STEPS and sum(times) > SECONDS:
                    break
        finally:
            run.close_writers()
    return Cost(preset.training.steps, statistics.median(times[FIRST_STEPS:]), start, peak_memory())
