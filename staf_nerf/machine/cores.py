"""Adapts the threads of GNU OpenMP to other programs that use the same cores.

Between parallel regions these threads, which run torch's operations and our kernels, spin for some milliseconds before
they sleep. This is fastest if each thread has a core of its own. Beside another busy process it is far slower: a
spinning thread occupies the core that another thread of its team needs. OpenMP's own remedy is
`OMP_WAIT_POLICY=passive`. It must be set before the program starts, and it halves the speed of a program that runs
alone.

GNU OpenMP also spins only briefly while there are more OpenMP threads than cores (`gomp_throttled_spin_count_var` in
libgomp). So while other programs use the cores, a thread of this module keeps a second team of sleeping OpenMP threads.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

TASKS = Path("/proc/self/task")
INTERVAL = 0.25
"""Seconds between measurements of the time that our threads have waited for a core."""
BUSY, QUIET = 0.10, 0.03
"""Waiting time of all our threads together, divided by the elapsed time. Above `BUSY` other programs use the cores.
Below `QUIET` they do not."""
CALM = 8
"""Number of quiet measurements in a row, two seconds in all, after which the sleeping team ends."""

_users = 0
_lock = threading.Lock()
_watch: _Watch | None = None


@contextmanager
def shared_cores() -> Iterator[None]:
    """Context in which OpenMP's threads spin only briefly while other programs use the same cores.

    Contexts may be nested. Results do not change. It has no effect with one thread, with another OpenMP library than
    GNU's, or if the system does not report how long a thread has waited for a core (Linux does).
    """
    global _users, _watch
    with _lock:
        _users += 1
        if _users == 1 and torch.get_num_threads() > 1 and waited() is not None and (openmp := _gnu_openmp()):
            _watch = _Watch(openmp)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            watch, _watch = (_watch, None) if _users == 0 else (None, _watch)
        if watch is not None:
            watch.stop()


def waited() -> float | None:
    """Returns the seconds that all threads of this process have waited for a core so far, or None if not known."""
    total = 0
    try:
        for task in TASKS.iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
                continue
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


def is_throttled() -> bool:
    """Returns whether OpenMP's threads now spin only briefly."""
    return _watch is not None and _watch.team is not None


def _gnu_openmp() -> ctypes.CDLL | None:
    """Returns GNU's OpenMP library, or None if torch has not loaded it."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}
    # Open3D and others bring one, too; torch's own lies in its folder, or is the system's.
    path = min(paths, key=lambda path: ("/torch/" not in path, path), default=None)
    return ctypes.CDLL(path) if path else None


class _Watch:
    """A thread that measures whether other programs are busy, and keeps a sleeping team while they are."""

    def __init__(self, openmp: ctypes.CDLL) -> None:
        self.team: _Team | None = None
        self._openmp = openmp
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="staf-nerf cores", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        calm = 0
        then, before = time.monotonic(), waited() or 0.0
        while not self._end.wait(INTERVAL):
            now, after = time.monotonic(), waited() or 0.0
            share = (after - before) / (now - then)
            then, before = now, after
            if share > BUSY:
                calm = 0
                self.team = self.team or _Team(self._openmp)
            else:
                calm = calm + 1 if share < QUIET else 0
            if self.team is not None and calm >= CALM:
                self.team.end()
                self.team = None
        if self.team is not None:
            self.team.end()
            self.team = None


class _Team:
    """A thread that owns a team of sleeping OpenMP threads, at least one per core, until it ends."""

    def __init__(self, openmp: ctypes.CDLL) -> None:
        self._openmp = openmp
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="staf-nerf sleeping team", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _hold(self) -> None:
        work = torch.zeros(2**20)  # large enough for a parallel region, which creates this thread's team
        self._openmp.omp_set_num_threads(max(os.cpu_count() or 1, torch.get_num_threads()))  # for this thread only
        work.add_(1.0)
        self._end.wait()
