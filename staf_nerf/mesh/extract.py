"""A field's iso-surface as triangles, from samples near the surface alone.

The box is divided into cubes ("blocks") of cells. Where a bound is known on how much the field changes, a block whose
middle is further from the level than that over half its diagonal holds no surface, and the others are divided again.
Where none is, each of the smallest blocks is sampled: what samples around a block differ by is taken for what the field
can change in it, and the surface is followed wherever it leaves the blocks that are left. Only their points are
evaluated, in layers of z, so that memory grows with the square of the resolution (and a few bytes a block).

Conventions: the field maps points (N, 3) to values (N,) or (N, 1). Arrays are indexed [z, y, x]. The surface's
triangles face from inside to outside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staf_nerf.mesh.triangles import Floats, TriangleMesh, weld

Field = Callable[[Tensor], Tensor]

BLOCK = 4
"""Cells along an edge of the smallest blocks."""
DEPTH = 8
"""Cells of a layer along z."""
COARSEST = 8
"""Blocks along the longest axis at the start."""
COARSE = 64
"""Cells along the longest axis of the grid on which slopes are measured, and the least samples along it."""
CHUNK, CHUNK_ON_GPU = 2**13, 2**18
"""Points that the field is asked for at a time: on a CPU, what the cache holds of a layer of 256."""
KEPT_OFF = 1e-3
"""Part of an edge by which the surface is kept off the grid's points: through one it would put several vertices at one
place, and triangles without area between them."""
LEAST = np.float32(1e-30)
"""What a value of exactly the level counts as."""
BYTES_PER_TRIANGLE = 200
"""Of a mesh: with its vertices, while they are welded."""
BYTES_PER_POINT = 32
"""Of a layer: values, masks, indices, and what Open3D makes of them."""
BYTES_PER_BLOCK = 32
"""Of a block that is sampled: its values, its side, and the list of those from which the surface is followed."""
SEARCH = 0.4
"""Part of the work that samples are, for a progress bar."""
PART = 2**18
"""Points of a layer whose coordinates are held at a time."""


def extract_mesh(
    field: Field,
    *,
    bounds: Floats,
    resolution: int = 256,
    level: float = 0.0,
    inside: Literal["below", "above"] = "below",
    lipschitz: float | None = None,
    memory: float = 2e9,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> TriangleMesh:
    """Triangles of the surface where a field crosses a level.

    Args:
        field: Maps points (N, 3), float32 in the coordinates of `bounds`, to values (N,) or (N, 1).
        bounds: The box, (2, 3): least and largest coordinates.
        resolution: Cells along its longest axis.
        level: Of the surface.
        inside: "below" the level, as for a signed distance, or "above" it, as for density and occupancy.
        lipschitz: The most by which the field changes over a unit of length; 1 for an exact signed distance. Too small
            a number loses parts of the surface; infinity evaluates the whole grid. None: it is not known, and the
            surface is found by samples, one or more in each cube of 4 x 4 x 4 cells, and followed from there. A part
            that stands alone may be missed if it is small and nothing changes around it: of balls with a sharp edge
            half of those that are four cells wide, hardly one of six. At 64 or fewer all is evaluated.
        memory: Bytes that may be used beside the field's own.
        device: Where the points are made.
        progress: Called with the part that is done.

    Raises:
        ValueError: If an argument is out of range, the field does not cross the level in the box or crosses it too
            often for the memory, or its values are not finite.
    """
    grid = _Grid.of(bounds, resolution)
    needed = (DEPTH + 1) * (grid.cells[1] + 1) * (grid.cells[2] + 1) * BYTES_PER_POINT
    if lipschitz is None:
        needed = max(needed, math.prod(grid.blocks) * BYTES_PER_BLOCK)
    if needed > memory:
        raise ValueError(
            f"resolution {resolution} needs memory of {needed / 1e9:.2g} GB, got {memory / 1e9:.2g} GB; a smaller "
            "resolution or more memory is needed"
        )
    if inside not in ("below", "above"):
        raise ValueError(f"inside must be 'below' or 'above', got {inside!r}")
    evaluate = _evaluator(field, level, device)
    if lipschitz is not None and not lipschitz > 0:
        raise ValueError(f"lipschitz must be positive, got {lipschitz}")
    report = progress or (lambda done: None)
    if lipschitz is None:
        sides, searched = _sampled_sides(evaluate, grid, lambda done: report(SEARCH * done)), SEARCH
    else:
        sides, searched = _bounded_sides(evaluate, grid, lipschitz), 0.0
    pieces, most = [], int((memory - needed) / BYTES_PER_TRIANGLE)
    for done, piece in _layers(evaluate, grid, sides):
        if len(piece.triangles):
            pieces.append(piece)
            if sum(len(p.triangles) for p in pieces) > most:
                raise ValueError(
                    f"the surface has more than the {most} triangles that memory of {memory / 1e9:.2g} GB holds: is "
                    f"{level:g} a level that the field crosses once, at resolution {resolution}?"
                )
        report(searched + (1.0 - searched) * done)
    if not pieces:
        raise ValueError(_no_crossing(evaluate, grid, level))
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    triangles = np.concatenate([piece.triangles + start for piece, start in zip(pieces, starts, strict=False)])
    if inside == "below":  # Open3D's face to where the field is less
        triangles = triangles[:, ::-1]
    found = weld(TriangleMesh(np.concatenate([piece.vertices for piece in pieces]), triangles))
    return TriangleMesh(grid.origin + grid.spacing * found.vertices, found.triangles)


@dataclass(frozen=True)
class _Grid:
    """Points origin + spacing · (x, y, z), whole numbers from 0 to `cells`, whose order is that of arrays: z, y, x."""

    origin: Floats
    spacing: float
    cells: tuple[int, int, int]

    @classmethod
    def of(cls, bounds: Floats, resolution: int) -> _Grid:
        if resolution < 1:
            raise ValueError(f"resolution must be >= 1, got {resolution}")
        bounds = np.asarray(bounds, dtype=np.float64)
        if bounds.shape != (2, 3) or not np.isfinite(bounds).all() or not (bounds[0] < bounds[1]).all():
            raise ValueError(f"bounds must be two finite corners, the first less on each axis, got {bounds.tolist()}")
        extent = bounds[1] - bounds[0]
        spacing = float(extent.max()) / resolution
        x, y, z = (max(math.ceil(e / spacing - 1e-9), 1) for e in extent)
        return cls(bounds[0], spacing, (z, y, x))

    @property
    def blocks(self) -> tuple[int, int, int]:
        """How many of the smallest blocks there are on each axis."""
        z, y, x = (math.ceil(n / BLOCK) for n in self.cells)
        return z, y, x

    def points(self, index: NDArray) -> Floats:
        """Coordinates (N, 3) in the field's world of grid points (N, 3), [z, y, x]; halves are between points."""
        return self.origin + self.spacing * index[:, ::-1]


