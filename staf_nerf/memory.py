"""Memory of training on a CPU: what one step frees is there for the next."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""

LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest block that glibc lets its heap hold."""
MOST_KEPT = 2**31 - 1
"""Bytes of free memory at the end of the heap that are not given back."""
DEFAULT = 128 * 1024
"""Both, where nothing else is said."""


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to hold on to what is freed, in this process.

    By default it returns large blocks to the system, which clears each of their pages when a step of training asks for
    them again: 6000 pages a step, a tenth of its time.

    Returns:
        Whether there was such an allocator and it agreed.
    """
    return _hold(LARGEST_KEPT, MOST_KEPT)


def return_freed_memory() -> bool:
    """Gives what `keep_freed_memory` kept back to the system, and from now on what is freed as before.

    Returns:
        Whether there was such an allocator and it agreed.
    """
    agreed = _hold(DEFAULT, DEFAULT)
    if agreed:
        ctypes.CDLL(None).malloc_trim(0)
    return agreed


def _hold(largest: int, most: int) -> bool:
    """Sets up to what size freed blocks stay in the heap, and how much of them at its end."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, largest) and mallopt(M_TRIM_THRESHOLD, most))
