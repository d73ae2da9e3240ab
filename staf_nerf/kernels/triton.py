"""The trainable Fourier sum in Triton for CUDA devices: float32 inside; float32, fp16 or bf16 in and out.

Conventions and formulas are those of `staf_nerf.kernels.reference`. A program processes a tile of z: rows by
features if each feature has its own parameters. If parameters are shared, z counts as one feature. Each program writes
partial sums of the parameters' gradients, which torch adds up. There are no atomics, so two runs give equal results.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from staf_nerf.kernels import library
from staf_nerf.kernels.reference import check_amplitude

SHARED_TILE = (512, 1)
"""Rows and columns of a tile if parameters are shared."""
FEATURE_TILE = (64, 16)
"""Rows and columns of a tile if each feature has its own parameters."""
WARPS = 1
"""Number of warps of a program. With one warp, sums over a tile need no shared memory."""

# π in three parts, the first two of 9 bits: multiples up to 2¹⁵ of these are exact without a fused multiply-add.
PI_1 = tl.constexpr(3.140625)
PI_2 = tl.constexpr(9.670257568359375e-4)
PI_3 = tl.constexpr(6.2783295730096264338e-7)
INVERSE_PI = tl.constexpr(0.318309886183790671538)
ROUNDING = tl.constexpr(12582912.0)  # 1.5 · 2²³: adding it rounds to an integer, which is in the low bits of the sum
LARGEST = tl.constexpr(1e5)  # beyond it, and for values that are not finite, Triton's own sine is used


@triton.jit
def _sincos(x, within):
    """Sine and cosine: x = kπ + r with r in [-π/2, π/2], then polynomials in r². Triton's own beyond `LARGEST`."""
    if within:
        shifted = x * INVERSE_PI + ROUNDING
        k = shifted - ROUNDING
        r = ((x - k * PI_1) - k * PI_2) - k * PI_3
        q = r * r
        p = q * -2.3889859e-8 + 2.7525562e-6
        p = p * q - 1.9840874e-4
        p = p * q + 8.3333310e-3
        p = p * q - 1.6666667e-1
        sine = r + r * q * p
        p = q * -2.6051615e-7 + 2.4760495e-5
        p = p * q - 1.3888378e-3
        p = p * q + 4.1666638e-2
        p = p * q - 0.5
        cosine = p * q + 1.0
        odd = (shifted.to(tl.int32, bitcast=True) & 1) == 1
        sine = tl.where(odd, -sine, sine)
        cosine = tl.where(odd, -cosine, cosine)
    else:
        sine = tl.sin(x)
        cosine = tl.cos(x)
    return sine, cosine


@triton.jit
def _within(omega, phase, furthest):
    """Whether all arguments of a sinusoid in this tile are at most `LARGEST`. False if a parameter is not finite."""
    beyond = (tl.abs(omega) * furthest + tl.abs(phase) <= LARGEST) == 0
    return tl.sum(beyond.to(tl.int32)) == 0


