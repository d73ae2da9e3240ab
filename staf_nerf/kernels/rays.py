"""Samples along the rays of a radiance field: in plain torch, and for float32 and float64 in C on a CPU.

The field itself costs much more. But in plain torch a training step needs dozens of these operations. Each has an
overhead, and operations over an axis of three coordinates are slow.

Conventions: tensors (R, n) hold n ordered samples for each of R rays. Edges (R, n + 1) ascend. Sample i lies between
edges i and i + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from staf_nerf.kernels import library, native


def sample_points(origins: Tensor, directions: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Returns the midpoints of samples.

    Args:
        origins: (R, 3).
        directions: (R, 3).
        starts: Distances (R, n) at which the samples begin.
        ends: Distances (R, n) at which the samples end.

    Returns:
        Points (R, n, 3).
    """
    tensors = (origins, directions, starts, ends)
    fits = origins.shape == directions.shape == (*starts.shape[:1], 3) and starts.shape == ends.shape
    if not (fits and _native_fits(*tensors) and _constant(*tensors)):
        return reference_sample_points(*tensors)
    return library.run("ray_points", starts.dtype, starts.shape, tensors)[0]


def contract(points: Tensor) -> Tensor:
    """Contracts all of space into the cube [-2, 2]³, as in mip-NeRF 360 but with the maximum norm.

    With m the largest absolute coordinate of x, the result is x if m ≤ 1, and (2 - 1/m) x/m otherwise.

    Args:
        points: (..., 3).

    Returns:
        (..., 3).

    Raises:
        ValueError: If the last axis does not have three elements.
    """
    if points.shape[-1:] != (3,):
        raise ValueError(f"points must have shape (..., 3), got {tuple(points.shape)}")
    flat = points.reshape(-1, 3)
    if not (_native_fits(flat) and _constant(flat)):
        return reference_contract(points)
    return library.run("cube_contraction", flat.dtype, (len(flat),), (flat,))[0].view(points.shape)


def sample_weights(depth: Tensor) -> Tensor:
    """Returns the rendering weight of each sample: T(i - 1) - T(i), where T(i) = exp(-Σⱼ₍ⱼ≤ᵢ₎ depth(j)).

    Args:
        depth: Optical depths (density times length), (R, n), not negative.

    Returns:
        Weights (R, n), differentiable any number of times.
    """
    return _SampleWeights.apply(depth) if _native_fits(depth) else reference_sample_weights(depth)


@torch.no_grad()
def resample(edges: Tensor, weights: Tensor, shift: Tensor, num_edges: int, *, padding: float = 0.01) -> Tensor:
    """Returns the edges of new samples, which are dense where the weights are large.

    Edge j lies where the cumulative distribution of the weights reaches (j + shift) / num_edges.

    Args:
        edges: (R, n + 1).
        weights: (R, n).
        shift: (R, 1), in [0, 1): random, or one half.
        num_edges: Number m of new edges, one more than the number of new samples.
        padding: Positive number that is added to each weight, so that every part of a ray gets samples.

    Returns:
        New edges (R, m), without gradients.

    Raises:
        ValueError: If there are no samples, or not one edge more than samples.
    """
    _check_edges(edges, weights)
    if not weights.shape[-1]:
        raise ValueError(f"weights must have shape (R, n), n >= 1, got {tuple(weights.shape)}")
    fits = len(edges) == len(weights) and shift.shape == (len(weights), 1)
    if not (fits and _native_fits(edges, weights, shift)):
        return reference_resample(edges, weights, shift, num_edges, padding=padding)
    return library.run("ray_resample", edges.dtype, (*weights.shape, num_edges, padding), (edges, weights, shift))[0]


def distortion(edges: Tensor, weights: Tensor) -> Tensor:
    """Returns the distortion loss of mip-NeRF 360, which favours weights in one narrow peak.

    It is `Σᵢⱼ wᵢ wⱼ |mᵢ - mⱼ| + ⅓ Σᵢ wᵢ² (eᵢ₊₁ - eᵢ)`, with m the midpoints of the samples (arXiv 2111.12077,
    equation 15).

    Args:
        edges: e, (R, n + 1).
        weights: w, (R, n).

    Returns:
        The loss of each ray, (R,).

    Raises:
        ValueError: If there is not one edge more than samples.
    """
    _check_edges(edges, weights)
    if edges.requires_grad or len(edges) != len(weights) or not _native_fits(edges, weights):
        return reference_distortion(edges, weights)
    return _Distortion.apply(edges, weights)


