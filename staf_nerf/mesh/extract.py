"""Extraction of a field's level set as triangles, with evaluations near the surface only.

The box is divided into cubes ("blocks") of cells. If a Lipschitz bound of the field is known, a block whose centre
value differs from the level by more than the bound times half the diagonal contains no surface, and the other blocks
are subdivided. If no bound is known, each of the smallest blocks is sampled. The difference between samples around a
block estimates how much the field changes in it, and the surface is followed wherever it leaves the remaining blocks.
Only their points are evaluated, in layers along z. Memory therefore grows with the square of the resolution, plus a few
bytes per block.

Conventions: the field maps points (N, 3) to values (N,) or (N, 1). Arrays are indexed [z, y, x]. Triangles face
outwards: counter-clockwise seen from outside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staf_nerf.mesh.triangles import Floats, TriangleMesh, weld

Field = Callable[[Tensor], Tensor]

BLOCK = 4
"""Number of cells along an edge of the smallest blocks."""
DEPTH = 8
"""Number of cells of a layer along z."""
COARSEST = 8
"""Number of blocks along the longest axis at the start."""
COARSE = 64
"""Number of cells along the longest axis of the grid for slopes, and minimum number of samples along it."""
CHUNK, CHUNK_ON_GPU = 2**13, 2**18
"""Number of points at which the field is evaluated at a time. On a CPU, values of a layer of 256 stay in the cache."""
KEPT_OFF = 1e-3
"""Minimum distance of the surface from grid points, as a fraction of an edge.
A surface through a grid point would give coincident vertices and triangles without area."""
LEAST = np.float32(1e-30)
"""Replacement for values that are exactly at the level."""
BYTES_PER_TRIANGLE = 200
"""Memory per triangle in bytes, with vertices, while vertices are merged."""
BYTES_PER_POINT = 32
"""Memory per point of a layer in bytes: values, masks, indices, and the arrays of Open3D."""
BYTES_PER_BLOCK = 32
"""Memory per sampled block in bytes: its values, its side, and the list of blocks to follow."""
SEARCH = 0.4
"""Fraction of the work that sampling takes, for the progress bar."""
DISTANCE_BOUND = 1.3
"""A learned signed distance is assumed to be at most this many times the true distance."""
PART = 2**18
"""Number of points of a layer whose coordinates are held at a time."""


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
    """Extracts the surface on which a field has a given value.

    Args:
        field: Maps points (N, 3), float32 in the coordinates of `bounds`, to values (N,) or (N, 1).
        bounds: The box, (2, 3): smallest and largest coordinates.
        resolution: Number of cells along the longest axis of the box.
        level: Value of the field on the surface.
        inside: Values of the inside: "below" the level for a signed distance, "above" for density and occupancy.
        lipschitz: Bound on the slope of the field: 1 for an exact signed distance. Too small a bound loses parts of
            the surface. Infinity evaluates the whole grid. None: no bound is known. The surface is then found by at
            least one sample in each cube of 4 x 4 x 4 cells, and followed from there. Small separate parts may be
            missed if the field is constant around them: of balls with a sharp edge about half of those with a
            diameter of four cells, and hardly any with six. Up to a resolution of 64 all points are evaluated.
        memory: Memory in bytes that the extraction may use, without that of the field.
        device: Device on which the field is evaluated.
        progress: Called with the fraction done.

    Raises:
        ValueError: If an argument is out of range, the field does not cross the level in the box, its values are not
            finite, or the surface has too many triangles for the memory.
    """
    grid = _Grid.of(bounds, resolution)
    needed = grid.memory(sampled=lipschitz is None)
    if needed > memory:
        raise ValueError(
            f"resolution {resolution} needs memory of {needed / 1e9:.2g} GB, got {memory / 1e9:.2g} GB: lower the "
            "resolution or allow more memory"
        )
    if inside not in ("below", "above"):
        raise ValueError(f"inside must be 'below' or 'above', got {inside!r}")
    if lipschitz is not None and not lipschitz > 0:
        raise ValueError(f"lipschitz must be positive, got {lipschitz}")
    evaluate = _evaluator(field, level, device)
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
                    f"the surface has more than {most} triangles, the limit for memory of {memory / 1e9:.2g} GB: check "
                    f"the level {level:g}, lower the resolution {resolution}, or allow more memory"
                )
        report(searched + (1.0 - searched) * done)
    if not pieces:
        raise ValueError(_no_crossing(evaluate, grid, level))
    surface = _joined(pieces, flipped=inside == "below")  # Open3D's triangles face lower values
    return TriangleMesh(grid.origin + grid.spacing * surface.vertices, surface.triangles)


@dataclass(frozen=True)
class _Grid:
    """Grid points origin + spacing · (x, y, z) with integers from 0 to `cells`, which are ordered (z, y, x)."""

    origin: Floats
    spacing: float
    cells: tuple[int, int, int]

    @classmethod
    def of(cls, bounds: Floats, resolution: int) -> _Grid:
        if resolution < 1:
            raise ValueError(f"resolution must be >= 1, got {resolution}")
        bounds = np.asarray(bounds, dtype=np.float64)
        if bounds.shape != (2, 3) or not np.isfinite(bounds).all() or not (bounds[0] < bounds[1]).all():
            raise ValueError(f"bounds must be two finite corners, low before high on each axis, got {bounds.tolist()}")
        extent = bounds[1] - bounds[0]
        spacing = float(extent.max()) / resolution
        x, y, z = (max(math.ceil(e / spacing - 1e-9), 1) for e in extent)
        return cls(bounds[0], spacing, (z, y, x))

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Number of the smallest blocks on each axis."""
        z, y, x = (math.ceil(n / BLOCK) for n in self.cells)
        return z, y, x

    def memory(self, *, sampled: bool) -> int:
        """Returns the memory in bytes that an extraction needs beside its triangles, with or without sampled blocks."""
        layer = (DEPTH + 1) * (self.cells[1] + 1) * (self.cells[2] + 1) * BYTES_PER_POINT
        return max(layer, math.prod(self.blocks) * BYTES_PER_BLOCK) if sampled else layer

    def points(self, index: NDArray) -> Floats:
        """Returns coordinates (N, 3) of grid indices (N, 3), ordered [z, y, x]. Fractions lie between grid points."""
        return self.origin + self.spacing * index[:, ::-1]


