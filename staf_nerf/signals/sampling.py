"""Shared code of sampled signals: the first layer's frequency scale, batches, and chunked evaluation."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from staf_nerf.activations import FIRST_OMEGA, activation_options
from staf_nerf.config import FieldConfig, IdentityConfig
from staf_nerf.signals.signal import Signal

CHUNK = 2**13
"""Number of points at which a field is evaluated at a time. Intermediate values then stay in the cache."""
PIECE, LARGE = 2**18, 2**19
"""Steps with more points than LARGE are split into pieces of PIECE points.
Intermediate values of a piece take 2 GB for 4 layers of 256."""


def first_omega(config: FieldConfig, *, in_features: int, samples: int, bandwidth: float) -> FieldConfig:
    """Returns the configuration whose `first_omega` makes initial frequencies reach `bandwidth` times Nyquist's.

    The Nyquist frequency of `samples` samples in [-1, 1] is π · samples / 2 radians per unit. The first layer's weights
    lie within ±1 / in_features (SIREN) and are multiplied by `first_omega`. The initial bandwidth is therefore the same
    in cycles per pixel for every image size. The configuration is not changed if `bandwidth` is 0, there is an
    encoding, or the activation has no frequency scale.
    """
    if not bandwidth or not has_first_omega(config):
        return config
    omega = bandwidth * in_features * math.pi * samples / 2.0
    options = {**config.activation.options, "first_omega": omega}
    return dataclasses.replace(config, activation=dataclasses.replace(config.activation, options=options))


def has_first_omega(config: FieldConfig) -> bool:
    """Returns whether the first layer reads coordinates and multiplies them by a frequency scale."""
    reads_coordinates = isinstance(config.encoding, IdentityConfig)
    return reads_coordinates and "first_omega" in activation_options(config.activation.name)


def refuse_unused_frequency(config: FieldConfig, *, bandwidth: float) -> None:
    """Refuses a value of `first_omega` that the bandwidth would replace.

    Raises:
        ValueError: If the value has no effect.
    """
    found = config.activation.options.get("first_omega", FIRST_OMEGA)
    if bandwidth and has_first_omega(config) and found != FIRST_OMEGA:
        raise ValueError(f"first_omega has no effect unless bandwidth is 0, got {found} and bandwidth {bandwidth}")


def refuse_unused_bandwidth(config: FieldConfig, *, bandwidth: float) -> None:
    """Refuses a bandwidth that was asked for, and that the first layer has no frequency for.

    Raises:
        ValueError: If the bandwidth has no effect.
    """
    if bandwidth and not has_first_omega(config):
        kind = config.activation if isinstance(config.encoding, IdentityConfig) else config.encoding
        what = "activation" if kind is config.activation else "encoding"
        raise ValueError(
            f"bandwidth has no effect with the {what} {kind.name!r}, which has no frequency to scale, got {bandwidth}"
        )


class Sampler:
    """Draws indices of samples: with replacement, or in epochs, each of which has every sample once.

    Args:
        count: Number of samples.
        in_epochs: Whether to draw in epochs. The last batch of an epoch may be smaller.
    """

    def __init__(self, count: int, *, in_epochs: bool) -> None:
        self.count, self.in_epochs, self.left = count, in_epochs, torch.arange(0)

    def draw(self, size: int, generator: Generator) -> Tensor:
        """Returns at most `size` indices. For a size of 0, or of at least all samples, returns all in order."""
        if not 0 < size < self.count:
            return torch.arange(self.count)
        if not self.in_epochs:
            return torch.randint(self.count, (size,), generator=generator)
        if not len(self.left):
            self.left = torch.randperm(self.count, generator=generator)
        drawn, self.left = self.left[:size], self.left[size:]
        return drawn


class SampledSignal(Signal):
    """Base class of signals with a finite number of samples.

    Args:
        samples: Number of samples.
        in_epochs: Whether batches are drawn in epochs; see `Sampler`.
    """

    def __init__(self, samples: int, *, in_epochs: bool) -> None:
        self.samples = samples
        self._sampler = Sampler(samples, in_epochs=in_epochs)

    def state(self) -> list[Tensor]:
        return [self._sampler.left]

    def load_state(self, state: list[Tensor]) -> None:
        (self._sampler.left,) = state


def to_learn(field: nn.Module, points: Tensor) -> Tensor:
    """Evaluates a field (…, n, k) at points (…, n, d) for training.

    For very many points intermediate values are recomputed in the backward pass, piece by piece, to save memory.
    """
    if points[..., 0].numel() <= LARGE:
        return field(points)
    size = max(PIECE // points[..., 0, 0].numel(), 1)
    pieces = [checkpoint(field, piece, use_reentrant=False) for piece in points.split(size, dim=-2)]
    return torch.cat(pieces, dim=-2)  # pyright: ignore[reportCallIssue, reportArgumentType]


@torch.no_grad()
def in_chunks(field: nn.Module, points: Tensor) -> Tensor:
    """Evaluates a field (n, k) at points (n, d) in chunks, without gradients."""
    return torch.cat([field(chunk) for chunk in points.split(CHUNK)])
