"""Losses on the weights of samples along rays."""

from __future__ import annotations

from torch import Tensor


def distortion(edges: Tensor, weights: Tensor) -> Tensor:
    """mip-NeRF 360's loss of a histogram that is not one narrow peak (arXiv 2111.12077, equation 15).

    Σᵢⱼ wᵢ wⱼ |mᵢ - mⱼ| + ⅓ Σᵢ wᵢ² (eᵢ₊₁ - eᵢ), with m the middles of the bins. As these ascend, the double sum is
    twice Σᵢ wᵢ (mᵢ Σⱼ₍ⱼ﹤ᵢ₎ wⱼ - Σⱼ₍ⱼ﹤ᵢ₎ wⱼ mⱼ): two running sums in place of a table of pairs.

    Args:
        edges: e, (..., n + 1), ascending.
        weights: w, (..., n).

    Returns:
        The loss of each histogram, (...).
    """
    widths = edges.diff(dim=-1)
    middles = edges[..., :-1] + 0.5 * widths
    moments = weights * middles
    before = weights.cumsum(-1) - weights
    moments_before = moments.cumsum(-1) - moments
    between = 2.0 * (moments * before - weights * moments_before).sum(-1)
    return between + (weights.square() * widths).sum(-1) / 3.0
