"""Meshes of one capture by several methods, compared with the true mesh after equal wall-clock training times.

Each mesh is made as a user would make it: ours by `staf mesh`, nerfacto's by the function behind `ns-export tsdf`. All
of them, and the true mesh, are cropped to one box in the capture's coordinates. The entry "seen" compares with the part
of the true mesh that a camera sees, because surfaces inside overlapping parts cannot be reconstructed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from staf_nerf.bench.nerf import NerfBenchmark, make_config, train_and_evaluate
from staf_nerf.bench.record import environment
from staf_nerf.bench.sweep import run_missing
from staf_nerf.jobs.output import write_json
from staf_nerf.mesh.triangles import TriangleMesh, box_around, moved, read_mesh

NERFACTO = "nerfacto"


@dataclass(frozen=True)
class SurfaceBenchmark:
    """Trains methods on a capture and compares their meshes with the true mesh."""

    data: Annotated[Positional[Path], arg(metavar="CAPTURE")]
    """Capture to train on."""
    truth: Path
    """Mesh of the true surface, in the coordinates of the capture's poses."""
    box: tuple[float, float, float, float, float, float]
    """Box in which surfaces are compared, in those coordinates: the smallest x, y, z, then the largest x, y, z."""
    methods: tuple[str, ...] = ("staf-nerf-sdf", "staf-nerf", NERFACTO)
    """Methods, as for `staf bench nerf`."""
    minutes: float = 30.0
    """Wall-clock training time of each run in minutes."""
    seeds: tuple[int, ...] = (0,)
    """Random seeds. Each method is run once per seed."""
    rays: int = 1024
    """Number of rays per training step."""
    resolution: int = 256
    """Number of cells along the box's longest side. For nerfacto: along each side."""
    meshes: Path | None = None
    """Folder in which the meshes are kept. By default they are deleted."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results. Runs that it already contains are not repeated."""


def compare_meshes(benchmark: SurfaceBenchmark) -> dict[str, Any]:
    """Runs what is missing and returns rows with the quality of views and meshes (see `staf_nerf.mesh.compare`)."""
    shared = {"minutes": benchmark.minutes, "rays": benchmark.rays}
    shared |= {"resolution": benchmark.resolution, "box": list(benchmark.box)}
    cells = [{"method": m, "seed": seed, **shared} for seed in benchmark.seeds for m in benchmark.methods]

    def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
        method, seed = cell["method"], cell["seed"]
        evaluate = _mesh_evaluation(benchmark, method, seed)
        return train_and_evaluate(_training(benchmark), benchmark.data, method, seed, evaluate)

    return run_missing(cells, run_cell, lambda rows: _result(benchmark, rows), benchmark.output)


def _result(benchmark: SurfaceBenchmark, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": rows, "data": benchmark.data.name, **environment("nerfstudio", "open3d")}


def _training(benchmark: SurfaceBenchmark) -> NerfBenchmark:
    return NerfBenchmark(
        data=(benchmark.data,),
        methods=benchmark.methods,
        budget="minutes",
        amount=benchmark.minutes,
        rays=benchmark.rays,
    )


def _mesh_evaluation(benchmark: SurfaceBenchmark, method: str, seed: int) -> Callable[[Any], dict[str, Any]]:
    """Returns a function that makes the mesh of a trained method and compares it with the true one."""

    def evaluate(trainer: Any) -> dict[str, Any]:
        from staf_nerf.mesh.clean import cropped, visible_part
        from staf_nerf.mesh.compare import compare
        from staf_nerf.plugin.mesh_source import camera_positions

        with tempfile.TemporaryDirectory() as folder:
            keep = benchmark.meshes or Path(folder)
            keep.mkdir(parents=True, exist_ok=True)
            path = keep / f"{method}_{seed}.ply"
            start = time.perf_counter()
            (_write_by_nerfstudio if method.startswith(NERFACTO) else _write_by_staf)(trainer, benchmark, path)
            seconds = time.perf_counter() - start
            corners = np.asarray(benchmark.box).reshape(2, 3)
            mesh, truth = (cropped(read_mesh(p), corners) for p in (path, benchmark.truth))
        seen = visible_part(truth, camera_positions(trainer.pipeline.datamanager))
        return {
            "mesh_seconds": seconds,
            "triangles": len(mesh.triangles),
            **asdict(compare(mesh, truth)),
            "seen": asdict(compare(mesh, seen)),
        }

    return evaluate


def _write_by_staf(trainer: Any, benchmark: SurfaceBenchmark, path: Path) -> None:
    from rich.console import Console

    from staf_nerf.jobs import mesh
    from staf_nerf.plugin.mesh_source import source_of

    source = source_of(trainer.pipeline.model, trainer.pipeline.datamanager)
    job = mesh.MakeMesh(path, resolution=benchmark.resolution, box=benchmark.box)
    mesh.make_mesh(source, job, Console(file=sys.stderr))


def _write_by_nerfstudio(trainer: Any, benchmark: SurfaceBenchmark, path: Path) -> None:
    from nerfstudio.exporter.tsdf_utils import export_tsdf_mesh

    from staf_nerf.mesh.export import write_mesh
    from staf_nerf.plugin.mesh_source import to_world

    world = to_world(trainer.pipeline.datamanager.train_dataparser_outputs)
    low, high = box_around(np.asarray(benchmark.box).reshape(2, 3), np.linalg.inv(world))
    trainer.pipeline.eval()
    with tempfile.TemporaryDirectory() as folder:
        export_tsdf_mesh(
            trainer.pipeline,
            Path(folder),
            resolution=[benchmark.resolution] * 3,
            bounding_box_min=tuple(low.tolist()),
            bounding_box_max=tuple(high.tolist()),
        )
        (file,) = Path(folder).glob("*.ply")
        mesh = read_mesh(file)
    write_mesh(path, moved(TriangleMesh(mesh.vertices, mesh.triangles), world))


def main(benchmark: SurfaceBenchmark) -> None:
    """Checks the methods, runs the benchmark, prints a table, and writes JSON to the output file or the screen."""
    from rich.console import Console
    from rich.table import Table

    for method in benchmark.methods:
        make_config(_training(benchmark), benchmark.data, method, 1, Path())
    read_mesh(benchmark.truth)
    result = compare_meshes(benchmark)
    table = Table(title=f"{result['data']}, {benchmark.minutes:g} minutes, {result['threads']} threads")
    columns = ("method", "seed", "steps", "PSNR", "Chamfer L1", "F 0.5 %", "F 1 %", "normals", "seen: Chamfer", "F 1 %")
    for column in columns:
        table.add_column(column)
    for row in result["rows"]:
        table.add_row(
            row["method"],
            str(row["seed"]),
            str(row["steps"]),
            f"{row['psnr']:.2f}",
            f"{row['chamfer_l1']:.4f}",
            *(f"{f_score:.3f}" for f_score in row["f_score"]),
            f"{row['normal_consistency']:.3f}",
            f"{row['seen']['chamfer_l1']:.4f}",
            f"{row['seen']['f_score'][1]:.3f}",
        )
    Console().print(table)
    write_json(result, benchmark.output)
