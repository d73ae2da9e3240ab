"""The activations that benchmarks compare: ours, and the same formulas as one would write them in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from staf_nerf.activations import FINER, STAF, Activation, Gaussian, ReLU, Sine
from staf_nerf.kernels import library, triton_is_here


class EagerSine(Sine):
    """SIREN's own code."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(self.omega * z)


class EagerFINER(FINER):
    """FINER's formula; its published code also holds |z| + 1 constant in the backward pass."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(self.omega * (z.abs() + 1.0) * z)


class EagerGaussian(Gaussian):
    """The formula."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(-0.5 * (z / self.width).square())


class BroadcastSTAF(STAF):
    """STAF as it is published: a tensor of shape (..., n, τ), then a sum."""

    @property
    def adds_bias(self) -> bool:
        return False

    def forward(self, z: Tensor, bias: Tensor | None = None) -> Tensor:
        assert bias is None
        return (self.amplitude * torch.sin(self.frequency * z[..., None] + self.phase)).sum(-1)


@dataclass(frozen=True)
class Peer:
    """An activation in a comparison."""

    make: Callable[[int], Activation]
    """Number of features -> the module."""
    kernels: frozenset[str] = frozenset()
    """Devices for which there are kernels of ours, which evaluate it and its derivatives in one pass each."""
    compiled: bool = False
    """Whether torch.compile works on what contains it."""


BASELINE = "sine, eager"
"""The peer that ratios refer to; in a network, one whose linear layers are those of ours."""


def is_fused(peer: Peer, device: str, dtype: torch.dtype) -> bool:
    """Whether kernels of ours serve it in this installation."""
    if device not in peer.kernels:
        return False
    if device == "cuda":
        return triton_is_here() and dtype != torch.float64
    return library.library() is not None


def peers(num_frequencies: tuple[int, ...], *, compiled: bool = True) -> dict[str, Peer]:
    """All of them, by name; STAF for each number of frequencies, its broadcast formula for the least: it is so slow."""
    cpu, both = frozenset({"cpu"}), frozenset({"cpu", "cuda"})
    found = {BASELINE: Peer(EagerSine)}
    if compiled:
        found["sine, compiled"] = Peer(EagerSine, compiled=True)
    found |= {
        "ReLU": Peer(ReLU),
        "FINER, eager": Peer(EagerFINER),
        "Gaussian, eager": Peer(EagerGaussian),
        "sine": Peer(Sine, cpu),
        "FINER": Peer(FINER, cpu),
        "Gaussian": Peer(Gaussian, cpu),
    }
    for number in num_frequencies:
        found[staf_name(number)] = Peer(lambda n, number=number: STAF(n, num_frequencies=number), both)
    least = min(num_frequencies)
    return found | {broadcast_name(least): Peer(lambda n: BroadcastSTAF(n, num_frequencies=least))}


def staf_name(num_frequencies: int) -> str:
    return f"STAF τ={num_frequencies}"


def broadcast_name(num_frequencies: int) -> str:
    return f"STAF τ={num_frequencies}, broadcast"
