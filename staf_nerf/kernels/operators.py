"""Kernels as operators of torch: each is declared once, and called in the cheapest way that torch allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from staf_nerf._torch_compat import is_view
from staf_nerf.kernels.library import is_plain


def save_tensors(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keeps all inputs, which are tensors or None, for the backward pass."""
    ctx.save_for_backward(*inputs)


class Operator:
    """A kernel that autograd differentiates and `torch.compile` knows.

    A custom operator in Python costs three times as much as an `autograd.Function`; on a GPU that would be most of the
    time of a small layer. So the operator is called only where torch needs one: when it compiles, in a dispatch mode,
    and for tensor subclasses. Without gradients the kernel itself is called.

    Args:
        name: Name of the operator, in the namespace `staf_nerf`.
        schema: Its arguments and results, in torch's notation: "(Tensor x, int n) -> Tensor".
        kernel: Computes the results.
        fake: Returns tensors of the results' shapes, from tensors that have no values.
        backward: Returns the inputs' gradients from a context and the results' gradients.
        save: Keeps in a context what `backward` needs, from the inputs and the results (None: not available).
    """

    def __init__(
        self,
        name: str,
        schema: str,
        kernel: Callable[..., Any],
        *,
        fake: Callable[..., Any],
        backward: Callable[..., Any],
        save: Callable[[Any, tuple[Any, ...], Any], None] = save_tensors,
    ) -> None:
        definition = torch.library.custom_op(
            f"staf_nerf::{name}", lambda *inputs: _apart(kernel(*inputs)), mutates_args=(), schema=schema
        )
        definition.register_fake(fake)
        definition.register_autograd(backward, setup_context=save)

        def forward(ctx: Any, *inputs: Any) -> Any:
            save(ctx, inputs, None)
            return kernel(*inputs)

        methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        self.operator = getattr(torch.ops.staf_nerf, name).default
        self.function: Any = type(name, (torch.autograd.Function,), methods)
        self.kernel = kernel

    def __call__(self, *inputs: Any) -> Any:
        if not is_plain(*inputs):
            return self.operator(*inputs)
        return self.function.apply(*inputs) if torch.is_grad_enabled() else self.kernel(*inputs)


def _apart(results: Any) -> Any:
    """Copies results that are views: results of an operator must not share memory."""
    if isinstance(results, Tensor):
        return results.clone() if is_view(results) else results
    return tuple(map(_apart, results))
