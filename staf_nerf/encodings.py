"""Encodings: fixed or trainable features of coordinates, computed before the network.

Conventions: coordinates (..., d) lie in [-1, 1]. Each encoding is a module with `in_features` and `out_features` that
maps (..., in_features) to (..., out_features). The hash grid has the memory layout of instant-ngp and tiny-cuda-nn
(corner order, dense levels, primes, scales), so that tables can be exchanged.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from staf_nerf.kernels.hash_grid import hash_grid

Implementation = Literal["auto", "tcnn", "torch"]

PRIMES = (1, 2654435761, 805459861)
"""Factors of the spatial hash, one per dimension (instant-ngp, arXiv 2201.05989, equation 4)."""


class Encoding(nn.Module):
    """Base class of encodings, with the sizes of the last dimension of input and output."""

    in_features: int
    out_features: int


class Identity(Encoding):
    """No encoding: returns the coordinates."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = self.out_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        return x


class FourierFeatures(Encoding):
    """Sines and cosines of linear functions of the coordinates: (..., d) -> (..., 2 m).

    Args:
        in_features: d, the number of coordinates.
        num_frequencies: m for "random". For "octaves" the number per dimension, so that m = d · num_frequencies.
        scale: Standard deviation of the random frequencies, in cycles per unit. Not used by "octaves".
        kind: "random": frequencies drawn from N(0, scale²) (Tancik et al., arXiv 2006.10739). "octaves": 2⁰ to
            2^(num_frequencies - 1) half cycles per unit on each axis, NeRF's positional encoding (arXiv 2003.08934).
        include_input: Whether the coordinates precede the features, for d + 2 m outputs.
        generator: Random generator for the frequencies.

    Raises:
        ValueError: If `num_frequencies` is below 1 or `kind` is unknown.
    """

    frequencies: Tensor

    def __init__(
        self,
        in_features: int,
        *,
        num_frequencies: int,
        scale: float = 10.0,
        kind: Literal["random", "octaves"] = "random",
        include_input: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if num_frequencies < 1:
            raise ValueError(f"num_frequencies must be >= 1, got {num_frequencies}")
        if kind == "random":
            frequencies = 2.0 * math.pi * scale * torch.randn(num_frequencies, in_features, generator=generator)
        elif kind == "octaves":
            octaves = math.pi * 2.0 ** torch.arange(num_frequencies)
            frequencies = torch.kron(torch.eye(in_features), octaves[:, None])
        else:
            raise ValueError(f"kind must be 'random' or 'octaves', got {kind!r}")
        self.register_buffer("frequencies", frequencies)  # (m, d), radians per unit
        self.in_features = in_features
        self.include_input = include_input
        self.out_features = 2 * len(frequencies) + (in_features if include_input else 0)

    def forward(self, x: Tensor) -> Tensor:
        arguments = x @ self.frequencies.to(x.dtype).T
        features = [x] if self.include_input else []
        return torch.cat([*features, torch.sin(arguments), torch.cos(arguments)], -1)


class SphericalHarmonics(Encoding):
    """Real spherical harmonics of unit directions up to degree 3, (..., 3) -> (..., 16), for view-dependent colour."""

    in_features = 3
    out_features = 16

    def forward(self, directions: Tensor) -> Tensor:
        x, y, z = directions.unbind(-1)
        xx, yy, zz, one = x * x, y * y, z * z, torch.ones_like(x)
        return torch.stack(
            [
                0.28209479177387814 * one,
                0.4886025119029199 * y,
                0.4886025119029199 * z,
                0.4886025119029199 * x,
                1.0925484305920792 * x * y,
                1.0925484305920792 * y * z,
                0.31539156525252005 * (3.0 * zz - 1.0),
                1.0925484305920792 * x * z,
                0.5462742152960396 * (xx - yy),
                0.5900435899266435 * y * (3.0 * xx - yy),
                2.890611442640554 * x * y * z,
                0.4570457994644658 * y * (5.0 * zz - 1.0),
                0.3731763325901154 * z * (5.0 * zz - 3.0),
                0.4570457994644658 * x * (5.0 * zz - 1.0),
                1.445305721320277 * z * (xx - yy),
                0.5900435899266435 * x * (xx - 3.0 * yy),
            ],
            -1,
        )


class HashGrid(Encoding):
    """A multiresolution hash grid of trainable features (instant-ngp, arXiv 2201.05989).

    Gradients flow to the table and to the coordinates, and both can be differentiated again. Coordinates outside
    [-1, 1] are clamped to it.

    Args:
        in_features: d, 2 or 3.
        num_levels: L, the number of levels (grids).
        features_per_level: F, the number of features at each grid point.
        log2_table_size: Base-2 logarithm of the largest number of table rows per level. A level with more grid points
            hashes them into the rows.
        base_resolution: Number of cells along each axis of the coarsest level.
        max_resolution: Number of cells along each axis of the finest level.
        feature_scale: Factor on the features. The table starts uniform in ±1e-4. Larger inputs, and therefore larger
            gradients of the table, make a network learn faster.
        coordinate_scale: The coordinates, times this factor, are appended to the features. 0: they are not. A network
            of the coordinates is smooth where training data is too sparse for the grid.
        implementation: "torch" (ours), "tcnn" (tiny-cuda-nn, which needs CUDA) or "auto" (tcnn if it can be used).
        generator: Random generator for the initial features.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: If `implementation` is "tcnn" and tiny-cuda-nn or a CUDA device is missing.
    """

    multipliers: Tensor
    scales: Tensor
    rows: Tensor
    offsets: Tensor

    def __init__(
        self,
        in_features: int = 3,
        *,
        num_levels: int = 16,
        features_per_level: int = 2,
        log2_table_size: int = 19,
        base_resolution: int = 16,
        max_resolution: int = 2048,
        feature_scale: float = 1.0,
        coordinate_scale: float = 0.0,
        implementation: Implementation = "torch",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if in_features not in (2, 3):
            raise ValueError(f"in_features must be 2 or 3, got {in_features}")
        for name, value in (("num_levels", num_levels), ("features_per_level", features_per_level)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if not 1 <= log2_table_size <= 30:
            raise ValueError(f"log2_table_size must be between 1 and 30, got {log2_table_size}")
        if not 2 <= base_resolution <= max_resolution:
            raise ValueError(
                "base_resolution must be >= 2 and max_resolution >= base_resolution, got "
                f"base_resolution={base_resolution}, max_resolution={max_resolution}"
            )
        self.in_features = in_features
        self.out_features = num_levels * features_per_level + (in_features if coordinate_scale else 0)
        self.features_per_level, self.max_resolution = features_per_level, max_resolution
        self.feature_scale, self.coordinate_scale = feature_scale, coordinate_scale
        growth = (max_resolution / base_resolution) ** (1.0 / max(num_levels - 1, 1))
        self.tcnn = None
        if choose_implementation(implementation) == "tcnn":
            self.tcnn = _tcnn_grid(
                in_features, num_levels, features_per_level, log2_table_size, base_resolution, growth
            )
            return

        scales = [base_resolution * growth**level - 1.0 for level in range(num_levels)]
        points = [math.ceil(scale) + 1 for scale in scales]  # number of grid points along an axis
        rows = [min(2**log2_table_size, math.ceil(p**in_features / 8) * 8) for p in points]
        dense = [p**in_features <= size for p, size in zip(points, rows, strict=True)]
        self.num_dense = sum(dense)  # the coarse levels come first
        multipliers = [
            [p**axis if is_dense else PRIMES[axis] for p, is_dense in zip(points, dense, strict=True)]
            for axis in range(in_features)
        ]
        offsets = [0, *itertools.accumulate(rows)]
        self.register_buffer("scales", torch.tensor(scales), persistent=False)  # (L,)
        self.register_buffer("multipliers", torch.tensor(multipliers).to(torch.int32), persistent=False)  # (d, L)
        self.register_buffer("rows", torch.tensor(rows, dtype=torch.int32), persistent=False)
        self.register_buffer("offsets", torch.tensor(offsets[:-1], dtype=torch.int32), persistent=False)
        self.table = nn.Parameter(2e-4 * torch.rand(offsets[-1], features_per_level, generator=generator) - 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        unit = (0.5 * x + 0.5).clamp(0.0, 1.0).reshape(-1, self.in_features)
        if self.tcnn is not None:
            features = self.tcnn(unit).to(x.dtype)
        else:
            features = hash_grid(
                unit, self.table, self.scales, self.multipliers, self.rows, self.offsets, self.num_dense
            )
        if self.feature_scale != 1.0:
            features = features * self.feature_scale
        if self.coordinate_scale:
            features = torch.cat([features, self.coordinate_scale * (2.0 * unit - 1.0)], -1)
        return features.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, out_features={self.out_features}, feature_scale={self.feature_scale:g}, "
            f"coordinate_scale={self.coordinate_scale:g}"
        )


def finest_cell(module: nn.Module) -> float | None:
    """Returns the side of the finest cells of the hash grids in a module, in coordinates, or None if it has none."""
    return min((2.0 / part.max_resolution for part in module.modules() if isinstance(part, HashGrid)), default=None)


# --- tiny-cuda-nn ----------------------------------------------------------------------------------------------------


def choose_implementation(implementation: Implementation) -> Literal["tcnn", "torch"]:
    """Resolves "auto" to "tcnn" if tiny-cuda-nn can be imported and a CUDA device exists, otherwise to "torch".

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If `implementation` is "tcnn" and it cannot be used.
    """
    if implementation not in ("auto", "tcnn", "torch"):
        raise ValueError(f"implementation must be 'auto', 'tcnn' or 'torch', got {implementation!r}")
    if implementation == "torch" or (implementation == "auto" and not torch.cuda.is_available()):
        return "torch"
    if _import_tcnn() is not None and torch.cuda.is_available():
        return "tcnn"
    if implementation == "tcnn":
        raise RuntimeError("implementation 'tcnn' needs tiny-cuda-nn's torch bindings and a CUDA device; use 'auto'")
    return "torch"


@functools.cache
def _import_tcnn():
    try:
        import tinycudann  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):
        print("staf_nerf: tiny-cuda-nn is not installed, using our own hash grids")
        return None
    return tinycudann


def _tcnn_grid(dimensions: int, levels: int, features: int, log2_size: int, base: int, growth: float) -> nn.Module:
    tcnn = _import_tcnn()
    assert tcnn is not None
    return tcnn.Encoding(
        n_input_dims=dimensions,
        encoding_config={
            "otype": "HashGrid",
            "n_levels": levels,
            "n_features_per_level": features,
            "log2_hashmap_size": log2_size,
            "base_resolution": base,
            "per_level_scale": growth,
        },
    )
