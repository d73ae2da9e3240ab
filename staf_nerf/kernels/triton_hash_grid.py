"""The multiresolution hash grid in Triton for CUDA devices: float32, points in 2 or 3 dimensions.

Conventions and signatures are those of `staf_nerf.kernels.hash_grid`. A program processes a block of points at one
level. Gradients of the table are summed by atomic additions in no fixed order, as in torch's scatter and in
tiny-cuda-nn. Gradients of the points are written for each level, and torch adds them up.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# (Triton accepts numbers for constexpr arguments, and loops over static_range.)
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from staf_nerf.kernels import library
from staf_nerf.kernels.signatures import Levels, grid_sizes

BLOCK = 128
"""Number of points of a program."""


@triton.jit
def _place(points, multipliers, at, inside, scale, level, LEVELS, axis: tl.constexpr, DIMS: tl.constexpr):
    """Along an axis: the terms of the cell's low and high end in the number of a grid point, and the fraction."""
    position = tl.load(points + at * DIMS + axis, inside, 0.0) * scale + 0.5
    cell = tl.floor(position)
    factor = tl.load(multipliers + axis * LEVELS + level).to(tl.uint32, bitcast=True)
    low = cell.to(tl.int32).to(tl.uint32, bitcast=True) * factor
    return low, low + factor, position - cell


@triton.jit
def _cell(points, multipliers, at, inside, scale, level, LEVELS, DIMS: tl.constexpr):
    """`_place` along three axes. In two dimensions the third repeats the second, and is not used."""
    low0, high0, f0 = _place(points, multipliers, at, inside, scale, level, LEVELS, 0, DIMS)
    low1, high1, f1 = _place(points, multipliers, at, inside, scale, level, LEVELS, 1, DIMS)
    low2, high2, f2 = _place(points, multipliers, at, inside, scale, level, LEVELS, DIMS - 1, DIMS)
    return low0, high0, f0, low1, high1, f1, low2, high2, f2


@triton.jit
def _row(low0, high0, low1, high1, low2, high2, rows, dense, corner: tl.constexpr, DIMS: tl.constexpr):
    """The row of a corner in the table of its level. Axis 0 changes fastest."""
    a = high0 if corner & 1 else low0
    b = high1 if (corner >> 1) & 1 else low1
    c = high2 if (corner >> 2) & 1 else low2
    if dense:
        index = a + b
        if DIMS == 3:
            index += c
        index = index % rows
    else:
        index = a ^ b
        if DIMS == 3:
            index = index ^ c
        index = index & (rows - 1)
    return index.to(tl.int64)


@triton.jit
def _factor(f, product, corner: tl.constexpr, axis: tl.constexpr, differentiated: tl.constexpr):
    """`product` times the weight of a corner along an axis, or times the derivative of that weight."""
    if (corner >> axis) & 1:
        return product if differentiated else product * f
    else:
        return -product if differentiated else product * (1.0 - f)


@triton.jit
def _weight(f0, f1, f2, corner: tl.constexpr, along: tl.constexpr, across: tl.constexpr, DIMS: tl.constexpr):
    """The weight of a corner, or its derivative (per cell) along one axis or two different axes. -1: no axis."""
    product = tl.full(f0.shape, 1.0, tl.float32)
    product = _factor(f0, product, corner, 0, (along == 0) | (across == 0))
    product = _factor(f1, product, corner, 1, (along == 1) | (across == 1))
    if DIMS == 3:
        product = _factor(f2, product, corner, 2, (along == 2) | (across == 2))
    return product


@triton.jit
def _moved(f0, f1, f2, v0, v1, v2, corner: tl.constexpr, across: tl.constexpr, DIMS: tl.constexpr):
    """The derivative along v, in cells, of a corner's weight or of its derivative across an axis."""
    moved = tl.zeros_like(f0)
    if across != 0:
        moved += v0 * _weight(f0, f1, f2, corner, 0, across, DIMS)
    if across != 1:
        moved += v1 * _weight(f0, f1, f2, corner, 1, across, DIMS)
    if (DIMS == 3) & (across != 2):
        moved += v2 * _weight(f0, f1, f2, corner, 2, across, DIMS)
    return moved


