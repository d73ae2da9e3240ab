"""The trainable Fourier sum in native code for a CPU: float32 and float64, with first and second derivatives.

Conventions are those of `staf_nerf.kernels.reference`, whose formulas these are. The library (`native.c`) is plain C,
called through ctypes with the addresses of tensors, so that building it needs a C compiler and nothing of torch or
Python. It runs on torch's threads, and its results do not depend on their number.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from staf_nerf.kernels import reference

LEVELS = ("the compiler's default instructions", "AVX2", "AVX-512")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled library, or None where this installation has none."""
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        if (path := folder / f"_native{suffix}").is_file():
            break
    else:
        return None
    try:
        found = ctypes.CDLL(str(path))
    except OSError:  # built for another machine
        return None
    number, size, address = ctypes.c_int, ctypes.c_ssize_t, ctypes.c_void_p
    for name, tensors in (("forward", 5), ("backward", 9), ("second", 14)):
        getattr(found, f"staf_{name}").argtypes = [number] * 4 + [size] * 3 + [address] * tensors
    return found


@functools.cache
def level() -> int:
    """The instruction set in use, an index of `LEVELS`."""
    found = library()
    assert found is not None
    return found.staf_level()


def fits(*tensors: Tensor) -> bool:
    """Whether these are tensors that the library can work on: all float32 or all float64, on a CPU."""
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(x.device.type == "cpu" and x.dtype == dtype for x in tensors)


def _call(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], z: Tensor, amplitude: Tensor) -> None:
    """Calls a function of the library; it fills `outputs`, which are contiguous."""
    found = library()
    assert found is not None
    held = [x.contiguous() for x in inputs]  # alive until the call is over
    features = z.shape[-1] if z.ndim else 1
    sizes = (z.numel() // max(features, 1), features, len(amplitude))
    status = getattr(found, f"staf_{name}")(
        level(),
        z.dtype == torch.float64,
        torch.get_num_threads(),
        amplitude.ndim == 2,
        *sizes,
        *(x.data_ptr() for x in (*held, *outputs)),
    )
    if status:
        raise MemoryError("not enough memory for the sums of the parameters' gradients")


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in tensors)


# --- operators, which torch.compile knows and autograd differentiates ------------------------------------------------


@torch.library.custom_op("staf_nerf::fourier_sum", mutates_args=())
def fourier_sum(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """σ(z); see `staf_nerf.kernels.staf`."""
    (out,) = _like(z)
    _call("forward", (z, amplitude, frequency, phase), (out,), z, amplitude)
    return out


@torch.library.custom_op("staf_nerf::fourier_sum_backward", mutates_args=())
def fourier_sum_backward(
    grad: Tensor, z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of <grad, σ(z)> with respect to z, C, Ω and Φ."""
    inputs = (grad, z, amplitude, frequency, phase)
    to_z, to_amplitude, to_frequency, to_phase = outputs = _like(*inputs[1:])
    _call("backward", inputs, outputs, z, amplitude)
    return to_z, to_amplitude, to_frequency, to_phase


@torch.library.custom_op("staf_nerf::fourier_sum_second", mutates_args=())
def fourier_sum_second(
    vz: Tensor,
    vamplitude: Tensor,
    vfrequency: Tensor,
    vphase: Tensor,
    grad: Tensor,
    z: Tensor,
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of <v, `fourier_sum_backward`(grad, z, …)> with respect to grad, z, C, Ω and Φ."""
    inputs = (vz, vamplitude, vfrequency, vphase, grad, z, amplitude, frequency, phase)
    to_grad, to_z, to_amplitude, to_frequency, to_phase = outputs = _like(*inputs[4:])
    _call("second", inputs, outputs, z, amplitude)
    return to_grad, to_z, to_amplitude, to_frequency, to_phase


fourier_sum.register_fake(lambda *inputs: _like(inputs[0])[0])
fourier_sum_backward.register_fake(lambda *inputs: _like(*inputs[1:]))
fourier_sum_second.register_fake(lambda *inputs: _like(*inputs[4:]))


def _save(ctx, inputs: tuple[Tensor, ...], output) -> None:
    ctx.save_for_backward(*inputs)


def _third(ctx, *directions: Tensor) -> tuple[Tensor | None, ...]:
    """Derivatives beyond the second, which are rare: through the reference's formulas, by autograd."""
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in ctx.saved_tensors]
        outputs = reference.second(*inputs)
        return torch.autograd.grad(outputs, inputs, directions, create_graph=create, allow_unused=True)


fourier_sum.register_autograd(lambda ctx, grad: fourier_sum_backward(grad, *ctx.saved_tensors), setup_context=_save)
fourier_sum_backward.register_autograd(
    lambda ctx, *directions: fourier_sum_second(*directions, *ctx.saved_tensors), setup_context=_save
)
fourier_sum_second.register_autograd(_third, setup_context=_save)
