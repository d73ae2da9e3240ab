"""The trainable Fourier sum and its first and second derivatives as operators: in C on a CPU, in Triton on a GPU.

Conventions and formulas are those of `staf_nerf.kernels.reference`. The operators work with torch.compile and autograd.
The reference replaces them where they do not work: under torch.func and for other dtypes.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from staf_nerf.kernels import native, reference
from staf_nerf.kernels.library import is_plain
from staf_nerf.kernels.precision import HALF


@torch.library.custom_op("staf_nerf::fourier_sum", mutates_args=())
def fourier_sum(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor) -> Tensor:
    """Returns σ(z + bias); see `staf_nerf.kernels.staf`.

    The bias is (n,), or (0,) for no bias, as always on a GPU and with parameters per neuron.
    """
    return _kernels(z).forward(z, amplitude, frequency, phase, bias)


@torch.library.custom_op("staf_nerf::fourier_sum_backward", mutates_args=())
def fourier_sum_backward(
    grad: Tensor, z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of <grad, σ(z + bias)> with respect to z, C, Ω, Φ and the bias."""
    found = _apart(_kernels(z).backward(grad, z, amplitude, frequency, phase, bias))
    to_z, to_amplitude, to_frequency, to_phase, to_bias = found
    return to_z, to_amplitude, to_frequency, to_phase, to_bias


@torch.library.custom_op("staf_nerf::fourier_sum_second", mutates_args=())
def fourier_sum_second(
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
    """Returns the gradients of <v, w> with respect to grad, z, C, Ω, Φ and the bias.

    Here w are the results of `fourier_sum_backward`, and v are the five directions vz, …, vbias.
    """
    inputs = (vz, vamplitude, vfrequency, vphase, vbias, grad, z, amplitude, frequency, phase, bias)
    to_grad, to_z, to_amplitude, to_frequency, to_phase, to_bias = _apart(_kernels(z).second(*inputs))
    return to_grad, to_z, to_amplitude, to_frequency, to_phase, to_bias


def _kernels(x: Tensor) -> ModuleType:
    """Returns the module with the kernels for the tensor's device."""
    if x.device.type == "cpu":
        return native
    from staf_nerf.kernels import triton

    return triton


def _apart(results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies results that are views: results of an operator must not share memory."""
    return tuple(x.clone() if x._is_view() else x for x in results)


fourier_sum.register_fake(lambda *inputs: inputs[0].new_empty(inputs[0].shape))
fourier_sum_backward.register_fake(lambda *inputs: tuple(x.new_empty(x.shape) for x in inputs[1:]))
fourier_sum_second.register_fake(lambda *inputs: tuple(x.new_empty(x.shape) for x in inputs[5:]))


def _save(ctx, inputs: tuple[Tensor, ...], output) -> None:
    ctx.save_for_backward(*inputs)


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


fourier_sum.register_autograd(lambda ctx, grad: fourier_sum_backward(grad, *ctx.saved_tensors), setup_context=_save)
fourier_sum_backward.register_autograd(
    lambda ctx, *directions: fourier_sum_second(*directions, *ctx.saved_tensors), setup_context=_save
)
fourier_sum_second.register_autograd(_third, setup_context=_save)


# --- the same without the dispatcher ---------------------------------------------------------------------------------


def evaluate(*inputs: Tensor) -> Tensor:
    """Returns `fourier_sum`, by the operator only if torch needs one.

    It does when compiling, in a dispatch mode, and for tensor subclasses. An operator in Python costs three times as
    much as the functions below. On a GPU that would be most of the time of a small layer.
    """
    if is_plain(*inputs):
        return _Forward.apply(*inputs)
    return fourier_sum(*inputs)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return _kernels(inputs[0]).forward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        if not torch.is_grad_enabled():
            return _kernels(grad).backward(grad, *ctx.saved_tensors)
        return _Backward.apply(grad, *ctx.saved_tensors)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*inputs)
        return _kernels(inputs[0]).backward(*inputs)

    @staticmethod
    def backward(ctx, *directions: Tensor):
        return _Second.apply(*directions, *ctx.saved_tensors)


class _Second(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*inputs)
        return _kernels(inputs[0]).second(*inputs)

    backward = staticmethod(_third)
