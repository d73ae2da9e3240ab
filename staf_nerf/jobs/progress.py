"""Stages of a job on screen: a bar for each, its time, and the memory at its peak."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from staf_nerf.errors import IncompleteError, debugging, explain


@dataclass
class Attempts:
    """Steps of a job whose failure does not take away what the other steps made."""

    console: Console
    failed: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Why a step made nothing, by its name."""

    @contextmanager
    def attempt(self, name: str) -> Iterator[Callable[..., None]]:
        """A step that may fail: its reason is shown at once and kept. With STAF_DEBUG=1 the error is raised."""
        try:
            yield lambda *_: None
        except Exception as error:
            if debugging():
                raise
            fault = f"{type(error).__name__}: {error} (a fault of staf-nerf; STAF_DEBUG=1 shows where)"
            self.failed[name] = explain(error) or fault
            self.console.print(f"{name} failed: {self.failed[name]}", style="yellow", markup=False, soft_wrap=True)

    def refuse_failures(self) -> None:
        """Ends a job whose other results are written.

        Raises:
            IncompleteError: If a step failed.
        """
        if self.failed:
            raise IncompleteError(f"not everything was made; failed, for the reasons above: {', '.join(self.failed)}")


@dataclass
class Stages(Attempts):
    """Shows one bar after the other, and keeps how long each took.

    Used as a context: `with Stages(console) as stages`, then `with stages("cleaning") as report: report(0.5)`.
    """

    seconds: dict[str, float] = field(default_factory=dict)

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
        """A stage; what it yields is called with the part that is done and, if there is any, a note.

        Until it is, nobody knows the part, and the bar only moves.
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
        """A stage that may fail."""
        with super().attempt(name), self(name) as report:
            yield report

    def _update(self, task: TaskID, done: float, note: str) -> None:
        self._progress.update(task, total=1.0, completed=done)
        if note:
            self._progress.update(task, note=note)


def memory_available() -> int | None:
    """Bytes of memory that are free for this process; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def peak_memory() -> int | None:
    """Bytes that this process held at its peak so far; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else 1024 * held
