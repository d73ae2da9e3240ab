"""What sampled signals share: the first layer's frequency, and fields asked for many points."""

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
"""Points that a field is asked for at a time: what the layers hand on stays in the cache."""
PIECE, LARGE = 2**18, 2**19
"""Points of a piece of a step that has a large number of them: what 4 layers of 256 keep of a piece is 2 GB."""


def first_omega(config: FieldConfig, *, in_features: int, samples: int, band: float) -> FieldConfig:
    """The configuration with a first layer that starts with frequencies up to a part of the highest that samples hold.

    `samples` of them in [-1, 1] hold at most half a cycle each: π · samples / 2 radians per unit. The first layer's
    weights lie within ±1 / in_features (SIREN), times `first_omega`. So the same network sees the same picture in
    pixels, whatever its size, and the same sound in seconds. A band of 0, or a network that reads an encoding, leaves
    the configuration alone.
    """
    if not band or config.encoding != "identity":
        return config
    return dataclasses.replace(config, first_omega=band * in_features * math.pi * samples / 2.0)


def refuse_unused_frequency(config: FieldConfig, *, band: float) -> None:
    """Refuses a first frequency of one's own that `first_omega` would replace.

    Raises:
        ValueError: If it has no effect.
    """
    if band and config.encoding == "identity" and config.first_omega != FieldConfig.first_omega:
        raise ValueError(f"first_omega has no effect where the band is not 0, got {config.first_omega} and {band}")


def choose(there: int, count: int, generator: Generator) -> Tensor:
    """Numbers (count,) of samples, drawn from those there are; for a count of 0, or of as many: all, in order."""
    return torch.randint(there, (count,), generator=generator) if 0 < count < there else torch.arange(there)


class Passes:
    """Numbers of samples, each drawn once before any comes again; the last draw of a pass takes what is left."""

    def __init__(self, there: int) -> None:
        self.there, self.left = there, torch.arange(0)

    def choose(self, count: int, generator: Generator) -> Tensor:
        """The next numbers, at most `count`; all in order for a count of 0, or of as many as there are."""
        if not 0 < count < self.there:
            return torch.arange(self.there)
        if not len(self.left):
            self.left = torch.randperm(self.there, generator=generator)
        chosen, self.left = self.left[:count], self.left[count:]
        return chosen


def order(there: int, *, in_passes: bool) -> tuple[list[Passes], Callable[[int, Generator], Tensor]]:
    """How numbers of samples are chosen, and the pass that a fit is in, if they are in passes."""
    passes = [Passes(there)] if in_passes else []
    return passes, passes[0].choose if passes else functools.partial(choose, there)


def to_learn(field: nn.Module, points: Tensor) -> Tensor:
    """A field's values (…, n, k) at points (…, n, d), for their gradients.

    Of very many the layers' values are not kept for the gradients but computed again, a piece at a time.
    """
    if points[..., 0].numel() <= LARGE:
        return field(points)
    size = max(PIECE // points[..., 0, 0].numel(), 1)
    pieces = [checkpoint(field, piece, use_reentrant=False) for piece in points.split(size, dim=-2)]
    return torch.cat(pieces, dim=-2)  # pyright: ignore[reportCallIssue, reportArgumentType]


@torch.no_grad()
def in_chunks(field: nn.Module, points: Tensor) -> Tensor:
    """A field's values (n, k) at points (n, d), a cacheful at a time."""
    return torch.cat([field(chunk) for chunk in points.split(CHUNK)])
