"""The activations that benchmarks compare: ours, and the same formulas written in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from staf_nerf.activations import FINER, STAF, Gaussian, ReLU, Sine
from staf_nerf.kernels import library, triton_is_here
from staf_nerf.layers import Activation


class EagerSine(Sine):
    """The sine as in SIREN's published code."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(self.omega * z)


class EagerFINER(FINER):
    """FINER's formula in plain torch. Its published code also treats ``|z| + 1`` as constant in the backward pass."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(self.omega * (z.abs() + 1.0) * z)


class EagerGaussian(Gaussian):
    """The Gaussian in plain torch."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(-0.5 * (z / self.width).square())


class BroadcastSTAF(STAF):
    """STAF as in its published code: a tensor of shape (..., n, τ), then a sum."""

    after = Activation.after

    def forward(self, z: Tensor) -> Tensor:
        return (self.amplitude * torch.sin(self.frequency * z[..., None] + self.phase)).sum(-1)


@dataclass(frozen=True)
class Baseline:
    """An activation in a comparison."""

    make: Callable[[int], Activation]
    """Maps the number of features to a new module."""
    kernels: frozenset[str] = frozenset()
    """Devices with fused kernels of ours for the activation and its derivatives."""
    compiled: bool = False
    """Whether to compile the containing module with torch.compile."""


BASELINE = "sine, eager"
"""The baseline that ratios refer to. In a network it uses our linear layers."""


def is_fused(baseline: Baseline, device: str, dtype: torch.dtype) -> bool:
    """Returns whether this installation has fused kernels for a baseline."""
    if device not in baseline.kernels:
        return False
    if device == "cuda":
        return triton_is_here() and dtype != torch.float64
    return library.library() is not None


def baselines(num_frequencies: tuple[int, ...], *, compiled: bool = True) -> dict[str, Baseline]:
    """Returns all baselines by name: STAF for each number of frequencies, and its slow formula for the smallest."""
    cpu, both = frozenset({"cpu"}), frozenset({"cpu", "cuda"})
    activations = {BASELINE: Baseline(EagerSine)}
    if compiled:
        activations["sine, compiled"] = Baseline(EagerSine, compiled=True)
    activations |= {
        "ReLU": Baseline(ReLU),
        "FINER, eager": Baseline(EagerFINER),
        "Gaussian, eager": Baseline(EagerGaussian),
        "sine": Baseline(Sine, cpu),
        "FINER": Baseline(FINER, cpu),
        "Gaussian": Baseline(Gaussian, cpu),
    }
    for number in num_frequencies:
        activations[staf_name(number)] = Baseline(lambda n, number=number: STAF(n, num_frequencies=number), both)
    least = min(num_frequencies)
    return activations | {broadcast_name(least): Baseline(lambda n: BroadcastSTAF(n, num_frequencies=least))}


def staf_name(num_frequencies: int) -> str:
    return f"STAF τ={num_frequencies}"


def broadcast_name(num_frequencies: int) -> str:
    return f"STAF τ={num_frequencies}, broadcast"
