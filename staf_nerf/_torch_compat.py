"""What the package needs of torch that torch does not document: one function each, with the reason.

`tests/test_torch_compat.py` checks what these functions assume.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad


def constant_when_compiled(function: Callable[[], bool]) -> Callable[[], bool]:
    """Marks a function whose result `torch.compile` takes as a constant.

    The public `torch.compiler.assume_constant_result` sets the same mark, but imports torch's compiler, which takes a
    second.
    """
    function.__dict__["_dynamo_marked_constant"] = True
    return function


@constant_when_compiled
def is_transformed() -> bool:
    """Returns whether a transformation of `torch.func` is active.

    Tensors are wrapped then, and have no address that C could use. torch has no public question for it.
    """
    return torch._C._are_functorch_transforms_active()


@constant_when_compiled
def is_forward_mode() -> bool:
    """Returns whether forward-mode differentiation is active (`torch.func.jvp`, `torch.autograd.forward_ad`).

    Kernels have no such derivatives. The public `unpack_dual` answers for one tensor, at a much higher price.
    """
    return forward_ad._current_level >= 0


@constant_when_compiled
def is_traced() -> bool:
    """Returns whether `torch.jit.trace` records operations, as the older of torch's two ONNX exporters does.

    `torch.jit.is_tracing` is the same, but part of what torch has deprecated as a whole.
    """
    return torch._C._is_tracing()


def has_dispatch_mode() -> bool:
    """Returns whether a `TorchDispatchMode` is active, which must see operators.

    torch has no public question for it.
    """
    return torch._C._len_torch_dispatch_stack() > 0


def is_view(x: Tensor) -> bool:
    """Returns whether a tensor is a view of another one: an operator may not return such a tensor.

    torch has no public question for it.
    """
    return x._is_view()


def linear_by_onednn(a: Tensor, b: Tensor) -> Tensor:
    """Returns a bᵀ by an operator for oneDNN that torch's compiler uses, for a benchmark."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
