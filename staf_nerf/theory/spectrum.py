"""The frequencies that a STAF network can produce: integer combinations of those of its first layer.

Conventions: frequencies are vectors (d,), radians per unit of the coordinates; of a pair ±f one is listed, since values
are real. With first-layer frequencies f₁ … f_N (N = τn: Ωᵢ times a row of W) lines lie at Σ s_m f_m for integers s, and
the order of one is Σ |s_m|. A second layer's sines give them by the Jacobi-Anger expansion,

    exp(j β sin θ) = Σ_s J_s(β) exp(j s θ),

one factor for each sine that is read, of amplitude β; further layers add no frequency, but weight to high orders.
Source: arXiv 2502.00869, section on expressive power; the bounds are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from staf_nerf.mlp import CoordinateMLP
from staf_nerf.theory.kronecker import sine_network

MOST_FREQUENCIES = 100_000
"""That are listed, if not said otherwise."""
RESOLUTION = 1e-9
"""Frequencies that differ by less than this part of the first layer's largest are one."""


@dataclass(frozen=True)
class FrequencySupport:
    """Where a network's Fourier transform can differ from zero, up to an order, and how much lies beyond."""

    frequencies: Tensor
    """(m, d), of each pair ±f one, the zero frequency first; in float64."""
    orders: Tensor
    """(m,): the least order of the combinations that give it."""
    order: int
    """The highest that is listed."""
    remainder: float
    """An upper bound of the sum of the amplitudes of all that is not listed, for the output where it is largest."""


def frequency_support(
    mlp: CoordinateMLP, *, order: int | None = None, threshold: float = 1e-6, limit: int = MOST_FREQUENCIES
) -> FrequencySupport:
    """The frequencies of a network of `STAF` or `Sine`, as far as they matter.

    With one hidden layer they are those of the first layer, and nothing else. With more there are lines at all integer
    combinations; since |J_s(β)| <= (|β|/2)^|s| / |s|!, those of order k together have an amplitude of at most R_k,
    where Σ R_k t^k = R(t) has a closed form: t for a sine of the first layer, exp(A(t)) - 1 for one of a further layer
    whose argument has A(t) = Σ |W̄| H(t), and Σ |W| H(t) for the output. What lies beyond an order K is at most
    R(r) / r^(K+1), for whichever r > 1 makes that least.

    Args:
        mlp: With one hidden layer or more.
        order: The highest order that is listed; the least whose remainder is below the threshold, if not given.
        threshold: Of the remainder, in units of the output.
        limit: The most frequencies that are listed.

    Raises:
        ValueError: If there is no hidden layer, an activation is another one, or the limit is passed.
    """
    plain = sine_network(mlp)
    if not len(plain.linears):
        raise ValueError("mlp must have a hidden layer or more, got hidden_layers=0: a linear map is no Fourier sum")
    if order is not None and order < 0:
        raise ValueError(f"order must be >= 0, got {order}")
    generators = first_frequencies(mlp)
    if order is None:
        order = _order_below(plain, threshold)
    orders, frequencies = _combinations(generators, order, limit)
    return FrequencySupport(frequencies, orders, order, _remainder(plain, order))


def first_frequencies(mlp: CoordinateMLP) -> Tensor:
    """The distinct frequencies of the first layer, Ωᵢ times a row of W, without zero: (N, d), float64."""
    rows = _weight(sine_network(mlp).linears[0])
    size = rows.abs().max().item()
    found = _distinct(rows, size)
    return found[found.abs().amax(1) > RESOLUTION * size]


def count_frequencies(generators: int, order: int) -> int:
    """Integer combinations of N frequencies without relations, up to an order; of each pair ±f one, and zero.

    A plain sine network of n features has N = n, a STAF network N = τn: up to τ^order times as many.
    """
    both = sum(2**j * math.comb(generators, j) * math.comb(order, j) for j in range(min(generators, order) + 1))
    return (both + 1) // 2


def _combinations(generators: Tensor, order: int, limit: int) -> tuple[Tensor, Tensor]:
    """Orders (m,) and frequencies (m, d) of all combinations, order by order."""
    size = generators.abs().max().item() if len(generators) else 0.0
    found = frontier = generators.new_zeros(1, generators.shape[1])
    orders = [torch.zeros(1, dtype=torch.int64)]
    for step in range(1, order + 1):
        if 2 * len(frontier) * len(generators) > 50 * limit:
            raise ValueError(_too_many(len(generators), step, limit))
        moved = (frontier[:, None, None] + torch.stack([generators, -generators])).reshape(-1, generators.shape[1])
        known = len(found)
        found = _distinct(torch.cat([found, moved]), size)
        if len(found) > limit:
            raise ValueError(_too_many(len(generators), step, limit))
        frontier = found[known:]
        orders.append(torch.full((len(frontier),), step))
    return torch.cat(orders), found


def _too_many(generators: int, order: int, limit: int) -> str:
    return (
        f"limit must hold the combinations of {generators} frequencies, up to {count_frequencies(generators, order)} "
        f"at order {order}, got {limit}; a lower order or a higher threshold needs fewer"
    )


def _distinct(frequencies: Tensor, size: float) -> Tensor:
    """One of each pair ±f, in the order of their first appearance."""
    cells = torch.floor(frequencies / (RESOLUTION * size or 1.0) + 1.0 / math.pi)  # no border is at a round number
    filled = cells != 0
    first = filled.int().argmax(1, keepdim=True)
    negative = (cells.gather(1, first) < 0) & filled.any(1, keepdim=True)
    frequencies = torch.where(negative, -frequencies, frequencies)
    cells = torch.floor(frequencies / (RESOLUTION * size or 1.0) + 1.0 / math.pi)
    _, group = torch.unique(cells, dim=0, return_inverse=True)
    places = torch.full((int(group.max()) + 1,), len(group)).scatter_reduce(
        0, group, torch.arange(len(group)), reduce="amin"
    )
    return frequencies[places.sort().values]


# --- bounds ----------------------------------------------------------------------------------------------------------

RADII = torch.logspace(0.01, 12, 1200, dtype=torch.float64)
"""r, among which the one with the least bound is taken."""


def _weight(linear: Any) -> Tensor:
    return linear.weight.detach().double().cpu()


def _majorant(plain: Any) -> Tensor:
    """R(r) at each of `RADII`, the largest of the outputs; infinite where it overflows."""
    moving = (_weight(plain.linears[0]) != 0.0).any(1)
    held = torch.where(moving, RADII[:, None], 0.0)
    for layer in range(1, len(plain.linears)):
        argument = held @ _weight(plain.linears[layer]).abs().T
        held = torch.expm1(abs(plain.activations[layer].omega) * argument) + (argument if plain.skip else 0.0)
    return (held @ _weight(plain.output).abs().T).amax(1).nan_to_num(math.inf, math.inf)


def _remainder(plain: Any, order: int) -> float:
    if len(plain.linears) == 1 and order >= 1:
        return 0.0
    return float((_majorant(plain) / RADII ** (order + 1)).min())


def _order_below(plain: Any, threshold: float) -> int:
    """The least order whose remainder is below the threshold."""
    if threshold <= 0.0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    if len(plain.linears) == 1:
        return 1
    least = float(((_majorant(plain) / threshold).log() / RADII.log()).min())
    if math.isinf(least):
        raise ValueError(f"threshold must be one that some order meets, got {threshold}: the weights are too large")
    return max(math.ceil(least) - 1, 0)
