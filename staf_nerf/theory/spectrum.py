"""The frequencies that a STAF network can produce: integer combinations of the frequencies of its first layer.

Conventions: frequencies are vectors (d,) in radians per unit of the coordinates. One of each pair ±f is listed, because
values are real. Let f₁ … f_N be the first-layer frequencies (N = τn: Ωᵢ times a row of W). The spectral lines lie at
Σ s_m f_m for integers s_m, and the order of a line is ``Σ |s_m|``. The sines of a second layer produce them by the
Jacobi-Anger expansion::

    exp(j β sin θ) = Σ_s J_s(β) exp(j s θ)

There is one such factor for each input sine, of amplitude β. Further layers add no frequencies, but increase the
weight of high orders. MeshSource: arXiv 2502.00869, section on expressive power. The bounds are ours.
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
"""Default of the largest number of listed frequencies."""
RESOLUTION = 1e-9
"""Frequencies are equal if they differ by less than this fraction of the first layer's largest frequency."""


@dataclass(frozen=True)
class FrequencySupport:
    """The frequencies of a network up to an order, and a bound on the amplitudes beyond."""

    frequencies: Tensor
    """(m, d) in float64: one of each pair ±f, the zero frequency first."""
    orders: Tensor
    """(m,): lowest order of the combinations that give each frequency."""
    order: int
    """Highest listed order."""
    remainder: float
    """Upper bound on the sum of the amplitudes that are not listed, for the output where it is largest."""


def frequency_support(
    mlp: CoordinateMLP, *, order: int | None = None, threshold: float = 1e-6, limit: int = MOST_FREQUENCIES
) -> FrequencySupport:
    """Returns the frequencies of a network of `STAF` or `Sine`, up to an order.

    A network with one hidden layer has the frequencies of the first layer only. A deeper one has spectral lines at all
    integer combinations of them. Because ``|J_s(β)| <= (|β|/2)^|s| / |s|!``, the amplitudes of order k sum to at most
    R_k. The series Σ R_k t^k = R(t) has a closed form: t for a sine of the first layer, exp(A(t)) - 1 for a sine of a
    further layer with ``A(t) = Σ |W̄| H(t)`` for its argument, and ``Σ |W| H(t)`` for the output. The sum beyond an
    order K is at most R(r) / r^(K+1) for every r > 1, and the smallest of these bounds is used.

    Args:
        mlp: A network with at least one hidden layer.
        order: Highest order to list. Defaults to the lowest order whose remainder is below the threshold.
        threshold: Threshold of the remainder, in units of the output.
        limit: Largest number of frequencies to list.

    Raises:
        ValueError: If there is no hidden layer, an activation is not supported, or there are more than `limit`
            frequencies.
    """
    plain = sine_network(mlp)
    if not len(plain.layers):
        raise ValueError("mlp must have at least one hidden layer, got hidden_layers=0")
    if order is not None and order < 0:
        raise ValueError(f"order must be >= 0, got {order}")
    generators = first_frequencies(mlp)
    if order is None:
        order = _order_below(plain, threshold)
    orders, frequencies = _combinations(generators, order, limit)
    return FrequencySupport(frequencies, orders, order, _remainder(plain, order))


def first_frequencies(mlp: CoordinateMLP) -> Tensor:
    """Returns the distinct, nonzero frequencies of the first layer, Ωᵢ times a row of W: (N, d), float64."""
    rows = _weight(sine_network(mlp).layers[0].linear)
    size = rows.abs().max().item()
    found = _distinct(rows, size)
    return found[found.abs().amax(1) > RESOLUTION * size]


def count_frequencies(generators: int, order: int) -> int:
    """Returns the number of integer combinations of independent frequencies up to an order, one of each pair ±f.

    For n features a plain sine network has n generators and a STAF network τn, which gives up to τ^order times as many
    combinations. The zero frequency is counted.
    """
    both = sum(2**j * math.comb(generators, j) * math.comb(order, j) for j in range(min(generators, order) + 1))
    return (both + 1) // 2


def _combinations(generators: Tensor, order: int, limit: int) -> tuple[Tensor, Tensor]:
    """Returns orders (m,) and frequencies (m, d) of all combinations, order by order."""
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
        f"limit must be at least the number of combinations of {generators} frequencies, up to "
        f"{count_frequencies(generators, order)} at order {order}, got {limit}; use a lower order or a higher threshold"
    )


def _distinct(frequencies: Tensor, size: float) -> Tensor:
    """Returns distinct frequencies, one of each pair ±f, in the order of their first appearance."""
    cells = torch.floor(frequencies / (RESOLUTION * size or 1.0) + 1.0 / math.pi)  # no border at round numbers
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
"""Values of r, among which the one with the smallest bound is used."""


def _weight(linear: Any) -> Tensor:
    return linear.weight.detach().double().cpu()


def _majorant(plain: Any) -> Tensor:
    """Returns R(r) at each of `RADII` for the largest output, infinite on overflow."""
    moving = (_weight(plain.layers[0].linear) != 0.0).any(1)
    held = torch.where(moving, RADII[:, None], 0.0)
    for layer in plain.layers[1:]:
        argument = held @ _weight(layer.linear).abs().T
        held = torch.expm1(abs(layer.activation.omega) * argument) + (argument if layer.skip else 0.0)
    return (held @ _weight(plain.output).abs().T).amax(1).nan_to_num(math.inf, math.inf)


def _remainder(plain: Any, order: int) -> float:
    if len(plain.layers) == 1 and order >= 1:
        return 0.0
    return float((_majorant(plain) / RADII ** (order + 1)).min())


def _order_below(plain: Any, threshold: float) -> int:
    """Returns the lowest order whose remainder is below the threshold."""
    if threshold <= 0.0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    if len(plain.layers) == 1:
        return 1
    least = float(((_majorant(plain) / threshold).log() / RADII.log()).min())
    if math.isinf(least):
        raise ValueError(f"threshold must be reachable by some order, got {threshold}: the weights are too large")
    return max(math.ceil(least) - 1, 0)
