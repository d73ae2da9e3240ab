"""Features of a multiresolution hash grid: in plain torch, and for float32 in C on a CPU and in Triton on a GPU.

Conventions: points are (B, d) in [0, 1], with d = 2 or 3. The table has F features per row. There are L levels. The
cells of level l have side 1 / scales[l]. Level l owns rows[l] rows of the table, starting at offsets[l]. The number of
a grid point combines its coordinates times multipliers (d, L): by a sum on the first `num_dense` levels, and by
exclusive or on the others. Scales have the dtype of the points, the other arrays are int32. The layout is that of
instant-ngp (arXiv 2201.05989).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from staf_nerf._torch_compat import is_traced
from staf_nerf.kernels import library, native_hash_grid
from staf_nerf.kernels.operators import Operator
from staf_nerf.kernels.signatures import Levels, grid_sizes


def hash_grid(
    points: Tensor, table: Tensor, scales: Tensor, multipliers: Tensor, rows: Tensor, offsets: Tensor, num_dense: int
) -> Tensor:
    """Returns interpolated features (B, L · F). Points and table have gradients, and second derivatives.

    Raises:
        ValueError: If a shape is not as described above, if an array of integers is not int32, if `num_dense` is not
            between 0 and L or, on a CPU, if a level does not lie in the table.
    """
    levels = Levels(scales, multipliers, rows, offsets, num_dense)
    single = all(x.device == points.device and x.dtype == torch.float32 for x in (points, table, scales))
    if single and points.device.type == "cpu" and library.serves():
        return hash_grid_features(points, table, *levels)  # which checks the inputs itself
    _check(points, table, levels)
    if single and _triton_fits(points, table):
        return hash_grid_features(points, table, *levels)
    return reference_hash_grid(points, table, levels)


def _check(points: Tensor, table: Tensor, levels: Levels) -> None:
    *arrays, _ = levels
    library.check_shapes("hash_grid_forward", grid_sizes(points, table, levels), (points, table, *arrays))
    for name in ("multipliers", "rows", "offsets"):
        if (dtype := getattr(levels, name).dtype) != torch.int32:
            raise ValueError(f"{name} must be int32, got {dtype}")


def _triton_fits(points: Tensor, table: Tensor) -> bool:
    return points.device.type == "cuda" and table.shape[1] in (1, 2, 4, 8) and library.triton_serves()


# --- in plain torch --------------------------------------------------------------------------------------------------


def reference_hash_grid(points: Tensor, table: Tensor, levels: Levels) -> Tensor:
    """Returns the features of `hash_grid`, on any device and in any precision."""
    corners, fraction = find_corners(points, levels)
    # torch cannot save a trace that has an autograd.Function.
    interpolate = _interpolate if is_traced() else _Interpolate.apply
    return interpolate(fraction, table, corners).transpose(0, 1).flatten(1)


def find_corners(points: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Returns the table rows around each point, and the position of the point in its cell.

    Returns:
        Rows (L, B, 2**d), in which axis 0 of the corners changes fastest, and fractions (d, L, B) in [0, 1).
    """
    scales, multipliers, rows, offsets, n = levels
    position = points.T.contiguous()[:, None, :] * scales[:, None].to(points.dtype) + 0.5
    cell = position.detach().floor()
    # int32 wraps around like the uint32 of the other implementations. The mask below drops the sign.
    low = cell.int() * multipliers[:, :, None]
    high = low + multipliers[:, :, None]
    sizes = rows[:, None, None]
    dense = _combine(low[:, :n], high[:, :n], torch.add) % sizes[:n]
    hashed = _combine(low[:, n:], high[:, n:], torch.bitwise_xor) & (sizes[n:] - 1)
    return torch.cat([dense, hashed]) + offsets[:, None, None], position - cell


