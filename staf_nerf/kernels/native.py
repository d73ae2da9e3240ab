"""Activations in C for a CPU, in float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from staf_nerf.kernels import library
from staf_nerf.kernels.reference import check_amplitude


def fits(*tensors: Tensor) -> bool:
    """Returns whether the library supports these tensors: all float32 or all float64, on a CPU."""
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(x.device.type == "cpu" and x.dtype == dtype for x in tensors)


def forward(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor) -> Tensor:
    """Returns σ(z + bias), the trainable Fourier sum; see `staf_nerf.kernels.fourier_sum`."""
    return _run("staf_forward", (), z, amplitude, frequency, phase, bias)[0]


def backward(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """See `staf_nerf.kernels.fourier_sum.fourier_sum_backward`."""
    return _run("staf_backward", (grad,), *inputs)


def second(
    vz: Tensor, vamplitude: Tensor, vfrequency: Tensor, vphase: Tensor, vbias: Tensor, grad: Tensor, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """See `staf_nerf.kernels.fourier_sum.fourier_sum_second`."""
    return _run("staf_second", (vz, vamplitude, vfrequency, vphase, vbias, grad), *inputs)


def pointwise(z: Tensor, factor: Tensor | None, kind: int, order: int, scale: float) -> Tensor:
    """See `staf_nerf.kernels.pointwise.scaled_derivative`."""
    return library.run("staf_pointwise", z.dtype, (kind, order, scale, z.numel()), (z, factor), sizes=(z.shape,))[0]


def _run(
    name: str,
    before: tuple[Tensor, ...],
    z: Tensor,
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    bias: Tensor,
) -> tuple[Tensor, ...]:
    """Calls a function of the library for the Fourier sum, whose inputs `before` precede the others."""
    check_amplitude(z, amplitude)
    features, per_feature = z.shape[-1] if z.ndim else 1, amplitude.ndim == 2
    numbers = (per_feature, z.numel() // max(features, 1), features, len(amplitude))
    has_bias = bias.numel() > 0
    sizes = (z.shape, amplitude.shape, (features,) if has_bias and not per_feature else (0,))
    inputs = (*before, z, amplitude, frequency, phase, bias if has_bias else None)
    return library.run(name, z.dtype, numbers, inputs, sizes=sizes)
