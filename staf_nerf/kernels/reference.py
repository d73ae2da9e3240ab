"""The trainable Fourier sum in plain torch: any dtype, any device, twice differentiable.

Conventions: z has shape (..., n); amplitude, frequency and phase have shape (τ,), one set for all features, or
(τ, n), a set for each feature. With θᵢ = Ωᵢ z + Φᵢ,

    σ(z) = Σᵢ Cᵢ sin θᵢ.

No tensor of shape (..., n, τ) is ever made: the sum runs over i, and only z is kept for the backward pass, where the
sines are computed again. Source of σ: arXiv 2502.00869, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from staf_nerf.kernels import library

BLOCK = 2**18
"""Elements that a CPU works on at a time: its temporaries then stay in the cache (twice as fast at 2**20 elements)."""


def staf(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """σ(z), of the shape of z; see `staf_nerf.kernels.staf`."""
    if library.forward_mode():  # torch does not differentiate a function of ours twice forwards: it gives zeros
        return _plain(z, amplitude, frequency, phase)
    if z.device.type == "cpu" and z.ndim > 1 and z.numel() >= 2 * BLOCK:
        rows = max(BLOCK * z.shape[0] // z.numel(), 1)
        return torch.cat([_Sum.apply(block, amplitude, frequency, phase) for block in z.split(rows)])
    return _Sum.apply(z, amplitude, frequency, phase)


def _plain(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """σ(z) in operations that torch differentiates in any mode; it keeps a tensor for each term."""
    total = torch.zeros_like(z)
    for c, w, p in zip(amplitude, frequency, phase, strict=True):
        total = total + c * torch.sin(w * z + p)
    return total


def _sum(terms: Tensor, parameter: Tensor) -> Tensor:
    """Sums (..., n) to the shape () or (n,) of one sinusoid's parameter."""
    return terms.sum() if parameter.ndim == 0 else terms.reshape(-1, terms.shape[-1]).sum(0)


def _inner(first: Tensor, second: Tensor, parameter: Tensor) -> Tensor:
    """`_sum` of a product, which a dot product forms without a temporary."""
    return torch.dot(first.reshape(-1), second.reshape(-1)) if parameter.ndim == 0 else _sum(first * second, parameter)


class _Sum(torch.autograd.Function):
    """σ(z), with a backward pass that is itself differentiable."""

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
    """The gradients of <v, gradients of <g, σ(z)>> with respect to g, z, C, Ω and Φ, in operations autograd follows.

    That product is <g, derivative of σ along v>.
    """
    to_grad, to_z = torch.zeros_like(z), torch.zeros_like(z)
    grads: list[tuple[Tensor, Tensor, Tensor]] = []
    for c, w, p, vci, vwi, vpi in zip(amplitude, frequency, phase, vc, vw, vp, strict=True):
        theta = w * z + p
        sin, cos = torch.sin(theta), torch.cos(theta)
        turn = w * vz + vwi * z + vpi  # how θᵢ moves along v
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