def _evaluator(field: Field, level: float, device: torch.device | str) -> Callable[[Floats], NDArray[np.float32]]:
    """Returns a function from points (N, 3) to values (N,) minus the level, evaluated in chunks."""
    size = CHUNK if torch.device(device).type == "cpu" else CHUNK_ON_GPU

    @torch.no_grad()
    def evaluate(points: Floats) -> NDArray[np.float32]:
        values = np.empty(len(points), dtype=np.float32)
        for start in range(0, len(points), size):
            chunk = torch.from_numpy(points[start : start + size].astype(np.float32)).to(device)
            above_level = field(chunk).reshape(-1) - level
            values[start : start + size] = above_level.float().cpu().numpy()
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(f"the field's values must be finite, got {bad} of {len(values)} that are not")
        return values

    return evaluate


def steepest_slope(field: Field, bounds: Floats, *, device: torch.device | str = "cpu") -> float:
    """Returns the steepest slope of a field between neighbours on a grid of 64 cells along the longest axis."""
    return _slope(_evaluator(field, 0.0, device), _Grid.of(bounds, COARSE))


def distance_bound(distance: Field, bounds: Floats, device: torch.device | str) -> float:
    """Returns a bound on the slope of a learned signed distance in a box (2, 3): at least 1.3.

    It is the steepest slope between neighbouring grid points, if that is larger.
    """
    return max(DISTANCE_BOUND, steepest_slope(distance, bounds, device=device))


