"""Activations in C for a CPU, in float32 and float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from staf_nerf.kernels import library


def fits(*tensors: Tensor) -> bool:
    """Returns whether the library supports these tensors: all float32 or all float64, on a CPU."""
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(x.device.type == "cpu" and x.dtype == dtype for x in tensors)


def forward(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor) -> Tensor:
    """Returns σ(z + bias), the trainable Fourier sum; see `staf_nerf.kernels.fourier_sum`."""
    (out,) = _like(z)
    _call("forward", (z, amplitude, frequency, phase, _or_none(bias)), (out,), z, amplitude)
    return out


def backward(
    grad: Tensor, z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `staf_nerf.kernels.fourier_sum.fourier_sum_backward`."""
    inputs = (grad, z, amplitude, frequency, phase, _or_none(bias))
    to_z, to_amplitude, to_frequency, to_phase, to_bias = outputs = _like(z, amplitude, frequency, phase, bias)
    _call("backward", inputs, outputs, z, amplitude)
    return to_z, to_amplitude, to_frequency, to_phase, to_bias


def second(
    vz: Tensor,
    vamplitude: Tensor,
    vfrequency: Tensor,
    vphase: Tensor,
    vbias: Tensor,
    grad: Tensor,
    z: Tensor,
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `staf_nerf.kernels.fourier_sum.fourier_sum_second`."""
    inputs = (vz, vamplitude, vfrequency, vphase, vbias, grad, z, amplitude, frequency, phase, _or_none(bias))
    to_grad, to_z, to_amplitude, to_frequency, to_phase, to_bias = outputs = _like(
        grad, z, amplitude, frequency, phase, bias
    )
    _call("second", inputs, outputs, z, amplitude)
    return to_grad, to_z, to_amplitude, to_frequency, to_phase, to_bias


def pointwise(z: Tensor, factor: Tensor | None, kind: int, order: int, scale: float) -> Tensor:
    """See `staf_nerf.kernels.pointwise.scaled_derivative`; order 0 to 3."""
    (out,) = _like(z)
    library.call(
        "staf_pointwise",
        library.level(),
        z.dtype == torch.float64,
        torch.get_num_threads(),
        kind,
        order,
        scale,
        z.numel(),
        z,
        factor,
        out,
    )
    return out


def _call(name: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], z: Tensor, amplitude: Tensor) -> None:
    """Calls a function of the library, which fills `outputs`. They must be contiguous."""
    features = z.shape[-1] if z.ndim else 1
    sizes = (z.numel() // max(features, 1), features, len(amplitude))
    status = library.call(
        f"staf_{name}",
        library.level(),
        z.dtype == torch.float64,
        torch.get_num_threads(),
        amplitude.ndim == 2,
        *sizes,
        *inputs,
        *outputs,
    )
    if status:
        raise MemoryError("the gradients of the parameters need working memory")


def _or_none(bias: Tensor) -> Tensor | None:
    return bias if len(bias) else None


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in tensors)
