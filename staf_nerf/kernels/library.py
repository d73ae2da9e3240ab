"""The compiled library of CPU kernels: whether it is installed, and when it may be used.

The library is plain C, called through ctypes with the addresses of tensors. Building it needs a C compiler, but no
headers of torch or Python. It runs on torch's threads, and its results do not depend on their number.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

LEVELS = ("the compiler's default instructions", "AVX2", "AVX-512")

NUMBER, REAL, SIZE, ADDRESS = ctypes.c_int, ctypes.c_double, ctypes.c_ssize_t, ctypes.c_void_p

VERSION = 5
"""Version of the library's signatures, as in `staf_version` in native.c."""

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


def library() -> ctypes.CDLL | None:
    """Returns the compiled library, or None if it is missing or made for another version or machine."""
    return load()[0]


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Returns the compiled library, or None and, if there is one that cannot be used, why not."""
    folder = Path(__file__).parent
    paths = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None, None
    try:
        found = ctypes.CDLL(str(path))
        for name, arguments in ARGUMENTS.items():
            getattr(found, name).argtypes = arguments
        version = found.staf_version()
    except (OSError, AttributeError) as error:
        return None, f"{path} cannot be loaded: {error}"
    if version != VERSION:
        return None, f"{path} is of version {version}, and {VERSION} is needed"
    return found, None


def why_absent() -> str | None:
    """Returns why the library is not in use, with the remedy, or None if it is in use."""
    found, damage = load()
    if found is not None:
        return None
    if is_wrong_checkout():
        folder = Path(__file__).resolve().parents[2]
        return (
            f"Python imports staf_nerf from {folder}, where its C library is not built, and not the installed copy. "
            "Kernels run in plain torch, several times slower. Start Python in another folder, or install this "
            "checkout: pip install -e ."
        )
    if damage is not None:
        return (
            f"the C library {damage}. Kernels run in plain torch, several times slower. Install staf_nerf "
            "again, with --force-reinstall --no-deps."
        )
    return (
        "staf_nerf was installed without a C compiler. Its kernels run in plain torch, several times slower. Install "
        "gcc or clang, then install staf_nerf again."
    )


def is_broken() -> bool:
    """Returns whether the library should be in use and is not: it is damaged, or another copy of the package has it."""
    found, damage = load()
    return found is None and (damage is not None or is_wrong_checkout())


def is_wrong_checkout() -> bool:
    """Returns whether this is a checkout, while another copy is installed.

    Python finds the checkout first if it was started in that folder, for example.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return False
    try:
        installed = metadata.distribution("staf-nerf")
    except metadata.PackageNotFoundError:
        return False
    own = Path(__file__).resolve().parent
    libraries = [Path(str(path.locate())) for path in installed.files or () if path.name.startswith("_native.")]
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):  # such an installation lists no files of the package
        folder = Path(unquote(urlparse(origin["url"]).path), "staf_nerf", "kernels")
        libraries += folder.glob("_native.*")
    return any(path.resolve().parent != own for path in libraries if path.suffix in (".so", ".pyd"))


@functools.cache
def level() -> int:
    """Returns the instruction set in use, as an index of `LEVELS`."""
    return call("staf_level")


def call(name: str, *arguments: float | Tensor | None) -> int:
    """Calls a function of the library, with tensors as addresses and None as a null pointer.

    The library must be present. Output tensors must be contiguous. Contiguous copies are made of other inputs.

    Raises:
        RuntimeError: If a tensor has a tangent of forward-mode differentiation.
    """
    found = library()
    assert found is not None
    refuse_tangents(x for x in arguments if isinstance(x, Tensor))
    held = [x.contiguous() if isinstance(x, Tensor) else x for x in arguments]  # keeps copies alive during the call
    return getattr(found, name)(*(x.data_ptr() if isinstance(x, Tensor) else x for x in held))


def refuse_tangents(tensors: Iterable[Tensor]) -> None:
    """Raises RuntimeError if a tensor has a tangent of forward-mode differentiation, which kernels would drop.

    Such tensors reach a kernel only through a function that was compiled without them.
    """
    if forward_mode() and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise RuntimeError("these kernels have no forward-mode derivatives; use implementation='reference'")


def constant_when_compiled(function: Callable[[], bool]) -> Callable[[], bool]:
    """Does what `torch.compiler.assume_constant_result` does, without importing torch's compiler for a second."""
    function.__dict__["_dynamo_marked_constant"] = True
    return function


@constant_when_compiled
def serves() -> bool:
    """Returns whether the library is present and operators may be used. Warns once if it is missing."""
    return operators_serve() and _is_here_or_one_line()


@constant_when_compiled
def triton_serves() -> bool:
    """Returns whether the Triton kernels may be used: like `serves`, for a CUDA device."""
    return triton_is_here() and operators_serve()


@functools.cache
def triton_is_here() -> bool:
    """Returns whether Triton and the C compiler that it needs are installed, and it supports the CUDA device."""
    return (
        any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang")))
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.is_available()
        and torch.version.hip is None
        and torch.cuda.get_device_capability() >= (7, 0)
    )


@constant_when_compiled
def operators_serve() -> bool:
    """Returns whether operators of this package may be used.

    They may not under transformations of `torch.func` and forward-mode differentiation.
    """
    return not torch._C._are_functorch_transforms_active() and not forward_mode()


@constant_when_compiled
def forward_mode() -> bool:
    """Returns whether forward-mode differentiation is active (`torch.func`, `torch.autograd.forward_ad`)."""
    return forward_ad._current_level >= 0


def is_plain(*tensors: Tensor) -> bool:
    """Returns whether torch needs no operator: no compilation, no dispatch mode and no tensor subclass."""
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


load()  # at import, so that it notices a fork before its first use
