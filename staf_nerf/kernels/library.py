"""The compiled library of kernels for a CPU: whether it is here, and when it may be used.

It is plain C, called through ctypes with the addresses of tensors, so that building it needs a C compiler and nothing
of torch or Python. It runs on torch's threads, and its results do not depend on their number.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

LEVELS = ("the compiler's default instructions", "AVX2", "AVX-512")

NUMBER, REAL, SIZE, ADDRESS = ctypes.c_int, ctypes.c_double, ctypes.c_ssize_t, ctypes.c_void_p

VERSION = 5
"""Of the library's signatures; `staf_version` in native.c."""

ARGUMENTS = {
    "staf_version": [],
    "staf_level": [],
    "staf_forward": [NUMBER] * 4 + [SIZE] * 3 + [ADDRESS] * 6,
    "staf_backward": [NUMBER] * 4 + [SIZE] * 3 + [ADDRESS] * 11,
    "staf_second": [NUMBER] * 4 + [SIZE] * 3 + [ADDRESS] * 17,
    "staf_pointwise": [NUMBER] * 5 + [REAL, SIZE] + [ADDRESS] * 3,
    "ray_weights": [NUMBER] * 3 + [SIZE] * 2 + [ADDRESS] * 3,
    "ray_weights_backward": [NUMBER] * 3 + [SIZE] * 2 + [ADDRESS] * 3,
    "ray_resample": [NUMBER] * 3 + [SIZE] * 3 + [REAL] + [ADDRESS] * 4,
    "ray_distortion": [NUMBER] * 3 + [SIZE] * 2 + [ADDRESS] * 4,
    "ray_points": [NUMBER] * 3 + [SIZE] * 2 + [ADDRESS] * 5,
    "cube_contraction": [NUMBER] * 3 + [SIZE] + [ADDRESS] * 2,
    "hash_grid_forward": [NUMBER] * 2 + [SIZE] * 5 + [ADDRESS] * 7,
    "hash_grid_backward": [NUMBER] * 2 + [SIZE] * 5 + [ADDRESS] * 9,
    "hash_grid_second": [NUMBER] * 2 + [SIZE] * 5 + [ADDRESS] * 12,
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library, or None where this installation has none, or one of another version or machine."""
    folder = Path(__file__).parent
    paths = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        found = ctypes.CDLL(str(path))
        for name, arguments in ARGUMENTS.items():
            getattr(found, name).argtypes = arguments
        return found if found.staf_version() == VERSION else None
    except (OSError, AttributeError):
        return None


def why_absent() -> str | None:
    """Why the library is not in use and what to do about it, in one sentence or two; None where it is in use."""
    if library() is not None:
        return None
    if is_wrong_checkout():
        folder = Path(__file__).resolve().parents[2]
        return (
            f"Python imports staf_nerf from {folder}, where its C library was never built, and not from where it is "
            "installed: kernels run in plain torch, several times slower. Start Python in another folder, or install "
            "the checkout itself: pip install -e ."
        )
    return (
        "staf_nerf was installed without a C compiler: its kernels run in plain torch, several times slower. Install "
        "one (gcc or clang), then staf_nerf again."
    )


def is_wrong_checkout() -> bool:
    """Whether this is a checkout that Python finds first, such as the folder that it was started in, while another
    copy is installed."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return False
    try:
        installed = metadata.distribution("staf-nerf")
    except metadata.PackageNotFoundError:
        return False
    libraries = [Path(str(path.locate())) for path in installed.files or () if path.name.startswith("_native.")]
    return any(path.resolve().parent != Path(__file__).resolve().parent for path in libraries)


@functools.cache
def level() -> int:
    """The instruction set in use, an index of `LEVELS`."""
    return call("staf_level")


def call(name: str, *arguments: float | Tensor | None) -> int:
    """Calls a function of the library, which must be here: a tensor by its address, None as a null pointer.

    What it fills must be contiguous; other tensors are made so.

    Raises:
        RuntimeError: If a tensor belongs to forward-mode differentiation.
    """
    found = library()
    assert found is not None
    refuse_tangents(x for x in arguments if isinstance(x, Tensor))
    held = [x.contiguous() if isinstance(x, Tensor) else x for x in arguments]  # alive until the call is over
    return getattr(found, name)(*(x.data_ptr() if isinstance(x, Tensor) else x for x in held))


def refuse_tangents(tensors: Iterable[Tensor]) -> None:
    """Raises RuntimeError if a tensor belongs to forward-mode differentiation, which kernels would silently drop.

    Such tensors come to a kernel only through a function that was compiled without them.
    """
    if forward_mode() and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise RuntimeError("these kernels have no forward-mode derivatives; use implementation='reference'")


def constant_when_compiled(function: Callable[[], bool]) -> Callable[[], bool]:
    """What `torch.compiler.assume_constant_result` does, without its import of torch's compiler: a second of time."""
    function.__dict__["_dynamo_marked_constant"] = True
    return function


@constant_when_compiled
def serves() -> bool:
    """Whether the library is here and operators may be used; one line says once what is lost where it is absent."""
    return operators_serve() and _is_here_or_one_line()


@constant_when_compiled
def triton_serves() -> bool:
    """Whether Triton's kernels may be used: as `serves`, for a CUDA device."""
    return triton_is_here() and operators_serve()


@functools.cache
def triton_is_here() -> bool:
    """Whether Triton is installed, with the C compiler that it needs, and the CUDA device is one that it serves."""
    return (
        any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang")))
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.is_available()
        and torch.version.hip is None
        and torch.cuda.get_device_capability() >= (7, 0)
    )


@constant_when_compiled
def operators_serve() -> bool:
    """Whether nothing is going on that only torch's own operations can follow.

    That is a transformation of `torch.func` or forward-mode differentiation.
    """
    return not torch._C._are_functorch_transforms_active() and not forward_mode()


@constant_when_compiled
def forward_mode() -> bool:
    """Whether forward-mode differentiation is going on, by `torch.func` or `torch.autograd.forward_ad`."""
    return forward_ad._current_level >= 0


def is_plain(*tensors: Tensor) -> bool:
    """Whether torch need not see an operator: nothing is compiled or dispatched elsewhere, no tensor is special."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and all(type(x) in (Tensor, nn.Parameter) for x in tensors)
    )


@functools.cache
def _is_here_or_one_line() -> bool:
    if (reason := why_absent()) is not None:
        warnings.warn(reason, stacklevel=5)
    return library() is not None


library()  # here, so that it knows of a fork that comes before its first use
