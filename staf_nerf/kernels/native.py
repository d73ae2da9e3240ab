"""The trainable Fourier sum in native code for a CPU: float32 and float64, with first and second derivatives.

Conventions are those of `staf_nerf.kernels.reference`, whose formulas these are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from staf_nerf.kernels import library, reference


def fits(*tensors: Tensor) -> bool:
    """Whether these are tensors that the library can work on: all float32 or all float64, on a CPU."""
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(x.device.type == "cpu" and x.dtype == dtype for x in tensors)


def _call(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], z: Tensor, amplitude: Tensor) -> None:
    """Calls a function of the library; it fills `outputs`, which are contiguous."""
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


def _third(ctx, *directions: Tensor) -> tuple[Tensor, ...]:
    """Derivatives beyond the second, which are rare: through the reference's formulas, by autograd."""
    return torch.func.vjp(reference.second, *ctx.saved_tensors)[1](directions)


fourier_sum.register_autograd(lambda ctx, grad: fourier_sum_backward(grad, *ctx.saved_tensors), setup_context=_save)
fourier_sum_backward.register_autograd(
    lambda ctx, *directions: fourier_sum_second(*directions, *ctx.saved_tensors), setup_context=_save
)
fourier_sum_second.register_autograd(_third, setup_context=_save)
