"""Memory: freed memory is kept for the next step of a training on a CPU, and how much is free is told."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""

LARGEST_KEPT = 32 * 2**20
"""Size in bytes of the largest block that glibc may keep in its heap."""
MOST_KEPT = 2**31 - 1
"""Number of free bytes at the end of the heap that are kept."""
DEFAULT = 128 * 1024
"""Default of both, in bytes."""


def keep_freed_memory() -> bool:
    """Makes glibc's allocator keep freed memory in this process.

    By default it returns large blocks to the system, which has to clear their pages when the next training step
    allocates them again: 6000 pages per step, and a tenth of the step's time.

    Returns:
        Whether the setting was applied. It is not without glibc.
    """
    return _hold(LARGEST_KEPT, MOST_KEPT)


def return_freed_memory() -> bool:
    """Returns memory kept by `keep_freed_memory` to the system, and restores the default behaviour.

    Returns:
        Whether the setting was applied. It is not without glibc.
    """
    agreed = _hold(DEFAULT, DEFAULT)
    if agreed:
        ctypes.CDLL(None).malloc_trim(0)
    return agreed


def memory_available() -> int | None:
    """Returns the bytes of memory that are free for this process, or None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def _hold(largest: int, most: int) -> bool:
    """Sets the largest size of kept blocks and the kept memory at the end of the heap."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, largest) and mallopt(M_TRIM_THRESHOLD, most))
