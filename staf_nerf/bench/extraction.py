"""What it costs to find a fitted shape's surface: near the surface alone, and on the whole grid."""

from __future__ import annotations

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from staf_nerf.bench.record import environment, settings, write


@dataclass(frozen=True)
class ExtractionBenchmark:
    """Finds the surface of a fitted shape, sparsely and on the whole grid, each in a process of its own."""

    checkpoint: Positional[Path]
    """field.safetensors of `staf fit shape`."""
    resolutions: tuple[int, ...] = (512, 1024)
    """Cells along an axis."""
    whole: tuple[int, ...] = (512,)
    """Of these, also on the whole grid; 512³ takes minutes."""
    output: Path | None = None
    """JSON file."""


@dataclass(frozen=True)
class Extraction:
    """One extraction."""

    seconds: float
    evaluations: int
    """Points that the field was asked for."""
    triangles: int
    peak_bytes: int
    """Memory at the peak beyond what the process held before."""


def run(benchmark: ExtractionBenchmark) -> dict[str, Any]:
    """Measures, and returns rows; where both ways were taken, their ratio and how far the surfaces are apart."""
    rows = []
    for resolution in benchmark.resolutions:
        sparse, mesh = _alone(benchmark.checkpoint, resolution, whole=False)
        row: dict[str, Any] = {"resolution": resolution, "sparse": asdict(sparse)}
        if resolution in benchmark.whole:
            from staf_nerf.mesh.compare import compare

            whole, reference = _alone(benchmark.checkpoint, resolution, whole=True)
            found = compare(mesh, reference)
            row |= {"whole": asdict(whole), "times_as_fast": whole.seconds / sparse.seconds}
            row |= {"chamfer_of_diagonal": found.chamfer_l1 / found.diagonal}
        rows.append(row)
    return {**environment("open3d"), **settings(benchmark), "checkpoint": benchmark.checkpoint.name, "rows": rows}


def _alone(checkpoint: Path, resolution: int, *, whole: bool) -> tuple[Extraction, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, checkpoint, resolution, whole=whole).result()


def measure(checkpoint: Path, resolution: int, *, whole: bool) -> tuple[Extraction, Any]:
    """Extracts once, in this process."""
    import open3d  # noqa: F401  (its import is not what is measured)

    from staf_nerf.checkpoint import load_shape
    from staf_nerf.evaluation import shape_source
    from staf_nerf.jobs.progress import peak_memory
    from staf_nerf.memory import keep_freed_memory
    from staf_nerf.mesh.extract import extract_mesh

    keep_freed_memory()
    source, asked = shape_source(*load_shape(checkpoint)), 0

    def counted(points):
        nonlocal asked
        asked += len(points)
        return source.field(points)

    options: dict[str, Any] = {"level": source.level, "inside": source.inside}
    extract_mesh(counted, bounds=source.bounds, resolution=8, lipschitz=math.inf, **options)  # warms up
    before, asked, start = peak_memory(), 0, time.perf_counter()
    mesh = extract_mesh(
        counted,
        bounds=source.bounds,
        resolution=resolution,
        lipschitz=math.inf if whole else source.lipschitz,
        **options,
    )
    seconds = time.perf_counter() - start
    return Extraction(seconds, asked, len(mesh.triangles), peak_memory() - before), mesh


def main(benchmark: ExtractionBenchmark) -> None:
    """Runs and prints a table; and JSON where no file is given."""
    result = run(benchmark)
    table = Table("resolution", "way", "seconds", "evaluations", "triangles", "peak memory", "times as fast", "apart")
    for row in result["rows"]:
        for way in ("sparse", "whole"):
            if way in row:
                found = row[way]
                both = way == "sparse" and "whole" in row
                table.add_row(
                    f"{row['resolution']}³",
                    way,
                    f"{found['seconds']:.1f}",
                    f"{found['evaluations']:,}",
                    f"{found['triangles']:,}",
                    f"{found['peak_bytes'] / 1e9:.2f} GB",
                    f"{row['times_as_fast']:.1f}" if both else "",
                    f"{row['chamfer_of_diagonal']:.1e} of the diagonal" if both else "",
                )
    Console().print(table)
    write(result, benchmark.output)
