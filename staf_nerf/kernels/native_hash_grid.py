"""The multiresolution hash grid in C for a CPU, in float32.

Conventions and signatures are those of `staf_nerf.kernels.hash_grid`.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from staf_nerf.kernels import library
from staf_nerf.kernels.signatures import grid_sizes


def forward(
    points: Tensor, table: Tensor, scales: Tensor, multipliers: Tensor, rows: Tensor, offsets: Tensor, num_dense: int
) -> Tensor:
    """See `staf_nerf.kernels.hash_grid.hash_grid`."""
    return _run("hash_grid_forward", (), points, table, scales, multipliers, rows, offsets, num_dense)[0]


def backward(
    grad: Tensor,
    points: Tensor,
    table: Tensor,
    scales: Tensor,
    multipliers: Tensor,
    rows: Tensor,
    offsets: Tensor,
    num_dense: int,
    to_points: bool,
    to_table: bool,
) -> tuple[Tensor, Tensor]:
    """See `staf_nerf.kernels.hash_grid.hash_grid_backward`."""
    wanted = {"to_points": to_points, "to_table": to_table}
    unwanted = [name for name, is_wanted in wanted.items() if not is_wanted]
    levels = (scales, multipliers, rows, offsets, num_dense)
    by_table, by_points = _run("hash_grid_backward", (grad,), points, table, *levels, unwanted)
    return by_points, by_table


def second(
    v_points: Tensor | None,
    v_table: Tensor | None,
    grad: Tensor,
    points: Tensor,
    table: Tensor,
    scales: Tensor,
    multipliers: Tensor,
    rows: Tensor,
    offsets: Tensor,
    num_dense: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `staf_nerf.kernels.hash_grid.hash_grid_second`."""
    levels = (scales, multipliers, rows, offsets, num_dense)
    by_grad, by_points, by_table = _run("hash_grid_second", (v_points, v_table, grad), points, table, *levels)
    return by_grad, by_points, by_table


def _run(
    name: str,
    before: tuple[Tensor | None, ...],
    points: Tensor,
    table: Tensor,
    scales: Tensor,
    multipliers: Tensor,
    rows: Tensor,
    offsets: Tensor,
    num_dense: int,
    unwanted: Collection[str] = (),
) -> tuple[Tensor, ...]:
    """Calls a function of the library, whose inputs `before` precede the others."""
    sizes = grid_sizes(points, table, rows, num_dense)
    inputs = (*before, points, table, scales, multipliers, rows, offsets)
    return library.run(name, points.dtype, sizes, inputs, unwanted=unwanted)
