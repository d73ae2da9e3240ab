"""Run with TRITON_INTERPRET=1: Triton's hash grid on a CPU, against plain torch in float64. Prints errors as JSON."""

import json
import sys

import torch

from staf_nerf.encodings import HashGrid
from staf_nerf.kernels import hash_grid, triton_hash_grid
from staf_nerf.kernels.signatures import Levels

NAMES = ["features", "points", "table", "2 grad", "2 points", "2 table"]


def compare(dimensions: int, features: int, count: int, of_points: bool, of_table: bool) -> dict[str, float]:
    """Largest error of each result, as a part of the largest value."""
    generator = torch.Generator().manual_seed(0)
    grid = HashGrid(
        dimensions,
        num_levels=4,
        features_per_level=features,
        log2_table_size=7,
        base_resolution=3,
        max_resolution=40,
        generator=generator,
    )
    assert 0 < grid.num_dense < 4
    points = torch.rand(count, dimensions, generator=generator)
    table, v_table = (torch.randn(grid.table.shape, generator=generator) for _ in range(2))
    grad = torch.randn(count, 4 * features, generator=generator)
    v_points = torch.randn(points.shape, generator=generator)
    levels = Levels(grid.scales, grid.multipliers, grid.rows, grid.offsets, grid.num_dense)
    along = (v_points if of_points else None, v_table if of_table else None)
    found = [
        triton_hash_grid.forward(points, table, levels),
        *triton_hash_grid.backward(grad, points, table, levels, True, True),
        *triton_hash_grid.second(*along, grad, points, table, levels),
    ]

    def features_of(points, table):
        return hash_grid.reference_hash_grid(points, table, levels._replace(scales=grid.scales.double()))

    def first(grad, points, table):
        return torch.func.vjp(features_of, points, table)[1](grad)

    # Where a point lies in its cell is float32's: the fractions, not the points, are the same in float64.
    wide = [x.double() for x in (grad, points, table)]
    v = [x.double() * flag for x, flag in ((v_points, of_points), (v_table, of_table))]
    expected = [
        features_of(*wide[1:]),
        *first(*wide),
        *torch.func.vjp(first, *wide)[1](tuple(v)),
    ]
    assert [x.shape for x in found] == [x.shape for x in expected]
    return {
        name: float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30)) if b.numel() else 0.0
        for name, a, b in zip(NAMES, found, expected, strict=True)
    }


if __name__ == "__main__":
    cases = [(3, 2, 300, True, True), (2, 2, 150, True, True), (3, 4, 40, True, False), (2, 1, 40, False, True)]
    cases += [(3, 2, 0, True, True), (2, 8, 1, True, True)]
    json.dump([compare(*case) for case in cases], sys.stdout)
