"""Signatures of the C library's functions: what `staf_nerf.kernels.library` checks before it passes addresses to C.

`VERSION` and the functions' prototypes in native.c and native_hash_grid.c must match this file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

VERSION = 6
"""Version of the signatures, as in `staf_version` in native.c."""

NUMBER, REAL, SIZE, ADDRESS = ctypes.c_int, ctypes.c_double, ctypes.c_ssize_t, ctypes.c_void_p

ERRORS: dict[int, tuple[type[Exception], str]] = {
    1: (MemoryError, "there is no memory for intermediate results"),
    2: (ValueError, "each level must have rows that lie within the table: see rows and offsets"),
}
"""Errors by the number that a function returns. The numbers are those of the enumeration in native_threads.h."""

Shape = Sequence[int]

INDICES = frozenset({"multipliers", "rows", "offsets"})
"""Names of int32 tensors. The others have the precision of the call."""


@dataclass(frozen=True)
class Signature:
    """Signature of a C function that works on tensors.

    Its arguments are the instruction set, whether the tensors are float64 (not if it is `single`), the number of
    threads, then numbers, then the addresses of tensors, inputs before outputs. It returns 0, or a key of `ERRORS`.
    """

    numbers: Sequence[Any]
    """Types of the numbers, most of which are sizes."""
    shapes: Callable[..., dict[str, Shape]]
    """Maps sizes to the name and shape of each tensor. The names do not depend on the sizes."""
    num_outputs: int = 1
    optional: frozenset[str] = frozenset()
    """Names of inputs that may be None, and of outputs that may be unwanted."""
    zeroed: frozenset[str] = frozenset()
    """Names of outputs that C expects to be zero at first."""
    single: bool = False
    """Whether the function supports float32 only."""
    types: list[Any] = field(init=False)
    """Types of all arguments."""

    def __post_init__(self) -> None:
        names = self.shapes(*[0] * self.shapes.__code__.co_argcount)
        prefix = [NUMBER] * (2 if self.single else 3)
        object.__setattr__(self, "types", [*prefix, *self.numbers, *[ADDRESS] * len(names)])


def _fourier_sum(z: Shape, parameter: Shape, bias: Shape, prefix: str = "") -> dict[str, Shape]:
    return {
        f"{prefix}z": z,
        f"{prefix}amplitude": parameter,
        f"{prefix}frequency": parameter,
        f"{prefix}phase": parameter,
        f"{prefix}bias": bias,
    }


class Levels(NamedTuple):
    """The levels of a hash grid; see `staf_nerf.kernels.hash_grid`."""

    scales: Tensor
    multipliers: Tensor
    rows: Tensor
    offsets: Tensor
    num_dense: int


def _grid(count: int, dims: int, levels: int, table_rows: int, features: int) -> dict[str, Shape]:
    return {
        "points": (count, dims),
        "table": (table_rows, features),
        "scales": (levels,),
        "multipliers": (dims, levels),
        "rows": (levels,),
        "offsets": (levels,),
    }


def grid_sizes(points: Tensor, table: Tensor, levels: Levels) -> tuple[int, ...]:
    """Returns the sizes in the signatures of a hash grid. Raises ValueError if it cannot have these."""
    count, num_dense = levels.rows.numel(), levels.num_dense
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"points must have shape (B, 2) or (B, 3), got {tuple(points.shape)}")
    if table.ndim != 2:
        raise ValueError(f"table must have shape (rows, F), got {tuple(table.shape)}")
    if not 0 <= num_dense <= count:
        raise ValueError(f"num_dense must be between 0 and the number of levels, {count}, got {num_dense}")
    return *points.shape, count, *table.shape, num_dense


SIGNATURES = {
    # The sizes of the first three are the shapes of z, of each parameter and of the bias.
    "staf_forward": Signature(
        [NUMBER, SIZE, SIZE, SIZE],
        lambda z, parameter, bias: {**_fourier_sum(z, parameter, bias), "out": z},
        optional=frozenset({"bias"}),
    ),
    "staf_backward": Signature(
        [NUMBER, SIZE, SIZE, SIZE],
        lambda z, parameter, bias: {
            "grad": z,
            **_fourier_sum(z, parameter, bias),
            **_fourier_sum(z, parameter, bias, "to_"),
        },
        num_outputs=5,
        optional=frozenset({"bias"}),
    ),
    "staf_second": Signature(
        [NUMBER, SIZE, SIZE, SIZE],
        lambda z, parameter, bias: {
            **_fourier_sum(z, parameter, bias, "v"),
            "grad": z,
            **_fourier_sum(z, parameter, bias),
            "to_grad": z,
            **_fourier_sum(z, parameter, bias, "to_"),
        },
        num_outputs=6,
        optional=frozenset({"bias"}),
    ),
    "staf_pointwise": Signature(
        [NUMBER, NUMBER, REAL, SIZE],
        lambda z: {"z": z, "factor": z, "out": z},
        optional=frozenset({"factor"}),
    ),
    "ray_weights": Signature(
        [SIZE, SIZE],
        lambda rays, samples: {"depth": (rays, samples), "through": (rays, samples), "weights": (rays, samples)},
        num_outputs=2,
    ),
    "ray_weights_backward": Signature(
        [SIZE, SIZE],
        lambda rays, samples: {"grad": (rays, samples), "through": (rays, samples), "to_depth": (rays, samples)},
    ),
    "ray_resample": Signature(
        [SIZE, SIZE, SIZE, REAL],
        lambda rays, samples, num_edges, _padding: {
            "edges": (rays, samples + 1),
            "weights": (rays, samples),
            "shift": (rays, 1),
            "out": (rays, num_edges),
        },
    ),
    "ray_distortion": Signature(
        [SIZE, SIZE],
        lambda rays, samples: {
            "edges": (rays, samples + 1),
            "weights": (rays, samples),
            "gradient": (rays, samples),
            "loss": (rays,),
        },
        num_outputs=2,
    ),
    "ray_points": Signature(
        [SIZE, SIZE],
        lambda rays, samples: {
            "origins": (rays, 3),
            "directions": (rays, 3),
            "starts": (rays, samples),
            "ends": (rays, samples),
            "points": (rays, samples, 3),
        },
    ),
    "cube_contraction": Signature([SIZE], lambda count: {"points": (count, 3), "out": (count, 3)}),
    "hash_grid_forward": Signature(
        [SIZE] * 6,
        lambda count, dims, levels, table_rows, features, _num_dense: {
            **_grid(count, dims, levels, table_rows, features),
            "out": (count, levels * features),
        },
        single=True,
    ),
    "hash_grid_backward": Signature(
        [SIZE] * 6,
        lambda count, dims, levels, table_rows, features, _num_dense: {
            "grad": (count, levels * features),
            **_grid(count, dims, levels, table_rows, features),
            "to_table": (table_rows, features),
            "to_points": (count, dims),
        },
        num_outputs=2,
        optional=frozenset({"to_table", "to_points"}),
        zeroed=frozenset({"to_table", "to_points"}),
        single=True,
    ),
    "hash_grid_second": Signature(
        [SIZE] * 6,
        lambda count, dims, levels, table_rows, features, _num_dense: {
            "v_points": (count, dims),
            "v_table": (table_rows, features),
            "grad": (count, levels * features),
            **_grid(count, dims, levels, table_rows, features),
            "to_grad": (count, levels * features),
            "to_points": (count, dims),
            "to_table": (table_rows, features),
        },
        num_outputs=3,
        optional=frozenset({"v_points", "v_table"}),
        zeroed=frozenset({"to_table"}),
        single=True,
    ),
}
"""Signatures of the library's functions that work on tensors, by name."""
