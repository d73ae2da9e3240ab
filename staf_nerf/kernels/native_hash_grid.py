"""The multiresolution hash grid in C for a CPU, in float32.

Conventions are those of `staf_nerf.kernels.hash_grid`.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from staf_nerf.kernels import library
from staf_nerf.kernels.signatures import Levels, grid_sizes


def forward(points: Tensor, table: Tensor, levels: Levels) -> Tensor:
    """See `staf_nerf.kernels.hash_grid.hash_grid`."""
    return _call("hash_grid_forward", (), points, table, levels)[0]


def backward(
    grad: Tensor, points: Tensor, table: Tensor, levels: Levels, to_points: bool, to_table: bool
) -> tuple[Tensor, Tensor]:
    """See `staf_nerf.kernels.hash_grid.hash_grid_backward`."""
    wanted = {"to_points": to_points, "to_table": to_table}
    unwanted = [name for name, is_wanted in wanted.items() if not is_wanted]
    by_table, by_points = _call("hash_grid_backward", (grad,), points, table, levels, unwanted)
    return by_points, by_table


def second(
    v_points: Tensor | None, v_table: Tensor | None, grad: Tensor, points: Tensor, table: Tensor, levels: Levels
) -> tuple[Tensor, Tensor, Tensor]:
    """See `staf_nerf.kernels.hash_grid.hash_grid_second`."""
    by_grad, by_points, by_table = _call("hash_grid_second", (v_points, v_table, grad), points, table, levels)
    return by_grad, by_points, by_table


def _call(
    name: str,
    before: tuple[Tensor | None, ...],
    points: Tensor,
    table: Tensor,
    levels: Levels,
    unwanted: Collection[str] = (),
) -> tuple[Tensor, ...]:
    """Calls a function of the library, whose inputs `before` precede the others."""
    *arrays, _ = levels
    sizes = grid_sizes(points, table, levels)
    return library.run(name, points.dtype, sizes, (*before, points, table, *arrays), unwanted=unwanted)
