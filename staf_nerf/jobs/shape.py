"""`staf fit shape`: fits a field to a mesh or a point cloud, and writes it with its surface and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Generator, nn
from tyro.conf import OmitArgPrefixes, Positional

from staf_nerf.checkpoint import FIELD_FILE, Checkpoint, save_field
from staf_nerf.config import ShapeConfig
from staf_nerf.evaluation import measure_cells, measure_points, measure_shape, shape_mesh
from staf_nerf.fields import count_parameters
from staf_nerf.fit import History, fit
from staf_nerf.jobs.fitting import choose_device, remove_old_results
from staf_nerf.jobs.output import prepare_folder, write_whole
from staf_nerf.jobs.progress import Stages
from staf_nerf.memory import keep_freed_memory
from staf_nerf.mesh.clean import repair
from staf_nerf.mesh.export import write_mesh
from staf_nerf.mesh.points import SUFFIXES, PointCloud, read_points
from staf_nerf.mesh.preview import save_preview
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import TriangleMesh, read_mesh
from staf_nerf.presets import load_preset
from staf_nerf.signals.shape import Frame, PointCloudSignal, ShapeSignal, check_quantity, make_field

FOR_MESHES = ("surface_part", "near_part", "near", "grid", "cached_points", "softness", "eikonal_weight")
"""Options of a `ShapeConfig` without effect on point clouds, which have points on the surface only."""
RESULTS = ("mesh.glb", "mesh.ply", "preview.png", "metrics.json")
"""Output files of a fit beside the field."""
NOTHING = {
    "iou": "- (a surface is open)",
    "field_iou": "- (the file has no inside)",
    "grid_iou": "- (the file has no inside)",
    "grid_iou_of_best_pass": "- (no epoch was completed)",
    "normal_agreement": "- (the file has no normals)",
}
"""Text shown for each metric that may be missing."""


@dataclass(frozen=True)
class FitShape:
    """Fits the signed distance or the occupancy of a shape. Writes the field, its surface, metrics and a picture."""

    file: Positional[Path]
    """A mesh (OBJ, PLY, STL, GLB), or a point cloud with or without normals (PLY, XYZ, NPZ)."""
    config: OmitArgPrefixes[ShapeConfig] = field(default_factory=lambda: load_preset("shape", "cpu", ShapeConfig()))
    """Network and training."""
    output: Path | None = None
    """Output folder. Defaults to outputs/shape/NAME."""
    resolution: int = 256
    """Number of cells along each axis of the grid on which the surface is extracted."""
    seed: int = 0
    """Random seed."""
    device: str | None = None
    """"cpu", "cuda" or "mps". Defaults to CUDA if it is available, otherwise the CPU."""
    overwrite: bool = False
    """Replace results in the output folder."""
    score_passes: bool = False
    """Occupancy with --grid: also compute the IoU over all cells of the grid after each epoch.
    Published tables quote the best epoch, which cannot be chosen without the true shape."""
    preset: str | None = None
    """Preset or .toml file that sets the defaults of the other options (see method_configs/).
    It is read on the command line only."""

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"resolution must be >= 1, got {self.resolution}")


def run(job: FitShape) -> dict[str, Any]:
    """Runs the job and returns the content of `metrics.json`."""
    keep_freed_memory()
    console = Console()
    shape, lines = read_shape(job.file)
    if isinstance(shape, PointCloud):
        check_quantity(job.config)
    score = _score_of(job, shape) if job.score_passes else None
    output = job.output or Path("outputs/shape") / job.file.stem
    prepare_folder(output, overwrite=job.overwrite)
    console.print(f"{job.file}: {_size(shape)}")
    for line in [*lines, *without_effect(shape, job.config)]:
        console.print(f"  {line}")
    device = choose_device(job.device)
    with Stages(console) as stages:
        with stages("distances"):
            signal = make_signal(shape, job.config, seed=job.seed, device=device)
        model = make_field(
            job.config,
            start_as_sphere=isinstance(shape, PointCloud),
            generator=Generator().manual_seed(job.seed),
        ).to(device)
        with stages("fitting") as report:
            history = fit(
                model,
                signal,
                job.config.fit,
                seed=job.seed,
                progress=lambda done, now: report(done, f"loss {sum(now.latest.values()):.2e}"),
                score=score,
            )
        checkpoint = Checkpoint(model, job.config, signal.frame, str(job.file), job.seed)
        save_field(output / FIELD_FILE, checkpoint)
        remove_old_results(output, RESULTS)
        mesh, measures = None, {}
        with stages.attempt("surface") as report:
            try:
                mesh = shape_mesh(model, job.config, signal.frame, resolution=job.resolution, progress=report)
            except ValueError as error:
                raise ValueError(
                    f"{error}. The fit is kept: `staf mesh --checkpoint {output} --level …` tries another level. A "
                    "longer fit or lower learning rates may give a surface (--overwrite replaces this fit)"
                ) from error
        if mesh is not None:
            for name in ("mesh.ply", "mesh.glb"):
                with stages.attempt(name):
                    write_mesh(output / name, mesh)
            with stages.attempt("measures") as report:
                measures = _measure(job, model, signal.frame, mesh, shape, report)
            with stages.attempt("picture"):
                save_preview(output / "preview.png", mesh)
    if score is not None:
        measures["grid_iou_of_best_pass"] = max((row["grid_iou"] for row in history.passes), default=None)
    found = _result(job, history, measures, stages, count_parameters(model))
    text = json.dumps(found, indent=1)
    console.print(_table(found))
    with stages.attempt("metrics.json"):
        write_whole(output / "metrics.json", text + "\n")
    if measures.get("stray_part", 0.0) > 0.01:
        console.print(
            f"warning: {100 * measures['stray_part']:.0f} % of the surface lies far from all points: the fit closed a "
            "hole in the point cloud, or it was too short"
        )
    made = [name for name in (*RESULTS, FIELD_FILE) if (output / name).is_file()]
    console.print(f"Written to {output}: {', '.join(made)}", soft_wrap=True)
    stages.refuse_failures()
    return json.loads(text)


def _measure(
    job: FitShape,
    model: nn.Module,
    frame: Frame,
    mesh: TriangleMesh,
    shape: TriangleMesh | PointCloud,
    report: Callable[..., None],
) -> dict[str, Any]:
    """Returns the metrics of a fitted field and its mesh, compared with the file."""
    if isinstance(shape, TriangleMesh):
        return measure_shape(model, job.config, frame, mesh, shape, seed=job.seed, progress=report)
    return measure_points(model, frame, mesh, shape, seed=job.seed)


def _score_of(job: FitShape, shape: TriangleMesh | PointCloud) -> Callable[[nn.Module], dict[str, float]]:
    """Returns the function that computes the metrics after each epoch over the cells of the grid.

    Raises:
        ValueError: If there is no grid, or the shape has no inside.
    """
    config = job.config
    if isinstance(shape, PointCloud) or config.quantity != "occupancy" or not config.grid:
        raise ValueError("score_passes needs a mesh, an occupancy and a grid, whose cells define an epoch")
    surface, frame = Surface(shape), Frame.of(shape.bounds)

    def score(field: nn.Module) -> dict[str, float]:
        found = measure_cells(field, config, frame, surface)["grid_iou"]
        if found is None:
            raise ValueError(f"score_passes needs a mesh with an inside, and {job.file} has none")
        return {"grid_iou": found}

    return score


def read_shape(path: Path) -> tuple[TriangleMesh | PointCloud, list[str]]:
    """Reads a mesh, which is repaired where that is safe, or a point cloud. Also returns messages for the user.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it contains neither a mesh nor points.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES and (suffix != ".ply" or not _has_faces(path)):
        cloud = read_points(path)
        return cloud, cloud.lines()
    mesh, repairs = repair(read_mesh(path, as_stored=True))
    return mesh, repairs.lines()


