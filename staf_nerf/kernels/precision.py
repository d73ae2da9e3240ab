"""Half precision: activations are computed in float32 and rounded once, at the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def in_float32(function: Callable[..., Tensor], z: Tensor, *others: Tensor) -> Tensor:
    """`function(z, *others)` in float32 and without autocast, rounded to the dtype of z.

    The spacing of fp16 near 3000 is 2: the argument of a sine in half precision is noise.
    """
    with torch.autocast(z.device.type, enabled=False):
        return function(z.float(), *(x.float() for x in others)).to(z.dtype)
