"""Shared code of sampled signals: the first layer's frequency scale, batches, and chunked evaluation."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from staf_nerf.config import FieldConfig

CHUNK = 2**13
"""Number of points at which a field is evaluated at a time. Intermediate values then stay in the cache."""
PIECE, LARGE = 2**18, 2**19
"""Steps with more points than LARGE are split into pieces of PIECE points.
Intermediate values of a piece take 2 GB for 4 layers of 256."""


def first_omega(config: FieldConfig, *, in_features: int, samples: int, band: float) -> FieldConfig:
    """Returns the configuration with `first_omega` set such that initial frequencies reach `band` times Nyquist's.

    The Nyquist frequency of `samples` samples in [-1, 1] is π · samples / 2 radians per unit. The first layer's weights
    lie within ±1 / in_features (SIREN) and are multiplied by `first_omega`. The initial bandwidth is therefore the same
    in cycles per pixel for every image size. The configuration is not changed if `band` is 0 or there is an encoding.
    """
    if not band or config.encoding != "identity":
        return config
    return dataclasses.replace(config, first_omega=band * in_features * math.pi * samples / 2.0)


def refuse_unused_frequency(config: FieldConfig, *, band: float) -> None:
    """Refuses a value of `first_omega` that the band would replace.

    Raises:
        ValueError: If the value has no effect.
    """
    if band and config.encoding == "identity" and config.first_omega != FieldConfig.first_omega:
        raise ValueError(f"first_omega has no effect unless band is 0, got {config.first_omega} and band {band}")


def choose(there: int, count: int, generator: Generator) -> Tensor:
    """Draws indices (count,) with replacement. For a count of 0, or of at least all, returns all in order."""
    return torch.randint(there, (count,), generator=generator) if 0 < count < there else torch.arange(there)


class Passes:
    """Draws indices of samples in epochs, without replacement. The last batch of an epoch may be smaller."""

    def __init__(self, there: int) -> None:
        self.there, self.left = there, torch.arange(0)

    def choose(self, count: int, generator: Generator) -> Tensor:
        """Returns the next indices, at most `count`. For a count of 0, or of at least all, returns all in order."""
        if not 0 < count < self.there:
            return torch.arange(self.there)
        if not len(self.left):
            self.left = torch.randperm(self.there, generator=generator)
        chosen, self.left = self.left[:count], self.left[count:]
        return chosen


def order(there: int, *, in_passes: bool) -> tuple[list[Passes], Callable[[int, Generator], Tensor]]:
    """Returns the state of the epochs, if there are epochs, and the function that draws indices."""
    passes = [Passes(there)] if in_passes else []
    return passes, passes[0].choose if passes else functools.partial(choose, there)


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
