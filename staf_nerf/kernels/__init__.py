"""The trainable Fourier sum and its derivatives: one function, interchangeable implementations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from staf_nerf.kernels import library, native, reference

Implementation = Literal["auto", "native", "reference"]

__all__ = ["Implementation", "staf"]


def staf(
    z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, *, implementation: Implementation = "auto"
) -> Tensor:
    """Evaluates σ(z) = Σᵢ Cᵢ sin(Ωᵢ z + Φᵢ).

    Args:
        z: Pre-activations, (..., n). Half precision is computed in float32 and rounded once, at the end.
        amplitude: C, (τ,) or (τ, n).
        frequency: Ω, the shape of `amplitude`; radians per unit of z.
        phase: Φ, the shape of `amplitude`; radians.
        implementation: "reference": plain torch, anywhere. "native": C, for float32 and float64 on a CPU. "auto": the
            fastest that can be used; under `torch.func` and forward-mode differentiation that is the reference.

    Returns:
        The activation, of the shape and dtype of `z`.

    Raises:
        ValueError: If the parameters' shapes differ, or fit neither (τ,) nor (τ, n), or the name is unknown.
        RuntimeError: If "native" is asked for and cannot be used.
    """
    if not amplitude.shape == frequency.shape == phase.shape:
        raise ValueError(
            "amplitude, frequency and phase must have one shape, got "
            f"{tuple(amplitude.shape)}, {tuple(frequency.shape)}, {tuple(phase.shape)}"
        )
    if (
        amplitude.ndim not in (1, 2)
        or not len(amplitude)
        or (amplitude.ndim == 2 and amplitude.shape[1:] != z.shape[-1:])
    ):
        raise ValueError(
            f"amplitude must have shape (τ,) or (τ, n), τ >= 1, with z of shape (..., n), got {tuple(amplitude.shape)} "
            f"with z of shape {tuple(z.shape)}"
        )
    if z.dtype in (torch.float16, torch.bfloat16):
        # The spacing of fp16 near 3000 is 2: an argument in half precision is noise.
        with torch.autocast(z.device.type, enabled=False):
            inputs = (x.float() for x in (z, amplitude, frequency, phase))
            return staf(*inputs, implementation=implementation).to(z.dtype)
    inputs = (z, amplitude, frequency, phase)
    if implementation not in ("auto", "native", "reference"):
        raise ValueError(f"implementation must be 'auto', 'native' or 'reference', got {implementation!r}")
    if implementation != "reference" and native.fits(*inputs) and library.serves():
        return native.fourier_sum(*inputs)
    if implementation == "native":
        raise RuntimeError(
            "implementation 'native' needs the compiled library, float32 or float64 on a CPU, and no torch.func or "
            "forward-mode differentiation"
        )
    return reference.staf(*inputs)
