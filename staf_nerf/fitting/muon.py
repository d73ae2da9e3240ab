"""Muon for the matrices of a small network on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


class PreciseMuon(torch.optim.Muon):
    """torch's Muon, computed in the precision of the parameters.

    Arguments (except `adjust_lr_fn`) and state are those of torch's Muon. The latter computes in bfloat16, which takes
    two to five times as long for small matrices on a CPU.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices, gradients, momenta = [], [], []
            self._init_group(group, matrices, gradients, momenta)
            for matrix, gradient, momentum in zip(matrices, gradients, momenta, strict=True):
                momentum.lerp_(gradient, 1.0 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                update = orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                if group["weight_decay"]:
                    matrix.mul_(1.0 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, len(matrix) / matrix.shape[1])))
        return loss


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Approximates the nearest orthogonal matrix by Newton-Schulz iterations, which move all singular values towards 1.

    Args:
        matrix: The matrix, (n, m).
        coefficients: Coefficients of s, s³ and s⁵ in the map of a singular value s by one iteration.
        steps: Number of iterations.
        eps: Smallest norm by which the matrix is divided before the iterations.
    """
    one, three, five = coefficients
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        gram = torch.addmm(gram, gram, gram, beta=three, alpha=five)
        wide = torch.addmm(wide, gram, wide, beta=one)
    return wide if wide.shape == matrix.shape else wide.T
