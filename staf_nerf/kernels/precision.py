"""Half precision: activations are computed in float32 and rounded once, at the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def in_float32(function: Callable[..., Tensor], z: Tensor, *others: Tensor) -> Tensor:
    """Returns `function(z, *others)`, computed in float32 without autocast and rounded to the dtype of z.

    The spacing of float16 near 3000 is 2: as the argument of a sine such a number is noise.
    """
    with torch.autocast(z.device.type, enabled=False):
        return function(z.float(), *(x.float() for x in others)).to(z.dtype)