@triton.jit
def _tile(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of this program's tile into z, a mask of those that exist, and the columns."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return row[:, None] * columns + column[None, :], inside, column


@triton.jit
def _parameter(values, t, columns, column):
    """The parameter of sinusoid t, as a row to broadcast over a tile. It has one value if z counts as one column."""
    return tl.load(values + t * columns + column, column < columns, 0.0)[None, :]


@triton.jit
def _store_sum(partial, kind, terms, TERMS, columns, column, t):
    """Writes this program's sum of `terms` for sinusoid t. The shape of `partial` is (programs, 3, τ, columns)."""
    at = (tl.program_id(0).to(tl.int64) * 3 + kind) * TERMS + t
    tl.store(partial + at * columns + column, tl.sum(terms, 0), column < columns)


@triton.jit
def _forward(z, c, w, p, out, rows, columns, TERMS, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at, inside, column = _tile(rows, columns, ROWS, COLUMNS)
    x = tl.load(z + at, inside, 0.0).to(tl.float32)
    furthest = tl.max(tl.abs(x), 0, keep_dims=True)
    total = tl.zeros_like(x)
    for t in range(TERMS):
        omega = _parameter(w, t, columns, column)
        phase = _parameter(p, t, columns, column)
        sine, _ = _sincos(omega * x + phase, _within(omega, phase, furthest))
        total += _parameter(c, t, columns, column) * sine
    tl.store(out + at, total.to(out.dtype.element_ty), inside)


@triton.jit
def _backward(grad, z, c, w, p, to_z, partial, rows, columns, TERMS, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at, inside, column = _tile(rows, columns, ROWS, COLUMNS)
    x = tl.load(z + at, inside, 0.0).to(tl.float32)
    g = tl.load(grad + at, inside, 0.0).to(tl.float32)
    furthest = tl.max(tl.abs(x), 0, keep_dims=True)
    slope = tl.zeros_like(x)
    for t in range(TERMS):
        amplitude = _parameter(c, t, columns, column)
        omega = _parameter(w, t, columns, column)
        phase = _parameter(p, t, columns, column)
        sine, cosine = _sincos(omega * x + phase, _within(omega, phase, furthest))
        turned = amplitude * (g * cosine)
        slope += omega * turned
        _store_sum(partial, 0, g * sine, TERMS, columns, column, t)
        _store_sum(partial, 1, turned * x, TERMS, columns, column, t)
        _store_sum(partial, 2, turned, TERMS, columns, column, t)
    tl.store(to_z + at, slope.to(to_z.dtype.element_ty), inside)


@triton.jit
def _second(
    vz,
    vc,
    vw,
    vp,
    grad,
    z,
    c,
    w,
    p,
    to_grad,
    to_z,
    partial,
    rows,
    columns,
    TERMS,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    at, inside, column = _tile(rows, columns, ROWS, COLUMNS)
    x = tl.load(z + at, inside, 0.0).to(tl.float32)
    g = tl.load(grad + at, inside, 0.0).to(tl.float32)
    moved = tl.load(vz + at, inside, 0.0).to(tl.float32)
    furthest = tl.max(tl.abs(x), 0, keep_dims=True)
    by_grad = tl.zeros_like(x)
    by_z = tl.zeros_like(x)
    for t in range(TERMS):
        amplitude = _parameter(c, t, columns, column)
        omega = _parameter(w, t, columns, column)
        phase = _parameter(p, t, columns, column)
        v_amplitude = _parameter(vc, t, columns, column)
        v_omega = _parameter(vw, t, columns, column)
        sine, cosine = _sincos(omega * x + phase, _within(omega, phase, furthest))
        turn = omega * moved + v_omega * x + _parameter(vp, t, columns, column)
        turned = g * cosine
        along = v_amplitude * turned - amplitude * turn * (g * sine)
        by_grad += v_amplitude * sine + amplitude * turn * cosine
        by_z += omega * along + amplitude * v_omega * turned
        _store_sum(partial, 0, turn * turned, TERMS, columns, column, t)
        _store_sum(partial, 1, along * x + amplitude * moved * turned, TERMS, columns, column, t)
        _store_sum(partial, 2, along, TERMS, columns, column, t)
    tl.store(to_grad + at, by_grad.to(to_grad.dtype.element_ty), inside)
    tl.store(to_z + at, by_z.to(to_z.dtype.element_ty), inside)


def forward(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor) -> Tensor:
    """Returns σ(z); see `staf_nerf.kernels.fourier_sum`. The bias must be (0,), none."""
    inputs = (z, amplitude, frequency, phase)
    _check("staf_forward", z, amplitude, (*inputs, bias))
    out = z.new_empty(z.shape)
    _launch(_forward, inputs, (out,), z, amplitude)
    return out


def backward(
    grad: Tensor, z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    """See `fourier_sum_backward`. The gradients of the parameters share memory."""
    inputs = (grad, z, amplitude, frequency, phase)
    _check("staf_backward", z, amplitude, (*inputs, bias))
    to_z, sums = z.new_empty(z.shape), _sums(z, amplitude)
    _launch(_backward, inputs, (to_z, sums), z, amplitude)
    return to_z, *sums.sum(0).unbind(), bias.new_empty(bias.shape)


def second(
    vz: Tensor,
    vamplitude: Tensor,
    vfrequency: Tensor,
    vphase: Tensor,
    vbias: Tensor,
    grad: Tensor,
    z: Tensor,
    amplitude: Tensor,
    frequency: Tensor,
    phase: Tensor,
    bias: Tensor,
) -> tuple[Tensor, ...]:
    """See `fourier_sum_second`. The gradients of the parameters share memory."""
    along, others = (vz, vamplitude, vfrequency, vphase), (grad, z, amplitude, frequency, phase)
    _check("staf_second", z, amplitude, (*along, vbias, *others, bias))
    to_grad, to_z, sums = grad.new_empty(grad.shape), z.new_empty(z.shape), _sums(z, amplitude)
    _launch(_second, (*along, *others), (to_grad, to_z, sums), z, amplitude)
    return to_grad, to_z, *sums.sum(0).unbind(), bias.new_empty(bias.shape)


def _check(name: str, z: Tensor, amplitude: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Raises ValueError if shapes do not agree, or if there is a bias."""
    check_amplitude(z, amplitude)
    library.check_shapes(name, (z.shape, amplitude.shape, (0,)), inputs)


def _tiles(z: Tensor, per_feature: bool) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Returns rows and columns of z, of a tile, and of the grid of tiles."""
    tile = FEATURE_TILE if per_feature else SHARED_TILE
    columns = z.shape[-1] if per_feature else 1
    rows = z.numel() // max(columns, 1)
    return (rows, columns), tile, (-(-rows // tile[0]), -(-columns // tile[1]))


def _sums(z: Tensor, amplitude: Tensor) -> Tensor:
    """Allocates the sums of each row of tiles: (tiles, 3, τ), or (tiles, 3, τ, n)."""
    _, _, grid = _tiles(z, amplitude.ndim == 2)
    return amplitude.new_empty((grid[0], 3, *amplitude.shape))


def _launch(kernel: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], z: Tensor, amplitude: Tensor) -> None:
    """Runs a kernel, which fills `outputs`."""
    library.refuse_tangents(inputs)
    size, tile, grid = _tiles(z, amplitude.ndim == 2)
    if z.numel():
        arguments = (*(x.contiguous() for x in inputs), *outputs, *size, len(amplitude))
        with torch.cuda.device_of(z):
            kernel[grid](*arguments, ROWS=tile[0], COLUMNS=tile[1], num_warps=WARPS)
