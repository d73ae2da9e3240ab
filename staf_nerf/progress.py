"""Stages of a job: a progress bar and the time for each, steps that may fail, the memory use, and what a job costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from staf_nerf.errors import IncompleteError, debugging, explain


@dataclass
class Attempts:
    """Steps of a job that may fail. The results of the other steps are kept."""

    console: Console
    failed: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Reason of the failure, by the name of the step."""

    @contextmanager
    def attempt(self, name: str) -> Iterator[Callable[..., None]]:
        """Context of a step that may fail: prints and records the reason. With STAF_DEBUG=1 the error is raised."""
        try:
            yield lambda *_: None
        except Exception as error:
            if debugging():
                raise
            fault = f"{type(error).__name__}: {error} (a bug in staf-nerf; STAF_DEBUG=1 shows the traceback)"
            self.failed[name] = explain(error) or fault
            self.console.print(f"{name} failed: {self.failed[name]}", style="yellow", markup=False, soft_wrap=True)

    def refuse_failures(self) -> None:
        """Ends a job with an error if a step failed, after all other results were written.

        Raises:
            IncompleteError: If a step failed.
        """
        if self.failed:
            raise IncompleteError(f"not all results were made; failed, for the reasons above: {', '.join(self.failed)}")


@dataclass
class Stages(Attempts):
    """Progress bars, one per stage, and the time that each stage took.

    Usage: `with Stages(console) as stages`, then `with stages("cleaning") as report: report(0.5)`.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage took, by its name."""

    def __enter__(self) -> Stages:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[..., None]]:
        """Context of a stage. It yields a function to call with the fraction done and, optionally, a note.

        Before its first call the bar only pulses.
        """
        task = self._progress.add_task(name, total=None, note="")
        start = time.perf_counter()
        try:
            yield lambda done, note="": self._update(task, done, note)
        finally:
            self.seconds[name] = time.perf_counter() - start
        self._progress.update(task, total=1.0, completed=1.0)

    @contextmanager
    def attempt(self, name: str) -> Iterator[Callable[..., None]]:
        """Context of a stage that may fail."""
        with super().attempt(name), self(name) as report:
            yield report

    def _update(self, task: TaskID, done: float, note: str) -> None:
        self._progress.update(task, total=1.0, completed=done)
        if note:
            self._progress.update(task, note=note)


def peak_memory() -> int | None:
    """Returns the peak memory use of this process in bytes, or None if the system does not report it (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes elsewhere


@dataclass(frozen=True)
class Cost:
    """What training costs."""

    steps: int
    """Number of steps of the method's default."""
    seconds_per_step: float
    """Median of the steps that were tried."""
    start_seconds: float
    """Time until the first step: reading and converting the photos."""
    peak_memory_bytes: int | None
    """Largest memory of this process so far. None: the system does not report it."""

    @property
    def seconds(self) -> float:
        """Time of the whole training."""
        return self.start_seconds + self.steps * self.seconds_per_step
