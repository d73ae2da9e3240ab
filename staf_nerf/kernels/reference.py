"""The trainable Fourier sum in plain torch: any dtype, any device, twice differentiable.

Conventions: z has shape (..., n). Amplitude, frequency and phase have shape (τ,), one set for all features, or (τ, n),
one set for each feature. With θᵢ = Ωᵢ z + Φᵢ,

    σ(z) = Σᵢ Cᵢ sin θᵢ.

No tensor of shape (..., n, τ) is created: a loop runs over i, and only z is kept for the backward pass, which computes
the sines again. Source of σ: arXiv 2502.00869, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from staf_nerf._torch_compat import is_forward_mode, is_traced

BLOCK = 2**18
"""Number of elements that a CPU processes at a time. Temporaries then stay in the cache: twice as fast for 2**20."""


def check_amplitude(z: Tensor, amplitude: Tensor) -> None:
    """Raises ValueError if the shape of the amplitude is not (τ,) or (τ, n), for z of shape (..., n)."""
    shape = amplitude.shape
    if len(shape) not in (1, 2) or not shape[0] or shape[1:] not in ((), z.shape[-1:]):
        raise ValueError(
            f"amplitude must have shape (τ,) or (τ, n), τ >= 1, with z of shape (..., n), got {tuple(amplitude.shape)} "
            f"with z of shape {tuple(z.shape)}"
        )


def staf(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Returns σ(z), in the shape of z; see `staf_nerf.kernels.staf`."""
    # torch gives zeros for second forward-mode derivatives of autograd.Function, and cannot save a trace that has one.
    if is_forward_mode() or is_traced():
        return _plain(z, amplitude, frequency, phase)
    if z.device.type == "cpu" and z.ndim > 1 and z.numel() >= 2 * BLOCK:
        rows = max(BLOCK * z.shape[0] // z.numel(), 1)
        return torch.cat([_Sum.apply(block, amplitude, frequency, phase) for block in z.split(rows)])
    return _Sum.apply(z, amplitude, frequency, phase)


def _plain(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Returns σ(z), by operations that torch differentiates in any mode. It keeps a tensor for each term."""
    total = torch.zeros_like(z)
    for c, w, p in zip(amplitude, frequency, phase, strict=True):
        total = total + c * torch.sin(w * z + p)
    return total


def _sum(terms: Tensor, parameter: Tensor) -> Tensor:
    """Sums (..., n) to the shape of one sinusoid's parameter, () or (n,)."""
    return terms.sum() if parameter.ndim == 0 else terms.reshape(-1, terms.shape[-1]).sum(0)


def _inner(first: Tensor, second: Tensor, parameter: Tensor) -> Tensor:
    """Returns `_sum` of a product. A dot product needs no temporary."""
    return torch.dot(first.reshape(-1), second.reshape(-1)) if parameter.ndim == 0 else _sum(first * second, parameter)


class _Sum(torch.autograd.Function):
    """σ(z), with a differentiable backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
        total = torch.zeros_like(z)
        for c, w, p in zip(amplitude, frequency, phase, strict=True):
            total = torch.addcmul(total, c, torch.sin(torch.addcmul(p, w, z)))
        return total

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _SumBackward.apply(grad, *ctx.saved_tensors)


class _SumBackward(torch.autograd.Function):
    """The gradients of <g, σ(z)> with respect to z, C, Ω and Φ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor):
        slope = torch.zeros_like(z)
        grads: list[tuple[Tensor, Tensor, Tensor]] = []
        for c, w, p in zip(amplitude, frequency, phase, strict=True):
            theta = torch.addcmul(p, w, z)
            g_cos = grad * torch.cos(theta)
            slope = torch.addcmul(slope, c * w, g_cos)
            grads.append((_inner(grad, torch.sin(theta), c), c * _inner(g_cos, z, c), c * _sum(g_cos, c)))
        return slope, *(torch.stack(column) for column in zip(*grads, strict=True))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, vz: Tensor, vc: Tensor, vw: Tensor, vp: Tensor):
        return second(vz, vc, vw, vp, *ctx.saved_tensors)


def second(
    vz: Tensor,
    vc: Tensor,
    vw: Tensor,
    vp: Tensor,
    grad: Tensor,
    z: Tensor,
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of <v, w> with respect to g, z, C, Ω and Φ, by differentiable operations.

    Here w are the gradients of <g, σ(z)> with respect to z, C, Ω and Φ, and v = (vz, vc, vw, vp). The product <v, w> is
    <g, derivative of σ along v>.
    """
    to_grad, to_z = torch.zeros_like(z), torch.zeros_like(z)
    grads: list[tuple[Tensor, Tensor, Tensor]] = []
    for c, w, p, vci, vwi, vpi in zip(amplitude, frequency, phase, vc, vw, vp, strict=True):
        theta = w * z + p
        sin, cos = torch.sin(theta), torch.cos(theta)
        turn = w * vz + vwi * z + vpi  # derivative of θᵢ along v
        to_grad = to_grad + vci * sin + c * turn * cos
        along = grad * (vci * cos - c * turn * sin)  # <g, ·> differentiated by θᵢ
        to_z = to_z + w * along + (c * vwi) * (grad * cos)
        grads.append(
            (
                _sum(grad * turn * cos, c),
                _sum(along * z + c * (grad * vz * cos), c),
                _sum(along, c),
            )
        )
    to_amplitude, to_frequency, to_phase = (torch.stack(column) for column in zip(*grads, strict=True))
    return to_grad, to_z, to_amplitude, to_frequency, to_phase
