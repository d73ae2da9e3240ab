"""Tests of the initialisation: the distribution of activations over draws of (C, Φ), and within one network.

Conventions: σ(z) = Σᵢ Cᵢ sin(Ωᵢ z + Φᵢ). Over draws, each value has its own draw of the parameters. Within one network,
a layer shares one draw, and the values are those of its units at many coordinates.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from staf_nerf import initialization as init
from staf_nerf.initialization import Initialization
from staf_nerf.kernels import staf
from staf_nerf.mlp import CoordinateMLP


def outputs_over_draws(initialization: Initialization, num_frequencies: int, z: Tensor, generator: Generator) -> Tensor:
    """Returns σ(z) at each z (n,), with its own draw of (C, Ω, Φ) for each, and Ω up to 30 radians per unit.

    By the paper's theorem, with Φ ~ U(-π, π) and C² exponential with mean 2/τ, the result is standard normal for every
    τ and every distribution of z.
    """
    sinusoids = init.INITIALIZATIONS[initialization]((num_frequencies, len(z)), 30.0, generator)
    return staf(z[None], *(values.to(z) for values in sinusoids))[0]


def layer_outputs(mlp: CoordinateMLP, x: Tensor) -> list[Tensor]:
    """Returns the outputs (n, width) of each hidden layer at x (n, d)."""
    with torch.no_grad():
        return [layer.output for layer in mlp.trace(x)[0]]


def variances_within(
    initialization: Initialization, *, seeds: int, points: int = 1024, in_features: int = 2, **options: Any
) -> Tensor:
    """Returns the mean square of each layer's outputs within one network, (seeds, layers).

    Args:
        initialization: Initialisation of the activations.
        seeds: Number of networks, with random seeds 0, 1, …
        points: Number of points, uniform in [-1, 1].
        in_features: Number of coordinates.
        **options: Options of `CoordinateMLP`.
    """
    rows = []
    for seed in range(seeds):
        generator = Generator().manual_seed(seed)
        mlp = CoordinateMLP(in_features, 1, initialization=initialization, generator=generator, **options)
        x = 2.0 * torch.rand(points, in_features, generator=generator) - 1.0
        rows.append(torch.stack([values.square().mean() for values in layer_outputs(mlp, x)]))
    return torch.stack(rows)


class Comparison(NamedTuple):
    """The comparison of an empirical distribution with the standard normal distribution."""

    distance: float
    """Largest distance between the two distribution functions."""
    p_value: float
    """Probability of a distance at least as large if the distributions were equal, in the limit of many values."""


def kolmogorov_smirnov(values: Tensor) -> Comparison:
    """Tests whether values (n,) are draws of the standard normal distribution, for n of at least a few hundred.

    The distance D of n values satisfies P(√n D > t) → 2 Σ (-1)^(k-1) exp(-2 k² t²) (Kolmogorov, 1933).

    Raises:
        ValueError: If `values` does not have shape (n,) with n >= 1.
    """
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must have shape (n,) with n >= 1, got {tuple(values.shape)}")
    count = len(values)
    expected = torch.special.ndtr(values.double().sort().values)
    steps = torch.arange(count + 1, dtype=torch.float64, device=values.device) / count
    distance = float(torch.maximum((steps[1:] - expected).max(), (expected - steps[:-1]).max()))
    t = math.sqrt(count) * distance
    if t < 0.2:  # the series converges slowly, and the probability is 1 to 12 digits
        return Comparison(distance, 1.0)
    series = sum((-1.0) ** (k - 1) * math.exp(-2.0 * k**2 * t**2) for k in range(1, 101))
    return Comparison(distance, min(max(2.0 * series, 0.0), 1.0))
