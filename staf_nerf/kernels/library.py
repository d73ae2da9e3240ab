"""The compiled library of kernels for a CPU: whether it is here, and when it may be used.

It is plain C, called through ctypes with the addresses of tensors, so that building it needs a C compiler and nothing
of torch or Python. It runs on torch's threads, and its results do not depend on their number.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import warnings
from pathlib import Path

import torch
from torch.autograd import forward_ad

LEVELS = ("the compiler's default instructions", "AVX2", "AVX-512")

NUMBER, SIZE, ADDRESS = ctypes.c_int, ctypes.c_ssize_t, ctypes.c_void_p

ARGUMENTS = {
    "staf_level": [],
    "staf_forward": [NUMBER] * 4 + [SIZE] * 3 + [ADDRESS] * 5,
    "staf_backward": [NUMBER] * 4 + [SIZE] * 3 + [ADDRESS] * 9,
    "staf_second": [NUMBER] * 4 + [SIZE] * 3 + [ADDRESS] * 14,
    "hash_grid_forward": [NUMBER] + [SIZE] * 5 + [ADDRESS] * 7,
    "hash_grid_backward": [NUMBER] + [SIZE] * 5 + [ADDRESS] * 9,
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library, or None where this installation has none."""
    folder = Path(__file__).parent
    paths = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        found = ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None
    for name, arguments in ARGUMENTS.items():
        getattr(found, name).argtypes = arguments
    return found


@functools.cache
def level() -> int:
    """The instruction set in use, an index of `LEVELS`."""
    return call("staf_level")


def call(name: str, *arguments: int | bool | None) -> int:
    """Calls a function of the library, which must be here; addresses are those of contiguous tensors."""
    found = library()
    assert found is not None
    return getattr(found, name)(*arguments)


def serves() -> bool:
    """Whether the library is here and nothing that only torch's own operations can follow is going on.

    That is a transformation of `torch.func` or forward-mode differentiation. Says once, in one line, what is lost
    where the library is absent.
    """
    if not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    ):
        return False
    return _is_here()


@torch.compiler.assume_constant_result
def _is_here() -> bool:
    return _is_here_or_one_line()


@functools.cache
def _is_here_or_one_line() -> bool:
    if library() is None:
        warnings.warn(
            "staf_nerf was installed without a C compiler: its kernels run in plain torch, several times slower. "
            "Install one (gcc or clang), then staf_nerf again.",
            stacklevel=6,
        )
    return library() is not None