def make_signal(
    shape: TriangleMesh | PointCloud, config: ShapeConfig, *, seed: int = 0, device: torch.device | str = "cpu"
) -> ShapeSignal | PointCloudSignal:
    """Returns the signal that the field is fitted to."""
    if isinstance(shape, PointCloud):
        return PointCloudSignal(shape, config, device=device)
    return ShapeSignal(shape, config, seed=seed, device=device)


def without_effect(shape: TriangleMesh | PointCloud, config: ShapeConfig) -> list[str]:
    """Returns a message that names changed options without effect, if the shape is a point cloud."""
    if isinstance(shape, TriangleMesh):
        return []
    usual = load_preset("shape", "cpu", ShapeConfig())
    changed = [name for name in FOR_MESHES if getattr(config, name) != getattr(usual, name)]
    return [f"warning: options without effect on a point cloud: {', '.join(changed)}"] if changed else []


def _has_faces(path: Path) -> bool:
    """Returns whether the header of a PLY file announces faces."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    header = path.read_bytes()[:65536].partition(b"end_header")[0]
    counts = [line.split()[-1] for line in header.splitlines() if line.startswith(b"element face")]
    return any(count != b"0" for count in counts)


def _size(shape: TriangleMesh | PointCloud) -> str:
    if isinstance(shape, PointCloud):
        return f"{len(shape.points)} points{' with normals' if shape.normals is not None else ''}"
    return f"{len(shape.vertices)} vertices, {len(shape.triangles)} triangles"


def _result(
    job: FitShape, history: History, measures: dict[str, Any], stages: Stages, parameters: int
) -> dict[str, Any]:
    return {
        "file": job.file.name,
        "config": asdict(job.config),
        "seed": job.seed,
        "resolution": job.resolution,
        "parameters": parameters,
        "steps": history.steps,
        "interrupted": history.interrupted,
        "seconds": stages.seconds,
        "failed": stages.failed,
        "measures": measures,
        "losses": history.losses,
        "passes": history.passes,
    }


def _table(found: dict[str, Any]) -> Table:
    title = f"{found['file']}: {found['parameters']} weights, {found['steps']} steps"
    table = Table("metric", "value", title=title + (", interrupted" if found["interrupted"] else ""))
    for name, value in found["measures"].items():
        shown = ", ".join(f"{v:.5g}" for v in value) if isinstance(value, list | tuple) else value
        shown = NOTHING.get(name, "-") if value is None else shown
        table.add_row(name.replace("_", " "), f"{shown:.5g}" if isinstance(shown, float) else str(shown))
    return table
