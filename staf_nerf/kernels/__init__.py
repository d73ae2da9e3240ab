"""Activations and their derivatives: one function each, with interchangeable implementations."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor

from staf_nerf.kernels import fourier_sum, library, native, reference
from staf_nerf.kernels.library import triton_is_here
from staf_nerf.kernels.pointwise import pointwise
from staf_nerf.kernels.precision import HALF, in_float32

Implementation = Literal["auto", "native", "triton", "reference"]
IMPLEMENTATIONS = ("auto", "native", "triton", "reference")

__all__ = ["Implementation", "pointwise", "staf", "triton_is_here"]


def staf(
    z: Tensor,
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    bias: Tensor | None = None,
    *,
    implementation: Implementation = "auto",
) -> Tensor:
    """Evaluates σ(z) = Σᵢ Cᵢ sin(Ωᵢ z + Φᵢ), or σ(z + bias).

    Args:
        z: Pre-activations, (..., n). Half precision is computed in float32 and rounded once, at the end.
        amplitude: C, (τ,) or (τ, n). With (τ,) and many float32 values (half a million over τ - 3) the cost on a CPU
            does not depend on τ: σ is then evaluated by piecewise cubic polynomials, with an error below rounding.
        frequency: Ω, in the shape of `amplitude`, in radians per unit of z.
        phase: Φ, in the shape of `amplitude`, in radians.
        bias: Bias of the linear layer before the activation, (n,). On a CPU, adding it here and not in that layer saves
            a read and a write of all values, forward and backward.
        implementation: "reference": plain torch, on any device. "native": C, for float32 and float64 on a CPU.
            "triton": for float32 and half precision on a CUDA device. "auto": the fastest one that can be used. Under
            `torch.func`, forward-mode differentiation and `torch.jit.trace` that is the reference.

    Returns:
        The activation, in the shape and dtype of `z`.

    Raises:
        ValueError: If the shapes of the parameters differ, or are neither (τ,) nor (τ, n), if the shape of the bias is
            not (n,), or if the implementation is unknown.
        RuntimeError: If "native" or "triton" is requested and cannot be used.
    """
    if not amplitude.shape == frequency.shape == phase.shape:
        raise ValueError(
            "amplitude, frequency and phase must have the same shape, got "
            f"{tuple(amplitude.shape)}, {tuple(frequency.shape)}, {tuple(phase.shape)}"
        )
    reference.check_amplitude(z, amplitude)
    if bias is not None and (bias.ndim != 1 or bias.shape != z.shape[-1:]):
        raise ValueError(
            f"bias must have shape (n,) with z of shape (..., n), got {tuple(bias.shape)}, {tuple(z.shape)}"
        )
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {list(IMPLEMENTATIONS)}, got {implementation!r}")
    inputs = (z, amplitude, frequency, phase)
    native_fits = implementation in ("auto", "native") and native.fits(*inputs) and library.serves()
    if bias is not None and native_fits and amplitude.ndim == 1 and native.fits(z, bias):
        return fourier_sum.fourier_sum(*inputs, bias)
    if bias is not None and z.dtype in HALF:
        return in_float32(functools.partial(staf, implementation=implementation), *inputs, bias)
    if bias is not None:
        return staf(z + bias, amplitude, frequency, phase, implementation=implementation)
    none = amplitude.new_empty(0)
    if native_fits or (implementation in ("auto", "triton") and _triton_fits(*inputs)):
        return fourier_sum.fourier_sum(*inputs, none)
    if z.dtype in HALF:
        return in_float32(functools.partial(staf, implementation=implementation), *inputs)
    if implementation in ("native", "triton"):
        needs = {
            "native": "the compiled library, float32 or float64 on a CPU",
            "triton": "Triton, float32 or half precision on a CUDA device",
        }[implementation]
        raise RuntimeError(
            f"implementation {implementation!r} needs {needs}, and no torch.func, forward-mode "
            "differentiation or torch.jit.trace"
        )
    return reference.staf(*inputs)


def _triton_fits(z: Tensor, *parameters: Tensor) -> bool:
    return (
        z.device.type == "cuda"
        and z.dtype in (torch.float32, *HALF)
        and all(x.device == z.device and x.dtype == torch.float32 for x in parameters)
        and library.triton_serves()
    )