def _combine(low: Tensor, high: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combines all choices of low or high per axis: (d, L, B) twice to (L, B, 2**d). Axis 0 changes fastest."""
    choices = [low[-1], high[-1]]
    for axis in range(len(low) - 2, -1, -1):
        choices = [operation(side[axis], rest) for rest in choices for side in (low, high)]
    return torch.stack(choices, -1)


def _corner_weights(fraction: Tensor) -> Tensor:
    """Returns the multilinear weights (L, B, 2**d) of the corners for fractions (d, L, B)."""
    return _combine(1.0 - fraction, fraction, torch.mul)


def _interpolate(fraction: Tensor, table: Tensor, corners: Tensor) -> Tensor:
    """Returns weighted sums (L, B, F) of table rows."""
    weights = _corner_weights(fraction).to(table.dtype).flatten(0, 1)
    bags = functional.embedding_bag(corners.flatten(0, 1), table, mode="sum", per_sample_weights=weights)
    return bags.reshape(*corners.shape[:2], table.shape[1])


class _Interpolate(torch.autograd.Function):
    """`_interpolate`: a gather in the forward pass, a scatter per feature in the backward."""

    generate_vmap_rule = True

    forward = staticmethod(_interpolate)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        # Only differentiable operations, for second derivatives.
        fraction, table, corners = ctx.saved_tensors
        to_fraction = to_table = None
        if ctx.needs_input_grad[1]:
            weights = _corner_weights(fraction).to(table.dtype)
            rows, zeros = corners.flatten().long(), table.new_zeros(len(table))
            shares = ((weights * feature[..., None]).flatten() for feature in grad.unbind(-1))
            to_table = torch.stack([zeros.scatter_add(0, rows, share) for share in shares], -1)
        if ctx.needs_input_grad[0]:
            agreement = (functional.embedding(corners, table) * grad[..., None, :]).sum(-1)  # (L, B, 2**d)
            to_fraction = _weight_gradient(fraction, agreement)
        return to_fraction, to_table, None


def _weight_gradient(fraction: Tensor, agreement: Tensor) -> Tensor:
    """Returns the gradient (d, L, B) of Σ agreement · weights with respect to the fractions."""
    low, high, one = 1.0 - fraction, fraction, torch.ones_like(fraction[0])
    gradients = []
    for axis in range(len(fraction)):
        below = [-one if a == axis else low[a] for a in range(len(fraction))]
        above = [one if a == axis else high[a] for a in range(len(fraction))]
        gradients.append((_combine(torch.stack(below), torch.stack(above), torch.mul) * agreement).sum(-1))
    return torch.stack(gradients)


# --- as operators, which torch.compile knows and autograd differentiates ---------------------------------------------


def _kernels(x: Tensor) -> ModuleType:
    """Returns the module with the kernels for the tensor's device."""
    if x.device.type == "cpu":
        return native_hash_grid
    from staf_nerf.kernels import triton_hash_grid

    return triton_hash_grid


INPUTS = "Tensor points, Tensor table, Tensor scales, Tensor multipliers, Tensor rows, Tensor offsets, int num_dense"


def _features(points: Tensor, table: Tensor, *levels: Any) -> Tensor:
    return _kernels(points).forward(points, table, Levels(*levels))


def _gradients(grad: Tensor, points: Tensor, table: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    *levels, to_points, to_table = others
    return _kernels(points).backward(grad, points, table, Levels(*levels), to_points, to_table)


def _second_gradients(
    v_points: Tensor | None, v_table: Tensor | None, grad: Tensor, points: Tensor, table: Tensor, *levels: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(points).second(v_points, v_table, grad, points, table, Levels(*levels))


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.num_dense = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor):
    wanted = ctx.needs_input_grad[:2]
    gradients = hash_grid_backward(grad, *ctx.saved_tensors, ctx.num_dense, *wanted)
    return *(g if w else None for g, w in zip(gradients, wanted, strict=True)), *([None] * 5)


def _save_backward(ctx, inputs, output) -> None:
    *tensors, ctx.num_dense, ctx.to_points, ctx.to_table = inputs
    ctx.save_for_backward(*tensors)


def _second(ctx, v_points: Tensor, v_table: Tensor):
    along = (v_points if ctx.to_points else None, v_table if ctx.to_table else None)
    return *hash_grid_second(*along, *ctx.saved_tensors, ctx.num_dense), *([None] * 7)


def _third(ctx, *directions: Tensor):
    """Computes derivatives beyond the second, which are rare, by autograd of the reference."""
    v_points, v_table, grad, points, table, *arrays = ctx.saved_tensors
    levels = Levels._make((*arrays, ctx.num_dense))

    def features(points: Tensor, table: Tensor) -> Tensor:
        return reference_hash_grid(points, table, levels)

    def first(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.func.vjp(features, *inputs)[1](grad)

    def second(v_points: Tensor, v_table: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.func.vjp(first, *inputs)[1]((v_points, v_table))

    along = [torch.zeros_like(x) if v is None else v for v, x in ((v_points, points), (v_table, table))]
    gradients = torch.func.vjp(second, *along, grad, points, table)[1](directions)
    wanted = ctx.needs_input_grad[:5]
    return *(g if w else None for g, w in zip(gradients, wanted, strict=True)), *([None] * 5)


hash_grid_second = Operator(
    "hash_grid_second",
    f"(Tensor? v_points, Tensor? v_table, Tensor grad, {INPUTS}) -> (Tensor, Tensor, Tensor)",
    _second_gradients,
    fake=lambda v_points, v_table, *inputs: tuple(x.new_empty(x.shape) for x in inputs[:3]),
    backward=_third,
    save=_save,
)
"""Returns the gradients of <v, w> with respect to grad, points and table.

Here w are the results of `hash_grid_backward`, and v are the directions v_points and v_table (None: zero).
"""

hash_grid_backward = Operator(
    "hash_grid_backward",
    f"(Tensor grad, {INPUTS}, bool to_points, bool to_table) -> (Tensor, Tensor)",
    _gradients,
    fake=lambda grad, points, table, *_: (points.new_empty(points.shape), table.new_empty(table.shape)),
    backward=_second,
    save=_save_backward,
)
"""Returns the gradients of <grad, features> with respect to points and table. Unneeded ones are zero."""

hash_grid_features = Operator(
    "hash_grid",
    f"({INPUTS}) -> Tensor",
    _features,
    fake=lambda points, table, scales, *_: points.new_empty(points.shape[0], scales.shape[0] * table.shape[1]),
    backward=_backward,
    save=_save,
)
"""Returns the features of `hash_grid` for float32."""
