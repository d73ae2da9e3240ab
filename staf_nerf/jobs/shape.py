"""`staf fit shape`: a mesh or a cloud of points in, a field, its surface and their measures out."""

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
from staf_nerf.jobs.fitting import choose_device
from staf_nerf.jobs.output import prepare_folder
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
"""Options of a `ShapeConfig` that a cloud of points does not need: it has points on the surface alone."""
RESULTS = ("mesh.glb", "mesh.ply", "preview.png", FIELD_FILE, "metrics.json")
"""Files of a fit of a shape."""
NOTHING = {
    "iou": "- (a surface is open)",
    "field_iou": "- (the file has no inside)",
    "grid_iou": "- (the file has no inside)",
    "grid_iou_of_best_pass": "- (no pass was done)",
    "normal_agreement": "- (the file has no normals)",
}
"""Why a measure may be missing."""


@dataclass(frozen=True)
class FitShape:
    """Fits the signed distance (or the occupancy) of a shape, and writes its surface, measures and a picture."""

    file: Positional[Path]
    """A mesh (OBJ, PLY, STL, GLB), or points with or without normals (PLY, XYZ, NPZ)."""
    config: OmitArgPrefixes[ShapeConfig] = field(default_factory=lambda: load_preset("shape", "cpu", ShapeConfig()))
    """What is learned, and how."""
    output: Path | None = None
    """Folder for the results; outputs/shape/NAME, if not given."""
    resolution: int = 256
    """Cells of the grid on which the surface is found, along an axis."""
    seed: int = 0
    """Of all random numbers."""
    device: str | None = None
    """"cpu", "cuda", "mps"; what there is, if not given."""
    overwrite: bool = False
    """Whether results that the folder holds already may be replaced."""
    score_passes: bool = False
    """Whether an occupancy's IoU over all cells of its `--grid` is found after each pass over them, too: published
    tables quote the best of them, which nobody who has no truth could choose."""
    preset: str | None = None
    """Preset that the options start from (see method_configs/), or a .toml file; on the command line."""

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"resolution must be >= 1, got {self.resolution}")


def run(job: FitShape) -> dict[str, Any]:
    """Does the job and returns what `metrics.json` holds."""
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
        mesh, measures = None, {}
        with stages.attempt("surface") as report:
            try:
                mesh = shape_mesh(model, job.config, signal.frame, resolution=job.resolution, progress=report)
            except ValueError as error:
                raise ValueError(
                    f"{error}. The fit is kept: `staf mesh --checkpoint {output} --level …` tries another level; a "
                    "longer fit or lower learning rates may give a surface (--overwrite replaces this one)"
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
    (output / "metrics.json").write_text(text + "\n")
    console.print(_table(found))
    if measures.get("stray_part", 0.0) > 0.01:
        console.print(
            f"warning: {100 * measures['stray_part']:.0f} % of the surface lies far from all points: a hole in the "
            "cloud was closed, or it needs a longer fit"
        )
    made = [name for name in RESULTS if (output / name).is_file()]
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
    """The metrics of a fitted field and its mesh against the file."""
    if isinstance(shape, TriangleMesh):
        return measure_shape(model, job.config, frame, mesh, shape, seed=job.seed, progress=report)
    return measure_points(model, frame, mesh, shape, seed=job.seed)


def _score_of(job: FitShape, shape: TriangleMesh | PointCloud) -> Callable[[nn.Module], dict[str, float]]:
    """What is measured after each pass over the cells of a grid.

    Raises:
        ValueError: If there are no cells, or nothing is inside the shape.
    """
    config = job.config
    if isinstance(shape, PointCloud) or config.quantity != "occupancy" or not config.grid:
        raise ValueError("score_passes needs a mesh, an occupancy and a grid, passes over whose cells can be counted")
    surface, frame = Surface(shape), Frame.of(shape.bounds)

    def score(field: nn.Module) -> dict[str, float]:
        found = measure_cells(field, config, frame, surface)["grid_iou"]
        if found is None:
            raise ValueError(f"score_passes needs a mesh with an inside, {job.file} has none")
        return {"grid_iou": found}

    return score


def read_shape(path: Path) -> tuple[TriangleMesh | PointCloud, list[str]]:
    """A mesh, repaired where that is safe, or a cloud of points; and what there is to say about it.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it holds neither.
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
    """What the field is fitted to."""
    if isinstance(shape, PointCloud):
        return PointCloudSignal(shape, config, device=device)
    return ShapeSignal(shape, config, seed=seed, device=device)


def without_effect(shape: TriangleMesh | PointCloud, config: ShapeConfig) -> list[str]:
    """A line that names options which were given and which only meshes need, if the shape is a cloud."""
    if isinstance(shape, TriangleMesh):
        return []
    usual = load_preset("shape", "cpu", ShapeConfig())
    changed = [name for name in FOR_MESHES if getattr(config, name) != getattr(usual, name)]
    return [f"without effect on points: {', '.join(changed)}"] if changed else []


def _has_faces(path: Path) -> bool:
    """Whether a PLY's header promises faces."""
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
    table = Table("measure", "value", title=title + (", interrupted" if found["interrupted"] else ""))
    for name, value in found["measures"].items():
        shown = ", ".join(f"{v:.5g}" for v in value) if isinstance(value, list | tuple) else value
        shown = NOTHING.get(name, "-") if value is None else shown
        table.add_row(name.replace("_", " "), f"{shown:.5g}" if isinstance(shown, float) else str(shown))
    return table
