"""Sharing the processor's cores with other programs.

Between parallel regions the threads of GNU's OpenMP, torch's and ours alike, wait in a loop for some milliseconds
before they sleep. On cores of their own that is quickest. Beside another busy process it is far slower: a waiting
thread keeps a core from the one that it waits for. OpenMP's own remedy is `OMP_WAIT_POLICY=passive`, which must be set
before the program starts and costs a program that is alone half of its speed.

The library waits briefly, too, while there are more OpenMP threads than cores (`gomp_throttled_spin_count_var` in
libgomp). So while other programs want our cores, a thread of ours holds a second team of OpenMP threads, which sleep.
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
"""Seconds between two looks at how long our threads have waited for a core."""
BUSY, QUIET = 0.10, 0.03
"""Share of the time that our threads, taken together, waited for a core: from the one on others are busy, below the
other they are not."""
CALM = 8
"""So many quiet looks in a row end it: the waits of two seconds."""

_users = 0
_lock = threading.Lock()
_watch: _Watch | None = None


@contextmanager
def shared_cores() -> Iterator[None]:
    """While it lasts, OpenMP's threads wait in a way that suits whether other programs want the same cores.

    It may be nested. It has no effect on results, and none where it does not apply: with one thread, with another
    OpenMP library than GNU's, or where the system does not tell how long a thread has waited for a core (Linux does).
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
    """Seconds that this process's threads have waited for a core so far, together; None where nobody counts."""
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
    """Whether OpenMP's threads are made to wait briefly now."""
    return _watch is not None and _watch.team is not None


def _gnu_openmp() -> ctypes.CDLL | None:
    """GNU's OpenMP library, if torch has loaded it."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    path = next((line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line), None)
    return ctypes.CDLL(path) if path else None


class _Watch:
    """A thread that looks whether others are busy, and holds a sleeping team while they are."""

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
    """A thread that owns as many OpenMP threads as there are cores, all asleep, until it ends."""

    def __init__(self, openmp: ctypes.CDLL) -> None:
        self._openmp = openmp
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="staf-nerf sleeping team", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _hold(self) -> None:
        work = torch.zeros(2**20)  # large enough for a parallel region, which makes this thread's team
        self._openmp.omp_set_num_threads(max(os.cpu_count() or 1, torch.get_num_threads()))  # for this thread alone
        work.add_(1.0)
        self._end.wait()