def _slope(evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid) -> float:
    """Returns the steepest slope between neighbours on a grid of at most 64 cells along the longest axis."""
    step = max(max(grid.cells) // COARSE, 1)
    axes = [np.arange(0, n + 1, step) for n in grid.cells]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = evaluate(grid.points(index.reshape(-1, 3))).reshape(index.shape[:3])
    steepest = max(float(np.abs(np.diff(values, axis=axis)).max(initial=0.0)) for axis in range(3))
    return max(steepest, 1e-30) / (step * grid.spacing)


def _bounded_sides(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, lipschitz: float
) -> NDArray[np.int8]:
    """Returns the side of each of the smallest blocks: -1 below the level, 1 above, 0 if it may contain surface."""
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
    """Returns the sides of the smallest blocks if no bound of the slope is known."""
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
    front = np.argwhere(is_open & has_decided_neighbour)
    while len(front):
        steps = itertools.product(range(3), (0, 1))
        front = np.concatenate([_followed(evaluate, grid, sides, front, axis, step) for axis, step in steps])
    return sides


def _samples(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, progress: Callable[[float], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns minimum and maximum of random samples in each of the smallest blocks.

    Positions are random, so that thin plates do not lie between regular samples.
    """
    along = min(math.ceil(COARSE / max(grid.blocks)), BLOCK)  # number of samples along a block's edge
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
    """Opens the neighbouring blocks (before or behind along an axis) that the surface enters, and returns them.

    The surface enters a block if a point on the shared face is on the other side of the level than the block.
    """
    neighbours = blocks.copy()
    neighbours[:, axis] += 2 * step - 1
    neighbours = neighbours[(neighbours[:, axis] >= 0) & (neighbours[:, axis] < sides.shape[axis])]
    neighbours = neighbours[sides[tuple(neighbours.T)] != 0]
    face = np.indices([1 if a == axis else BLOCK + 1 for a in range(3)]).reshape(3, -1).T
    face[:, axis] = BLOCK * (1 - step)
    is_entered = np.zeros(len(neighbours), dtype=bool)
    for start in range(0, len(neighbours), PART // len(face)):
        part = neighbours[start : start + PART // len(face)]
        corners = np.minimum(BLOCK * part[:, None] + face, grid.cells)
        is_below = evaluate(grid.points(corners.reshape(-1, 3))).reshape(len(part), -1) < 0
        is_entered[start : start + len(part)] = (is_below != (sides[tuple(part.T)] < 0)[:, None]).any(1)
    opened = neighbours[is_entered]
    sides[tuple(opened.T)] = 0
    return opened


def _layers(
    evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, sides: NDArray[np.int8]
) -> Iterator[tuple[float, TriangleMesh]]:
    """Yields the fraction done and the surface of each layer, in units of cells."""
    import open3d

    nothing = TriangleMesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))
    top: NDArray[np.float32] | None = None  # plane shared with the next layer; NaN where unknown
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
        # Other points get a value of the right sign: no surface lies between them and evaluated points.
        layer = np.pad(cells, (0, 1), mode="edge").astype(np.float32)
        layer[wanted] = np.nan
        if top is not None:
            layer[0] = np.where(wanted[0] & ~np.isnan(top), top, layer[0])
        missing = np.flatnonzero(np.isnan(layer))
        for start in range(0, len(missing), PART):  # coordinates take twelve times as much memory as values
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
    """Moves values away from 0 if they are tiny relative to their largest neighbour across the surface.

    In a plane that two layers share only neighbours in the plane count, so that it is the same in both.
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


def _joined(pieces: Sequence[TriangleMesh], *, flipped: bool) -> TriangleMesh:
    """Returns the layers' surfaces as one mesh, in which layers share vertices. Triangles may be flipped."""
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    triangles = np.concatenate([piece.triangles + start for piece, start in zip(pieces, starts, strict=False)])
    vertices = np.concatenate([piece.vertices for piece in pieces])
    return weld(TriangleMesh(vertices, triangles[:, ::-1] if flipped else triangles))


def _no_crossing(evaluate: Callable[[Floats], NDArray[np.float32]], grid: _Grid, level: float) -> str:
    """Returns an error message with the range of values, from which a level can be chosen."""
    axes = [np.linspace(0, n, 33) for n in grid.cells]
    values = level + evaluate(grid.points(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)))
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    if low < level < high:
        return (
            f"no cell crosses the level {level:g}, although the field's values range from {low:.4g} to {high:.4g}: "
            f"the surface is thinner than a cell of {grid.spacing:.4g}, or separate and only a few cells wide; "
            "increase the resolution"
        )
    if low == high:
        return f"the field does not cross the level {level:g}: it is {low:.4g} at all sampled points of the box"
    return (
        f"the field does not cross the level {level:g} in the box: its values range from {low:.4g} to {high:.4g}; use "
        f"a level between them, such as {(low + high) / 2:.4g} (the median is {middle:.4g})"
    )
