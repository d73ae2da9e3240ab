"""Gradient descent on a network, beside what its initial tangent kernel predicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from staf_nerf.fields import count_parameters
from staf_nerf.theory.ntk import KernelParts, Spectrum, empirical_ntk, ntk_spectrum

if TYPE_CHECKING:
    from staf_nerf.progress import Stages

GRADIENTS = 2**25
"""Largest number of gradient entries in a block, for networks whose kernels are not computed layer by layer."""
BANDS = 5
"""Number of groups of eigenvectors whose errors are tracked. Group sizes grow geometrically."""


@dataclass(frozen=True)
class Compared:
    """Results for one network on n points, in float64."""

    name: str
    parameters: int
    parts: dict[str, float]
    """Fractions of the trace of the kernel that come from weights, biases, amplitude, frequency and phase."""
    spectrum: Spectrum
    along: Tensor
    """(n,): contribution of C, Ω and Φ to each eigenvalue."""
    energy: Tensor
    """(n,): fraction of the initial squared error along each eigenvector. The sum is 1."""
    predicted: Tensor
    """(steps + 1, n): squared error along each eigenvector for a constant kernel, relative to the initial error."""
    measured: Tensor
    """(steps + 1, n): the same for gradient descent on the network itself."""
    moved: float
    """Relative change of the kernel by gradient descent, in the Frobenius norm."""
    seconds: dict[str, float]

    @property
    def effective_rank(self) -> float:
        """Effective rank (Σ λ)² / Σ λ². It is n for n equal eigenvalues."""
        values = self.spectrum.values
        return float(values.sum().square() / values.square().sum())


def compare(
    name: str, model: nn.Module, x: Tensor, target: Tensor, *, rate: float, steps: int, stages: Stages
) -> Compared:
    """Computes the kernel and its spectrum, then runs gradient descent, which changes the model.

    Args:
        name: Name of the network.
        model: The network, in float64.
        x: Points (n, d).
        target: Values with n elements.
        rate: Learning rate times the largest eigenvalue, between 0 and 2.
        steps: Number of gradient descent steps.
        stages: Shows the progress.
    """
    parameters = count_parameters(model)
    chunk = min(max(GRADIENTS // parameters, 1), 1024)
    with stages(f"{name}: kernel"):
        kernel = empirical_ntk(model, x, parts=True, chunk=chunk)
    with stages(f"{name}: spectrum"):
        spectrum = ntk_spectrum(kernel.total)
        along = torch.einsum("ni,nm,mi->i", spectrum.vectors, kernel.sinusoids, spectrum.vectors)
    rate = rate / spectrum.values[0].item()
    with stages(f"{name}: gradient descent") as report:
        measured = descend(model, x, target.reshape(-1), spectrum.vectors, rate, steps, report)
    moved = (empirical_ntk(model, x, chunk=chunk) - kernel.total).norm() / kernel.total.norm()
    measured = measured / measured[0].sum()
    done = torch.arange(steps + 1, dtype=torch.float64)[:, None]
    return Compared(
        name=name,
        parameters=parameters,
        parts=_shares(kernel),
        spectrum=spectrum,
        along=along,
        energy=measured[0],
        predicted=measured[0] * (1.0 - rate * spectrum.values.clamp(min=0.0)) ** (2.0 * done),
        measured=measured,
        moved=float(moved),
        seconds={stage.removeprefix(f"{name}: "): value for stage, value in stages.seconds.items()},
    )


def _shares(kernel: KernelParts) -> dict[str, float]:
    traces = {f.name: getattr(kernel, f.name).trace().item() for f in dataclasses.fields(kernel)}
    return {name: trace / sum(traces.values()) for name, trace in traces.items()}


def descend(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    vectors: Tensor,
    rate: float,
    steps: int,
    report: Callable[..., None] = lambda done: None,
) -> Tensor:
    """Runs gradient descent on ½ ‖f - target‖² and returns the squared errors along the vectors, (steps + 1, n)."""
    parameters, found = list(model.parameters()), []
    for step in range(steps + 1):
        error = model(x)[:, 0] - target
        found.append((vectors.T @ error.detach()).square())
        if step < steps:
            gradients = torch.autograd.grad(0.5 * error.square().sum(), parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= rate * gradient
        report((step + 1) / (steps + 1))
    return torch.stack(found)


def bands(count: int) -> list[slice]:
    """Returns the groups of eigenvectors, those that are learned fastest first."""
    ends = sorted({min(math.ceil(count ** ((i + 1) / BANDS)), count) for i in range(BANDS)})
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
