"""Cost of extracting the surface of a fitted shape: near the surface only, and on the whole grid."""

from __future__ import annotations

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from staf_nerf.bench.record import environment, settings
from staf_nerf.jobs.output import write_json


@dataclass(frozen=True)
class ExtractionBenchmark:
    """Extracts the surface of a fitted shape, sparsely and on the whole grid, each in its own process."""

    checkpoint: Positional[Path]
    """A field.safetensors file written by `staf fit shape`."""
    resolutions: tuple[int, ...] = (512, 1024)
    """Numbers of cells along an axis of the grid."""
    whole: tuple[int, ...] = (512,)
    """Resolutions among these that are also evaluated on the whole grid. 512 takes minutes."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. By default they are printed."""


@dataclass(frozen=True)
class Extraction:
    """Cost of one extraction."""

    seconds: float
    evaluations: int
    """Number of points at which the field was evaluated."""
    triangles: int
    peak_bytes: int
    """Peak memory in bytes, beyond the peak before the extraction."""


def compare_extractions(benchmark: ExtractionBenchmark) -> dict[str, Any]:
    """Returns one row per resolution, with speed ratio and distance of the surfaces where both ways were run."""
    rows = []
    for resolution in benchmark.resolutions:
        sparse, mesh = _in_own_process(benchmark.checkpoint, resolution, whole=False)
        row: dict[str, Any] = {"resolution": resolution, "sparse": asdict(sparse)}
        if resolution in benchmark.whole:
            from staf_nerf.mesh.compare import compare

            whole, reference = _in_own_process(benchmark.checkpoint, resolution, whole=True)
            comparison = compare(mesh, reference)
            row |= {"whole": asdict(whole), "times_as_fast": whole.seconds / sparse.seconds}
            row |= {"chamfer_of_diagonal": comparison.chamfer_l1 / comparison.diagonal}
        rows.append(row)
    return {**environment("open3d"), **settings(benchmark), "checkpoint": benchmark.checkpoint.name, "rows": rows}


def _in_own_process(checkpoint: Path, resolution: int, *, whole: bool) -> tuple[Extraction, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(time_extraction, checkpoint, resolution, whole=whole).result()


def time_extraction(checkpoint: Path, resolution: int, *, whole: bool) -> tuple[Extraction, Any]:
    """Extracts the surface once, in this process, and returns its cost and the mesh."""
    import open3d  # noqa: F401  (its import is not timed)

    from staf_nerf.checkpoint import load_shape
    from staf_nerf.machine.memory import keep_freed_memory
    from staf_nerf.mesh.extract import extract_mesh
    from staf_nerf.progress import peak_memory
    from staf_nerf.tasks.shape import shape_source

    keep_freed_memory()
    source, evaluations = shape_source(*load_shape(checkpoint)), 0

    def counted(points):
        nonlocal evaluations
        evaluations += len(points)
        return source.field(points)

    options: dict[str, Any] = {"level": source.level, "inside": source.inside}
    extract_mesh(counted, bounds=source.bounds, resolution=8, lipschitz=math.inf, **options)  # warms up
    before, evaluations, start = peak_memory() or 0, 0, time.perf_counter()
    mesh = extract_mesh(
        counted,
        bounds=source.bounds,
        resolution=resolution,
        lipschitz=math.inf if whole else source.lipschitz,
        **options,
    )
    seconds = time.perf_counter() - start
    return Extraction(seconds, evaluations, len(mesh.triangles), (peak_memory() or 0) - before), mesh


def main(benchmark: ExtractionBenchmark) -> None:
    """Runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    result = compare_extractions(benchmark)
    table = Table("resolution", "way", "seconds", "evaluations", "triangles", "peak memory", "speed-up", "distance")
    for row in result["rows"]:
        for way in ("sparse", "whole"):
            if way in row:
                cost = row[way]
                is_compared = way == "sparse" and "whole" in row
                table.add_row(
                    f"{row['resolution']}³",
                    way,
                    f"{cost['seconds']:.1f}",
                    f"{cost['evaluations']:,}",
                    f"{cost['triangles']:,}",
                    f"{cost['peak_bytes'] / 1e9:.2f} GB",
                    f"{row['times_as_fast']:.1f}" if is_compared else "",
                    f"{row['chamfer_of_diagonal']:.1e} of the diagonal" if is_compared else "",
                )
    Console().print(table)
    write_json(result, benchmark.output)