@triton.jit
def _forward(
    points,
    table,
    scales,
    multipliers,
    rows,
    offsets,
    out,
    count,
    LEVELS,
    num_dense,
    DIMS: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale, offset = tl.load(scales + level), tl.load(offsets + level)
    size = tl.load(rows + level).to(tl.uint32, bitcast=True)
    low0, high0, f0, low1, high1, f1, low2, high2, f2 = _cell(
        points, multipliers, at, inside, scale, level, LEVELS, DIMS
    )
    feature = tl.arange(0, FEATURES)[None, :]
    total = tl.zeros([BLOCK, FEATURES], tl.float32)
    for corner in tl.static_range(2**DIMS):
        row = offset + _row(low0, high0, low1, high1, low2, high2, size, level < num_dense, corner, DIMS)
        values = tl.load(table + row[:, None] * FEATURES + feature, inside[:, None], 0.0)
        total += _weight(f0, f1, f2, corner, -1, -1, DIMS)[:, None] * values
    tl.store(out + (at * LEVELS + level)[:, None] * FEATURES + feature, total, inside[:, None])


@triton.jit
def _backward(
    grad,
    points,
    table,
    scales,
    multipliers,
    rows,
    offsets,
    by_table,
    by_points,
    count,
    LEVELS,
    num_dense,
    TO_TABLE: tl.constexpr,
    TO_POINTS: tl.constexpr,
    DIMS: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale, offset = tl.load(scales + level), tl.load(offsets + level)
    size = tl.load(rows + level).to(tl.uint32, bitcast=True)
    low0, high0, f0, low1, high1, f1, low2, high2, f2 = _cell(
        points, multipliers, at, inside, scale, level, LEVELS, DIMS
    )
    feature = tl.arange(0, FEATURES)[None, :]
    g = tl.load(grad + (at * LEVELS + level)[:, None] * FEATURES + feature, inside[:, None], 0.0)
    slope0, slope1, slope2 = tl.zeros_like(f0), tl.zeros_like(f0), tl.zeros_like(f0)
    for corner in tl.static_range(2**DIMS):
        row = offset + _row(low0, high0, low1, high1, low2, high2, size, level < num_dense, corner, DIMS)
        if TO_TABLE:
            share = _weight(f0, f1, f2, corner, -1, -1, DIMS)[:, None] * g
            tl.atomic_add(by_table + row[:, None] * FEATURES + feature, share, inside[:, None], sem="relaxed")
        if TO_POINTS:
            values = tl.load(table + row[:, None] * FEATURES + feature, inside[:, None], 0.0)
            agreement = tl.sum(values * g, 1)
            slope0 += _weight(f0, f1, f2, corner, 0, -1, DIMS) * agreement
            slope1 += _weight(f0, f1, f2, corner, 1, -1, DIMS) * agreement
            if DIMS == 3:
                slope2 += _weight(f0, f1, f2, corner, 2, -1, DIMS) * agreement
    if TO_POINTS:
        to = by_points + (level.to(tl.int64) * count + at) * DIMS
        tl.store(to, scale * slope0, inside)
        tl.store(to + 1, scale * slope1, inside)
        if DIMS == 3:
            tl.store(to + 2, scale * slope2, inside)


@triton.jit
def _second(
    v_points,
    v_table,
    grad,
    points,
    table,
    scales,
    multipliers,
    rows,
    offsets,
    by_grad,
    by_table,
    by_points,
    count,
    LEVELS,
    num_dense,
    OF_POINTS: tl.constexpr,
    OF_TABLE: tl.constexpr,
    DIMS: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale, offset = tl.load(scales + level), tl.load(offsets + level)
    size = tl.load(rows + level).to(tl.uint32, bitcast=True)
    low0, high0, f0, low1, high1, f1, low2, high2, f2 = _cell(
        points, multipliers, at, inside, scale, level, LEVELS, DIMS
    )
    feature = tl.arange(0, FEATURES)[None, :]
    g = tl.load(grad + (at * LEVELS + level)[:, None] * FEATURES + feature, inside[:, None], 0.0)
    v0 = scale * tl.load(v_points + at * DIMS, inside, 0.0)
    v1 = scale * tl.load(v_points + at * DIMS + 1, inside, 0.0)
    v2 = scale * tl.load(v_points + at * DIMS + DIMS - 1, inside, 0.0)
    total = tl.zeros([BLOCK, FEATURES], tl.float32)
    slope0, slope1, slope2 = tl.zeros_like(f0), tl.zeros_like(f0), tl.zeros_like(f0)
    for corner in tl.static_range(2**DIMS):
        row = offset + _row(low0, high0, low1, high1, low2, high2, size, level < num_dense, corner, DIMS)
        place = row[:, None] * FEATURES + feature
        if OF_POINTS:
            values = tl.load(table + place, inside[:, None], 0.0)
            agreement = tl.sum(values * g, 1)
            moved = _moved(f0, f1, f2, v0, v1, v2, corner, -1, DIMS)[:, None]
            total += moved * values
            tl.atomic_add(by_table + place, moved * g, inside[:, None], sem="relaxed")
            slope0 += _moved(f0, f1, f2, v0, v1, v2, corner, 0, DIMS) * agreement
            slope1 += _moved(f0, f1, f2, v0, v1, v2, corner, 1, DIMS) * agreement
            if DIMS == 3:
                slope2 += _moved(f0, f1, f2, v0, v1, v2, corner, 2, DIMS) * agreement
        if OF_TABLE:
            values = tl.load(v_table + place, inside[:, None], 0.0)
            agreement = tl.sum(values * g, 1)
            total += _weight(f0, f1, f2, corner, -1, -1, DIMS)[:, None] * values
            slope0 += _weight(f0, f1, f2, corner, 0, -1, DIMS) * agreement
            slope1 += _weight(f0, f1, f2, corner, 1, -1, DIMS) * agreement
            if DIMS == 3:
                slope2 += _weight(f0, f1, f2, corner, 2, -1, DIMS) * agreement
    tl.store(by_grad + (at * LEVELS + level)[:, None] * FEATURES + feature, total, inside[:, None])
    to = by_points + (level.to(tl.int64) * count + at) * DIMS
    tl.store(to, scale * slope0, inside)
    tl.store(to + 1, scale * slope1, inside)
    if DIMS == 3:
        tl.store(to + 2, scale * slope2, inside)


def forward(points: Tensor, table: Tensor, levels: Levels) -> Tensor:
    """See `staf_nerf.kernels.hash_grid.hash_grid`."""
    out = points.new_empty(len(points), len(levels.rows) * table.shape[1])
    _launch(_forward, "hash_grid_forward", (), points, table, levels, (out,))
    return out


def backward(
    grad: Tensor, points: Tensor, table: Tensor, levels: Levels, to_points: bool, to_table: bool
) -> tuple[Tensor, Tensor]:
    """See `staf_nerf.kernels.hash_grid.hash_grid_backward`."""
    by_table = table.new_zeros(table.shape)
    by_points = points.new_empty(len(levels.rows) if to_points else 0, *points.shape)
    flags = {"TO_TABLE": to_table, "TO_POINTS": to_points}
    _launch(_backward, "hash_grid_backward", (grad,), points, table, levels, (by_table, by_points), **flags)
    return by_points.sum(0), by_table


def second(
    v_points: Tensor | None, v_table: Tensor | None, grad: Tensor, points: Tensor, table: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """See `staf_nerf.kernels.hash_grid.hash_grid_second`."""
    by_grad, by_table = grad.new_empty(grad.shape), table.new_zeros(table.shape)
    by_points = points.new_empty(len(levels.rows), *points.shape)
    before = (points if v_points is None else v_points, table if v_table is None else v_table, grad)
    flags = {"OF_POINTS": v_points is not None, "OF_TABLE": v_table is not None}
    _launch(_second, "hash_grid_second", before, points, table, levels, (by_grad, by_table, by_points), **flags)
    return by_grad, by_points.sum(0), by_table


def _launch(
    kernel: Any,
    name: str,
    before: tuple[Tensor, ...],
    points: Tensor,
    table: Tensor,
    levels: Levels,
    outputs: tuple[Tensor, ...],
    **flags: bool,
) -> None:
    """Runs a kernel, which fills `outputs`. Its inputs are those of the C function of that name."""
    *arrays, num_dense = levels
    inputs = (*before, points, table, *arrays)
    library.check_shapes(name, grid_sizes(points, table, levels), inputs)
    library.refuse_tangents(inputs)
    count, dimensions = points.shape
    if count:
        arguments = (*(x.contiguous() for x in inputs), *outputs, count, len(levels.rows), num_dense)
        grid = (-(-count // BLOCK), len(levels.rows))
        with torch.cuda.device_of(points):
            kernel[grid](*arguments, **flags, DIMS=dimensions, FEATURES=table.shape[1], BLOCK=BLOCK)
