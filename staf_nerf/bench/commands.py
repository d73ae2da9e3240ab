"""All benchmarks, by the name of their command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from staf_nerf.bench import activation, extraction, linear, mlp, nerf, nerf_speed, report, surface

BENCHMARKS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "activation": (activation.ActivationBenchmark, activation.main),
    "extraction": (extraction.ExtractionBenchmark, extraction.main),
    "linear": (linear.LinearBenchmark, linear.main),
    "mlp": (mlp.MlpBenchmark, mlp.main),
    "nerf": (nerf.NerfBenchmark, nerf.main),
    "nerf-speed": (nerf_speed.NerfSpeedBenchmark, nerf_speed.main),
    "report": (report.Report, report.main),
    "scaling": (mlp.ScalingBenchmark, mlp.main),
    "surface": (surface.SurfaceBenchmark, surface.main),
}
"""Settings and function of each benchmark, beside those of the kinds of signal (`staf_nerf.bench.signals`)."""
