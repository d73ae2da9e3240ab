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
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from staf_nerf._torch_compat import (
    constant_when_compiled,
    has_dispatch_mode,
    is_forward_mode,
    is_traced,
    is_transformed,
)
from staf_nerf.kernels.signatures import ERRORS, INDICES, SIGNATURES, VERSION, Shape

LEVELS = ("the compiler's default instructions", "AVX2", "AVX-512")


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
        for name, signature in SIGNATURES.items():
            getattr(found, name).argtypes = signature.types
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
def best_level() -> int:
    """Returns the best instruction set of this processor, as an index of `LEVELS`."""
    return call("staf_level")


def level() -> int:
    """Returns the instruction set in use, as an index of `LEVELS`."""
    return best_level() if _level is None else _level


_level: int | None = None
"""The choice of `at_level`."""


@contextmanager
def at_level(level: int) -> Iterator[None]:
    """Makes all threads use an instruction set of this processor, which need not be the best one."""
    global _level
    if not 0 <= level <= best_level():
        raise ValueError(f"level must be between 0 and {best_level()} on this processor, got {level}")
    before, _level = _level, level
    try:
        yield
    finally:
        _level = before


def call(name: str) -> int:
    """Calls a function of the library that has no arguments. The library must be present."""
    found = library()
    assert found is not None
    return getattr(found, name)()


def run(
    name: str,
    dtype: torch.dtype,
    numbers: Sequence[float],
    inputs: Sequence[Tensor | None],
    *,
    sizes: Sequence[Any] | None = None,
    unwanted: Collection[str] = (),
) -> tuple[Tensor, ...]:
    """Calls a function of the library on tensors that it has checked. The library must be present.

    Args:
        name: A name in `staf_nerf.kernels.signatures.SIGNATURES`.
        dtype: The precision, float32 or float64.
        numbers: The numbers of the signature.
        inputs: The input tensors. C gets contiguous copies of those that are not contiguous.
        sizes: The sizes from which the shapes follow, if they are not the numbers.
        unwanted: Names of optional outputs that are not computed. They stay zero.

    Returns:
        The output tensors, which are new.

    Raises:
        ValueError: If an input has another shape or dtype than the signature says, or is not on a CPU.
        RuntimeError: If an input has a tangent of forward-mode differentiation.
        MemoryError: If there is no memory for intermediate results.
    """
    found, signature = library(), SIGNATURES[name]
    assert found is not None
    refuse_tangents(x for x in inputs if x is not None)
    wanted_inputs, wanted_outputs = _expected(name, dtype, tuple(numbers if sizes is None else sizes))
    addresses, copies = _addresses(inputs, wanted_inputs)
    like = next(x for x in inputs if x is not None)
    outputs = []
    for output, shape in wanted_outputs:
        outputs.append(like.new_zeros(shape) if output in signature.zeroed else like.new_empty(shape))
        addresses.append(None if output in unwanted else outputs[-1].data_ptr())
    precision = () if signature.single else (dtype is torch.float64,)
    status = getattr(found, name)(level(), *precision, torch.get_num_threads(), *numbers, *addresses)
    del copies  # they had to live until now
    if status:
        error, text = ERRORS[status]
        raise error(text)
    return tuple(outputs)


@functools.lru_cache(maxsize=1024)  # training repeats its sizes
def _expected(
    name: str, dtype: torch.dtype, sizes: tuple[Any, ...]
) -> tuple[list[tuple[str, Shape, torch.dtype, bool]], list[tuple[str, Shape]]]:
    """Returns name, shape, dtype and whether None is allowed for each input, and name and shape of each output."""
    signature = SIGNATURES[name]
    if dtype != torch.float32 and (signature.single or dtype != torch.float64):
        raise ValueError(f"dtype must be float32{'' if signature.single else ' or float64'}, got {dtype}")
    shapes = list(signature.shapes(*sizes).items())
    inputs, outputs = shapes[: -signature.num_outputs], shapes[-signature.num_outputs :]
    return [(x, s, torch.int32 if x in INDICES else dtype, x in signature.optional) for x, s in inputs], outputs


def _addresses(
    tensors: Sequence[Tensor | None], expected: list[tuple[str, Shape, torch.dtype, bool]]
) -> tuple[list[int | None], list[Tensor]]:
    """Returns the addresses of tensors that are as expected, and the contiguous copies to which some of them belong."""
    addresses, copies = [], []
    for x, (name, shape, dtype, is_optional) in zip(tensors, expected, strict=True):
        if x is None and is_optional:
            addresses.append(None)
            continue
        if x is None or x.shape != shape or x.dtype is not dtype or not x.is_cpu:
            got = "None" if x is None else f"{tuple(x.shape)}, {x.dtype}, {x.device}"
            raise ValueError(f"{name} must have shape {tuple(shape)} and dtype {dtype} on a CPU, got {got}")
        if not x.is_contiguous():
            copies.append(x := x.contiguous())
        addresses.append(x.data_ptr())
    return addresses, copies


def check_shapes(name: str, sizes: Sequence[Any], inputs: Sequence[Tensor | None]) -> None:
    """Raises ValueError if an input does not have the shape that a function of the library wants.

    `run` does this too. Kernels that are not in C, but have the same signature, need it.
    """
    shapes = SIGNATURES[name].shapes(*sizes)
    for x, (key, shape) in zip(inputs, shapes.items(), strict=False):  # outputs come last
        if x is not None and x.shape != shape:
            raise ValueError(f"{key} must have shape {tuple(shape)}, got {tuple(x.shape)}")


def refuse_tangents(tensors: Iterable[Tensor]) -> None:
    """Raises RuntimeError if a tensor has a tangent of forward-mode differentiation, which kernels would drop.

    Such tensors reach a kernel only through a function that was compiled without them.
    """
    if is_forward_mode() and any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise RuntimeError("these kernels have no forward-mode derivatives; use implementation='reference'")


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

    They may not under transformations of `torch.func`, forward-mode differentiation and `torch.jit.trace`. Plain torch
    keeps a trace free of this package, and right at any batch size.
    """
    return not (is_transformed() or is_forward_mode() or is_traced())


PLAIN = frozenset({Tensor, nn.Parameter, int, float, bool, type(None)})
"""Types of inputs for which torch needs no operator."""


def is_plain(*inputs: Any) -> bool:
    """Returns whether torch needs no operator: no compilation, no dispatch mode and no tensor subclass."""
    return not torch.compiler.is_compiling() and not has_dispatch_mode() and PLAIN.issuperset(map(type, inputs))


@functools.cache
def _is_here_or_one_line() -> bool:
    if (reason := why_absent()) is not None:
        warnings.warn(reason, stacklevel=5)
    return library() is not None


load()  # at import, so that it notices a fork before its first use