def _check_edges(edges: Tensor, weights: Tensor) -> None:
    if not edges.ndim or not weights.ndim or edges.shape[-1] != weights.shape[-1] + 1:
        raise ValueError(
            "edges must have shape (R, n + 1) with weights of shape (R, n), "
            f"got {tuple(edges.shape)} and {tuple(weights.shape)}"
        )


# --- in plain torch --------------------------------------------------------------------------------------------------


def reference_sample_points(origins: Tensor, directions: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Returns `sample_points`, on any device."""
    return torch.addcmul(origins[:, None], directions[:, None], (0.5 * (starts + ends))[..., None])


def reference_contract(points: Tensor) -> Tensor:
    """Returns `contract`, on any device, without torch's norm, which is slow over an axis of three."""
    x, y, z = points.abs().unbind(-1)
    size = torch.maximum(torch.maximum(x, y), z).clamp(min=1.0)[..., None]
    return points * ((2.0 - 1.0 / size) / size)


def reference_sample_weights(depth: Tensor) -> Tensor:
    """Returns `sample_weights`, on any device."""
    through = torch.exp(-depth.cumsum(-1))
    return functional.pad(through[..., :-1], (1, 0), value=1.0) - through


def reference_resample(
    edges: Tensor, weights: Tensor, shift: Tensor, num_edges: int, *, padding: float = 0.01
) -> Tensor:
    """Returns `resample`, on any device."""
    padded = weights + padding
    reached = (padded / padded.sum(-1, keepdim=True)).cumsum(-1).clamp(max=1.0)
    reached = functional.pad(reached, (1, 0))
    wanted = (torch.arange(num_edges, device=edges.device) + shift) / num_edges
    above = torch.searchsorted(reached, wanted, side="right").clamp(max=weights.shape[-1])
    low, high = reached.gather(-1, above - 1), reached.gather(-1, above)
    start, end = edges.gather(-1, above - 1), edges.gather(-1, above)
    part = torch.where(wanted >= high, 1.0, (wanted - low) / (high - low))  # rounding may leave the last below 1
    return start + part * (end - start)


def reference_distortion(edges: Tensor, weights: Tensor) -> Tensor:
    """Returns `distortion`, on any device.

    As the midpoints ascend, the double sum is twice Σᵢ wᵢ (mᵢ Σⱼ₍ⱼ﹤ᵢ₎ wⱼ - Σⱼ₍ⱼ﹤ᵢ₎ wⱼ mⱼ). Two running sums suffice,
    without a table of pairs.
    """
    widths = edges.diff(dim=-1)
    middles = edges[..., :-1] + 0.5 * widths
    moments = weights * middles
    before = weights.cumsum(-1) - weights
    moments_before = moments.cumsum(-1) - moments
    between = 2.0 * (moments * before - weights * moments_before).sum(-1)
    return between + (weights.square() * widths).sum(-1) / 3.0


# --- native ----------------------------------------------------------------------------------------------------------


def _native_fits(*tensors: Tensor) -> bool:
    return (
        native.fits(*tensors) and all(x.ndim == 2 for x in tensors) and library.is_plain(*tensors) and library.serves()
    )


def _constant(*tensors: Tensor) -> bool:
    """Returns whether no gradient is needed."""
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


class _SampleWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, depth: Tensor) -> Tensor:
        ctx.through, weights = library.run("ray_weights", depth.dtype, depth.shape, (depth,))
        ctx.save_for_backward(depth)
        return weights

    @staticmethod
    def backward(ctx, grad: Tensor):
        (depth,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.func.vjp(reference_sample_weights, depth)[1](grad)
        return library.run("ray_weights_backward", depth.dtype, depth.shape, (grad, ctx.through))[0]


class _Distortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, edges: Tensor, weights: Tensor) -> Tensor:
        ctx.gradient, loss = library.run("ray_distortion", weights.dtype, weights.shape, (edges, weights))
        ctx.save_for_backward(edges, weights)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor):
        edges, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, torch.func.vjp(lambda w: reference_distortion(edges, w), weights)[1](grad)[0]
        return None, grad[:, None] * ctx.gradient
