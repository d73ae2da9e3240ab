"""Timings of several functions in turn, so that other load on the machine affects all of them alike.

Times are seconds per call. Ratios are formed within each round and then summarised over rounds, which makes them more
stable than the times themselves.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

SHORTEST = 0.02
"""Minimum duration of a timing in seconds. Shorter functions are called several times."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a list of values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interleave(
    functions: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Calls the functions in turn and returns the seconds per call of each, one value per round.

    Args:
        functions: Functions to time, by name. Timings include pending work on a CUDA device.
        rounds: Number of timings of each function.
        warmup: Number of calls of each function before its first timing.
    """
    calls = {}
    for name, function in functions.items():
        for _ in range(warmup):
            function()
        calls[name] = max(1, round(SHORTEST / _seconds(function, 1)))
    times: dict[str, list[float]] = {name: [] for name in functions}
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, function in functions.items():
                times[name].append(_seconds(function, calls[name]))
    finally:
        if collects:
            gc.enable()
    return times


def ratios(times: Mapping[str, list[float]], name: str, baseline: str) -> Spread:
    """Returns the time of a function relative to the baseline, over the rounds."""
    return Spread.of([a / b for a, b in zip(times[name], times[baseline], strict=True)])


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """Sets the number of torch's threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(function: Callable[[], object], calls: int) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    _wait()
    return (time.perf_counter() - start) / calls


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
