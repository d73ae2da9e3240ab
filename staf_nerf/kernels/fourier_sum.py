"""The trainable Fourier sum and its first and second derivatives as operators: in C on a CPU, in Triton on a GPU.

Conventions and formulas are those of `staf_nerf.kernels.reference`. The operators work with torch.compile and autograd.
The reference replaces them where they do not work: under torch.func and for other dtypes.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from staf_nerf.kernels import native, reference
from staf_nerf.kernels.operators import Operator
from staf_nerf.kernels.precision import HALF


def _kernels(x: Tensor) -> ModuleType:
    """Returns the module with the kernels for the tensor's device."""
    if x.device.type == "cpu":
        return native
    from staf_nerf.kernels import triton

    return triton


def _second(
    vz: Tensor, vc: Tensor, vw: Tensor, vp: Tensor, vbias: Tensor, grad: Tensor, z: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    """Returns the results of `fourier_sum_second`, by the formulas of the reference."""
    amplitude, frequency, phase, bias = others
    if not len(bias):
        found = reference.second(vz, vc, vw, vp, grad, z, amplitude, frequency, phase)
        return *found, torch.zeros_like(bias)
    found = reference.second(vz + vbias, vc, vw, vp, grad, z + bias, amplitude, frequency, phase)
    return *found, found[1].reshape(-1, len(bias)).sum(0)


def _third(ctx, *directions: Tensor) -> tuple[Tensor, ...]:
    """Computes derivatives beyond the second, which are rare: by autograd of the reference, in float32 or better."""
    wide = [x.float() if x.dtype in HALF else x for x in (*ctx.saved_tensors, *directions)]
    count = len(ctx.saved_tensors)
    gradients = torch.func.vjp(_second, *wide[:count])[1](tuple(wide[count:]))
    return tuple(g.to(x.dtype) for g, x in zip(gradients, ctx.saved_tensors, strict=True))


INPUTS = "Tensor z, Tensor amplitude, Tensor frequency, Tensor phase, Tensor bias"
DIRECTIONS = "Tensor vz, Tensor vamplitude, Tensor vfrequency, Tensor vphase, Tensor vbias"

fourier_sum_second = Operator(
    "fourier_sum_second",
    f"({DIRECTIONS}, Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda *inputs: _kernels(inputs[0]).second(*inputs),
    fake=lambda *inputs: tuple(x.new_empty(x.shape) for x in inputs[5:]),
    backward=_third,
)
"""Returns the gradients of <v, w> with respect to grad, z, C, Ω, Φ and the bias.

Here w are the results of `fourier_sum_backward`, and v are the five directions vz, …, vbias.
"""

fourier_sum_backward = Operator(
    "fourier_sum_backward",
    f"(Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda *inputs: _kernels(inputs[0]).backward(*inputs),
    fake=lambda *inputs: tuple(x.new_empty(x.shape) for x in inputs[1:]),
    backward=lambda ctx, *directions: fourier_sum_second(*directions, *ctx.saved_tensors),
)
"""Returns the gradients of <grad, σ(z + bias)> with respect to z, C, Ω, Φ and the bias."""

fourier_sum = Operator(
    "fourier_sum",
    f"({INPUTS}) -> Tensor",
    lambda *inputs: _kernels(inputs[0]).forward(*inputs),
    fake=lambda *inputs: inputs[0].new_empty(inputs[0].shape),
    backward=lambda ctx, grad: fourier_sum_backward(grad, *ctx.saved_tensors),
)
"""Returns σ(z + bias); see `staf_nerf.kernels.staf`.

The bias is (n,), or (0,) for no bias, as always on a GPU and with parameters per neuron.
"""