def _evaluator(field: Field, level: float, device: torch.device | str) -> Callable[[Floats], NDArray[np.float32]]:
    """Points (N, 3) -> values (N,) above the level, in chunks."""
    size = CHUNK if torch.device(device).type == "cpu" else CHUNK_ON_GPU

    @torch.no_grad()
    def evaluate(points: Floats) -> NDArray[np.float32]:
        values = np.empty(len(points), dtype=np.float32)
        for start in range(0, len(points), size):
            chunk = torch.from_numpy(points[start : start + size].astype(np.float32)).to(device)
            found = field(chunk).reshape(-1) - level
            values[start : start + size] = found.float().cpu().numpy()
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(f"the field's values must be finite, got {bad} of {len(values)} that are not")
        return values

    return evaluate


def steepest_slope(field: Field, bounds: Floats, *, device: torch.device | str = "cpu") -> float:
    """How much a field changes over a unit of length, between neighbours on a grid of 64 cells along an axis."""
    return _slope(_evaluator(field, 0.0, device), _Grid.of(bounds, COARSE))


def _slope(evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid) -> float:
    """The steepest slope between neighbours on a grid of 64 cells, or of all where there are fewer."""
    step = max(max(grid.cells) // COARSE, 1)
    axes = [np.arange(0, n + 1, step) for n in grid.cells]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = evaluate(grid.points(index.reshape(-1, 3))).reshape(index.shape[:3])
    steepest = max(float(np.abs(np.diff(values, axis=axis)).max(initial=0.0)) for axis in range(3))
    return max(steepest, 1e-30) / (step * grid.spacing)


def _bounded_sides(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, lipschitz: float
) -> NDArray[np.int8]:
    """For each of the smallest blocks: -1 or 1, the side of the level that all of it is on, or 0 if it is on both."""
    size = BLOCK
    while size * COARSEST < max(grid.cells):
        size *= 2
    if not math.isfinite(lipschitz):
        return np.zeros(grid.blocks, dtype=np.int8)
    sides = np.zeros([math.ceil(n / size) for n in grid.cells], dtype=np.int8)
    while True:
        open_blocks = np.argwhere(sides == 0)
        values = evaluate(grid.points(np.minimum((open_blocks + 0.5) * size, grid.cells)))
        reach = lipschitz * grid.spacing * size * math.sqrt(3.0) / 2.0
        decided = np.abs(values) > reach
        sides[tuple(open_blocks[decided].T)] = np.sign(values[decided])
        if size == BLOCK:
            return sides
        size //= 2
        z, y, x = (math.ceil(n / size) for n in grid.cells)
        sides = sides.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:z, :y, :x]


