"""Stages of a job on screen: a bar for each, its time, and the memory at its peak."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@dataclass
class Stages:
    """Shows one bar after the other, and keeps how long each took.

    Used as a context: `with Stages(console) as stages`, then `with stages("cleaning") as report: report(0.5)`.
    """

    console: Console
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

    def _update(self, task: TaskID, done: float, note: str) -> None:
        self._progress.update(task, total=1.0, completed=done)
        if note:
            self._progress.update(task, note=note)


def peak_memory() -> int:
    """Bytes that this process held at its peak so far."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else 1024 * held
