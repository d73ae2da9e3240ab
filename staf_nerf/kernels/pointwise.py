"""Activations without trainable parameters (sine, FINER, Gaussian), in plain torch and in C on a CPU.

Conventions: z has any shape, and w is the argument `scale`.

- sine: `sin(w z)`
- finer: `sin(w (|z| + 1) z)`
- gaussian: `exp(-(w z)² / 2)`

Only z is kept for the backward pass.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from staf_nerf.kernels import library, native
from staf_nerf.kernels.operators import Operator
from staf_nerf.kernels.precision import HALF, in_float32

Kind = Literal["sine", "finer", "gaussian"]

FORMULAS = {
    "sine": lambda z, scale: torch.sin(scale * z),
    "finer": lambda z, scale: torch.sin(scale * (z.abs() + 1.0) * z),
    "gaussian": lambda z, scale: torch.exp(-0.5 * (scale * z).square()),
}
"""The activations in plain torch. Their order is that of the enumeration in native.c."""

KINDS: tuple[str, ...] = tuple(FORMULAS)

HIGHEST_ORDER = 3
"""Highest order of the derivatives that are written in C."""


def pointwise(kind: Kind, z: Tensor, scale: float) -> Tensor:
    """Evaluates an activation.

    Args:
        kind: Name of the activation.
        z: Pre-activations. Half precision is computed in float32 and rounded once, at the end.
        scale: The factor w in the formula.

    Returns:
        The activation, in the shape and dtype of `z`.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in FORMULAS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")
    if z.dtype in HALF:
        return in_float32(lambda z: pointwise(kind, z, scale), z)
    if native.fits(z) and library.serves():
        return scaled_derivative(z, None, KINDS.index(kind), 0, scale)
    return FORMULAS[kind](z, scale)


def _scaled_derivative(z: Tensor, factor: Tensor | None, kind: int, order: int, scale: float) -> Tensor:
    """Returns the derivative of order 0 to 3 of an activation at z, times `factor`.

    Args:
        z: Pre-activations, float32 or float64 on a CPU.
        factor: In the shape and dtype of z. None for order 0, and required for the others.
        kind: Index of the activation in `KINDS`.
        order: 0 to 3.
        scale: The factor w in the formula.

    Raises:
        ValueError: If an argument is not as described.
    """
    if not 0 <= kind < len(KINDS):
        raise ValueError(f"kind must be between 0 and {len(KINDS) - 1}, got {kind}")
    if not 0 <= order <= HIGHEST_ORDER:
        raise ValueError(f"order must be between 0 and {HIGHEST_ORDER}, got {order}")
    if (factor is None) != (order == 0):
        raise ValueError(
            f"factor must be None for order 0 only, got {'None' if factor is None else 'a tensor'} for order {order}"
        )
    return native.pointwise(z, factor, kind, order, scale)


def _derivative(kind: str, z: Tensor, order: int, scale: float) -> Tensor:
    """Returns the derivative of any order, by repeated differentiation of the formula."""
    if order == 0:
        return FORMULAS[kind](z, scale)
    return torch.func.vjp(lambda z: _derivative(kind, z, order - 1, scale), z)[1](torch.ones_like(z))[0]


def _save(ctx, inputs, output) -> None:
    z, factor, ctx.kind, ctx.order, ctx.scale = inputs
    ctx.save_for_backward(z, factor)


def _backward(ctx, grad: Tensor):
    z, factor = ctx.saved_tensors
    to_z = to_factor = None
    if ctx.needs_input_grad[0]:
        onward, order = grad if factor is None else grad * factor, ctx.order + 1
        if order <= HIGHEST_ORDER:
            to_z = scaled_derivative(z, onward, ctx.kind, order, ctx.scale)
        else:
            to_z = onward * _derivative(KINDS[ctx.kind], z, order, ctx.scale)
    if ctx.needs_input_grad[1]:
        to_factor = scaled_derivative(z, grad, ctx.kind, ctx.order, ctx.scale)
    return to_z, to_factor, None, None, None


scaled_derivative = Operator(
    "scaled_derivative",
    "(Tensor z, Tensor? factor, int kind, int order, float scale) -> Tensor",
    _scaled_derivative,
    fake=lambda z, *_: z.new_empty(z.shape),
    backward=_backward,
    save=_save,
)
"""`_scaled_derivative`, differentiable any number of times."""