def _sampled_sides(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, progress: Callable[[float], None]
) -> NDArray[np.int8]:
    """The same where no bound is known."""
    from scipy.ndimage import binary_erosion, maximum_filter, minimum_filter

    sides = np.zeros(grid.blocks, dtype=np.int8)
    if max(grid.cells) <= COARSE:
        return sides
    low, high = _samples(evaluate, grid, progress)
    for z in range(len(sides)):
        around = slice(max(z - 1, 0), z + 2)
        least, most = minimum_filter(low[around].min(0), 3), maximum_filter(high[around].max(0), 3)
        nearest = np.minimum(np.abs(low[z]), np.abs(high[z]))
        is_decided = ((least >= 0) | (most < 0)) & (nearest > most - least)
        sides[z, is_decided] = np.where(low[z, is_decided] < 0, -1, 1)
    del low, high
    is_open = sides == 0
    has_decided_neighbour = np.logical_not(binary_erosion(is_open, border_value=1))
    fresh = np.argwhere(is_open & has_decided_neighbour)
    while len(fresh):
        steps = itertools.product(range(3), (0, 1))
        fresh = np.concatenate([_followed(evaluate, grid, sides, fresh, axis, step) for axis, step in steps])
    return sides


def _samples(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, progress: Callable[[float], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The least and largest of the samples in each of the smallest blocks, at random places: no plate lies between."""
    along = min(math.ceil(COARSE / max(grid.blocks)), BLOCK)  # samples along a block's edge
    low, high = np.empty(grid.blocks, dtype=np.float32), np.empty(grid.blocks, dtype=np.float32)
    plane = np.indices((along, *(along * n for n in grid.blocks[1:]))).reshape(3, -1).T
    random = np.random.default_rng(0)
    for z in range(grid.blocks[0]):
        index = (plane + np.array([z * along, 0, 0]) + random.random(plane.shape)) * (BLOCK / along)
        values = evaluate(grid.points(np.minimum(index, grid.cells)))
        _, rows, columns = grid.blocks
        by_block = values.reshape(along, rows, along, columns, along)
        low[z], high[z] = by_block.min((0, 2, 4)), by_block.max((0, 2, 4))
        progress((z + 1) / grid.blocks[0])
    return low, high


def _followed(
    evaluate: Callable[[Floats], NDArray[np.float32]],
    grid: _Grid,
    sides: NDArray[np.int8],
    blocks: NDArray[np.int64],
    axis: int,
    step: Literal[0, 1],
) -> NDArray[np.int64]:
    """Opens those of the next blocks (before or behind along an axis) into which the surface goes on; returns them.

    It does where the face to such a block has a point on the other side of the level than the block.
    """
    onward = blocks.copy()
    onward[:, axis] += 2 * step - 1
    onward = onward[(onward[:, axis] >= 0) & (onward[:, axis] < sides.shape[axis])]
    onward = onward[sides[tuple(onward.T)] != 0]
    face = np.indices([1 if a == axis else BLOCK + 1 for a in range(3)]).reshape(3, -1).T
    face[:, axis] = BLOCK * (1 - step)
    entered = np.zeros(len(onward), dtype=bool)
    for start in range(0, len(onward), PART // len(face)):
        part = onward[start : start + PART // len(face)]
        corners = np.minimum(BLOCK * part[:, None] + face, grid.cells)
        is_below = evaluate(grid.points(corners.reshape(-1, 3))).reshape(len(part), -1) < 0
        entered[start : start + len(part)] = (is_below != (sides[tuple(part.T)] < 0)[:, None]).any(1)
    found = onward[entered]
    sides[tuple(found.T)] = 0
    return found


def _layers(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, sides: NDArray[np.int8]
) -> Iterator[tuple[float, TriangleMesh]]:
    """The part that is done and the surface in each layer, in units of cells."""
    import open3d

    nothing = TriangleMesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))
    top: NDArray[np.float32] | None = None  # the plane that this layer shares with the next one; NaN where unknown
    for first in range(0, grid.cells[0], DEPTH):
        done = min((first + DEPTH) / grid.cells[0], 1.0)
        blocks = sides[first // BLOCK : (first + DEPTH) // BLOCK]
        if (blocks != 0).all():
            top = None
            yield done, nothing
            continue
        depth, height, width = min(DEPTH, grid.cells[0] - first), *grid.cells[1:]
        cells = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1).repeat(BLOCK, 2)[:depth, :height, :width]
        wanted = np.zeros((depth + 1, height + 1, width + 1), dtype=bool)
        for z, y, x in itertools.product((0, 1), repeat=3):  # the corners of each cell near the surface
            wanted[z : z + depth, y : y + height, x : x + width] |= cells == 0
        # Elsewhere a value of the right sign: no surface passes between it and a point that is evaluated.
        layer = np.pad(cells, (0, 1), mode="edge").astype(np.float32)
        layer[wanted] = np.nan
        if top is not None:
            layer[0] = np.where(wanted[0] & ~np.isnan(top), top, layer[0])
        missing = np.flatnonzero(np.isnan(layer))
        for start in range(0, len(missing), PART):  # coordinates take twelve times the memory of values
            part = np.unravel_index(missing[start : start + PART], layer.shape)
            layer[part] = evaluate(grid.points(np.stack(part, -1) + np.array([first, 0, 0])))
        top = np.where(wanted[-1], layer[-1], np.float32(np.nan))
        _keep_off_points(layer)
        surface = open3d.t.geometry.TriangleMesh.create_isosurfaces(open3d.core.Tensor.from_numpy(layer), [0.0])
        if not len(surface.triangle):
            yield done, nothing
            continue
        vertices = surface.vertex.positions.numpy().astype(np.float64) + np.array([0.0, 0.0, first])
        yield done, TriangleMesh(vertices, surface.triangle.indices.numpy())


def _keep_off_points(layer: NDArray[np.float32]) -> None:
    """Moves values that are next to nothing beside the largest of their neighbours beyond the surface away from 0.

    Of a plane that two layers share only neighbours in it count: it is the same in both.
    """
    plane, size = layer[0].size, layer.size
    flat = layer.reshape(-1)
    flat[flat == 0] = LEAST
    is_below = layer < 0
    largest, crossed = np.zeros(size, dtype=np.float32), []
    for axis, stride in enumerate((plane, layer.shape[2], 1)):
        first, second = (is_below[(slice(None),) * axis + (part,)] for part in (slice(None, -1), slice(1, None)))
        index = np.ravel_multi_index(np.nonzero(first != second), layer.shape)
        for here, there in ((index, index + stride), (index + stride, index)):
            if axis == 0:
                is_inner = (here >= plane) & (here < size - plane)
                here, there = here[is_inner], there[is_inner]
            largest[here] = np.maximum(largest[here], np.abs(flat[there]))
            crossed.append(here)
    points = np.concatenate(crossed)
    least = KEPT_OFF * largest[points]
    flat[points] = np.where(np.abs(flat[points]) < least, np.copysign(least, flat[points]), flat[points])


def _no_crossing(evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, level: float) -> str:
    """Says what values there are, so that a level can be chosen."""
    axes = [np.linspace(0, n, 33) for n in grid.cells]
    values = level + evaluate(grid.points(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)))
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    if low < level < high:
        return (
            f"no cell shows where the field crosses the level {level:g}, though its values go from {low:.4g} to "
            f"{high:.4g}: what is there is thinner than a cell of {grid.spacing:.4g}, or stands alone and is no wider "
            "than a few: a higher resolution is needed"
        )
    if low == high:
        return f"the field does not cross the level {level:g}: it is {low:.4g} wherever it was asked in the box"
    return (
        f"the field does not cross the level {level:g} in the box: its values go from {low:.4g} to {high:.4g}; a level "
        f"between them is needed, such as {(low + high) / 2:.4g} (the median is {middle:.4g})"
    )
