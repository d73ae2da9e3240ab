"""Shapes: the signed distance or the occupancy of a mesh, or the surface through a point cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, nn

from staf_nerf.config import ShapeConfig
from staf_nerf.encodings import finest_cell
from staf_nerf.export.network import network_of
from staf_nerf.export.page import shape_page
from staf_nerf.mesh.clean import repair
from staf_nerf.mesh.export import write_mesh
from staf_nerf.mesh.extract import distance_bound
from staf_nerf.mesh.points import SUFFIXES, PointCloud, read_points
from staf_nerf.mesh.preview import save_preview
from staf_nerf.mesh.source import MeshSource, too_fine
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, TriangleMesh, read_mesh
from staf_nerf.metrics.shape import measure_cells, measure_points, measure_shape
from staf_nerf.signals.shape import (
    Frame,
    PointCloudSignal,
    ShapeSignal,
    check_quantity,
    known_everywhere,
    level,
    make_field,
)
from staf_nerf.tasks.task import Figure, Metrics, Problem, Task

if TYPE_CHECKING:
    from staf_nerf.progress import Stages

FOR_MESHES = ("surface_part", "near_part", "near", "grid", "cached_points", "softness", "eikonal_weight")
"""Options of a `ShapeConfig` without effect on point clouds, which have points on the surface only."""
FOR_DISTANCES = ("softness", "eikonal_weight")
"""Options of a `ShapeConfig` without effect on an occupancy."""
MISSING = {
    "iou": "- (a surface is open)",
    "field_iou": "- (the file has no inside)",
    "grid_iou": "- (the file has no inside)",
    "normal_agreement": "- (the file has no normals)",
}
"""Text shown for each metric that may be missing."""
CUBE = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


@dataclass(frozen=True)
class ShapeOptions:
    """What a fit of a shape writes."""

    resolution: int = 256
    """Number of cells along each axis of the grid on which the surface is extracted."""

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"resolution must be >= 1, got {self.resolution}")


@dataclass(frozen=True, kw_only=True)
class ShapeProblem(Problem):
    """A mesh or a point cloud to fit."""

    frame: Frame
    shape: TriangleMesh | PointCloud
    notes: tuple[str, ...] = ()
    """What was repaired or ignored when the file was read."""

    @property
    def lines(self) -> list[str]:
        shape = self.shape
        if isinstance(shape, TriangleMesh):
            return [f"{len(shape.vertices)} vertices, {len(shape.triangles)} triangles", *self.notes]
        normals = " with normals" if shape.normals is not None else ""
        return [f"{len(shape.points)} points{normals}", *self.notes]

    def signal(self, device: torch.device | str) -> ShapeSignal | PointCloudSignal:
        if isinstance(self.shape, PointCloud):
            return PointCloudSignal(self.shape, self.config, device=device)
        return ShapeSignal(self.shape, self.config, seed=self.seed, device=device)

    def field(self, generator: Generator | None = None) -> nn.Module:
        return make_field(self.config, start_as_sphere=isinstance(self.shape, PointCloud), generator=generator)

    def check(self, field: nn.Module, options: ShapeOptions) -> list[str]:
        try:
            refuse_without_effect(self.config, is_cloud=isinstance(self.shape, PointCloud))
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from error
        source = MeshSource(field, bounds_of(self.config, self.frame), detail=finest_cell(field))
        return too_fine(options.resolution, source.finest(), "the details that the field can hold")

    def epoch_metrics(self, device: torch.device | str) -> Callable[[nn.Module], dict[str, float]]:
        if isinstance(self.shape, PointCloud) or self.config.quantity != "occupancy" or not self.config.grid:
            raise ValueError(
                "metrics after each epoch need a mesh, an occupancy and a grid, whose cells define an epoch"
            )
        surface = Surface(self.shape)

        def metrics(field: nn.Module) -> dict[str, float]:
            found = measure_cells(field, self.config, self.frame, surface)["grid_iou"]
            if found is None:
                raise ValueError(f"metrics after each epoch need a mesh with an inside, and {self.file} has none")
            return {"grid_iou": found}

        return metrics

    def evaluate(self, field: nn.Module, options: ShapeOptions, *, device: torch.device | str) -> Metrics:
        mesh = shape_mesh(field, self.config, self.frame, resolution=options.resolution)
        return self.compare(field, mesh)

    def compare(self, field: nn.Module, mesh: TriangleMesh, progress: Callable[..., None] | None = None) -> Metrics:
        """Returns the metrics of a fitted field and its mesh, compared with the file."""
        if isinstance(self.shape, PointCloud):
            return measure_points(field, self.frame, mesh, self.shape, seed=self.seed)
        return measure_shape(field, self.config, self.frame, mesh, self.shape, seed=self.seed, progress=progress)

    def write(
        self, field: nn.Module, output: Path, options: ShapeOptions, stages: Stages, *, device: torch.device | str
    ) -> tuple[Metrics, list[Figure]]:
        mesh, metrics = None, {}
        figures: list[Figure] = []
        with stages.attempt("surface") as report:
            try:
                mesh = shape_mesh(field, self.config, self.frame, resolution=options.resolution, progress=report)
            except ValueError as error:
                raise ValueError(
                    f"{error}. The fit is kept: `staf mesh {output} --level …` tries another level. A "
                    "longer fit or lower learning rates may give a surface (--overwrite replaces this fit)"
                ) from error
        if mesh is None:
            return metrics, figures
        for name in ("mesh.ply", "mesh.glb"):
            with stages.attempt(name):
                write_mesh(output / name, mesh)
        with stages.attempt("metrics") as report:
            metrics = self.compare(field, mesh, report)
        with stages.attempt("picture"):
            save_preview(output / "preview.png", mesh)
            figures = [("surface of the field, from several sides", output / "preview.png")]
        if metrics.get("stray_part", 0.0) > 0.01:
            stages.console.print(
                f"warning: {100 * metrics['stray_part']:.0f} % of the surface lies far from all points: the fit closed "
                "a hole in the point cloud, or it was too short"
            )
        return metrics, figures


class ShapeTask(Task):
    """Fits the signed distance or the occupancy of a shape. Writes the field, its surface, metrics and a report."""

    name = "shape"
    title = "Shapes"
    coordinates = 3
    config = ShapeConfig()
    options = ShapeOptions()
    metric, digits = "field_iou", 4
    methods = ("shape", "shape+sine")
    weights = 198_717
    missing = MISSING
    results = ("mesh.glb", "mesh.ply", "preview.png")

    def read(self, file: Path, config: ShapeConfig, *, seed: int = 0) -> ShapeProblem:
        shape, notes = read_shape(file)
        if isinstance(shape, PointCloud):
            check_quantity(config)
        return ShapeProblem(
            file=file, config=config, frame=Frame.of(shape.bounds), seed=seed, shape=shape, notes=tuple(notes)
        )

    def frame(self, description: Mapping[str, Any]) -> Frame:
        (x, y, z), (a, b, c) = description["center"], description.get("size", (2.0, 2.0, 2.0))  # older files have none
        return Frame((x, y, z), description["scale"], (a, b, c))

    def field(self, config: ShapeConfig, frame: Frame, *, generator: Generator | None = None) -> nn.Module:
        return make_field(config, generator=generator)

    def sizes(self) -> Frame:
        return Frame((0.0, 0.0, 0.0), 1.0)

    def meaning(self, config: ShapeConfig, frame: Frame) -> tuple[str, str]:
        where = f"(p - {list(frame.center)}) / {frame.scale:g} for a point p of the shape's file"
        if config.quantity == "occupancy":
            return where, "occupancy: 1 inside, 0 outside, the surface at 0.5"
        units = f"times {frame.scale:g} in the file's units"
        return where, f"signed distance, negative inside, in these coordinates; {units}"

    def page(self, field: nn.Module, config: ShapeConfig, frame: Frame, title: str, **options: Any) -> str:
        if config.quantity == "occupancy":
            raise ValueError("--to html needs a signed distance, and an occupancy gives no distance; use --to onnx")
        bound = distance_bound(field, CUBE, next(field.parameters()).device)
        return shape_page(network_of(field), field, bound, title, **options)


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


def _has_faces(path: Path) -> bool:
    """Returns whether the header of a PLY file announces faces."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    header = path.read_bytes()[:65536].partition(b"end_header")[0]
    counts = [line.split()[-1] for line in header.splitlines() if line.startswith(b"element face")]
    return any(count != b"0" for count in counts)


def refuse_without_effect(config: ShapeConfig, *, is_cloud: bool) -> None:
    """Refuses settings that differ from the defaults, and have no effect on this kind of shape or quantity.

    Raises:
        ValueError: If there is one.
    """
    names, where = ((), "")
    if is_cloud:
        names, where = FOR_MESHES, "a point cloud"
    elif config.quantity == "occupancy":
        names, where = FOR_DISTANCES, "an occupancy"
    changed = [name for name in names if getattr(config, name) != getattr(ShapeConfig(), name)]
    if changed:
        raise ValueError(f"options without effect on {where}: {', '.join(changed)}; leave them at their defaults")


def shape_mesh(
    field: nn.Module,
    config: ShapeConfig,
    frame: Frame,
    *,
    resolution: int = 256,
    memory: float = 2e9,
    progress: Callable[[float], None] | None = None,
) -> TriangleMesh:
    """Extracts the surface of a fitted shape, in the shape's own coordinates.

    The keyword arguments are those of `staf_nerf.mesh.extract.extract_mesh`.

    Raises:
        ValueError: If the field has no surface in the cube [-1, 1]³, or an argument is out of range.
    """
    found = shape_source(field, config, frame).surface(resolution=resolution, memory=memory, progress=progress)
    return TriangleMesh(frame.denormalize(found.vertices), found.triangles)


def bounds_of(config: ShapeConfig, frame: Frame) -> Floats:
    """Returns the box (2, 3) of a fitted shape's surface, in the network's coordinates."""
    if not config.grid:
        return CUBE
    half = np.array(frame.size) / 2.0
    return np.stack([-half, half]) + 0.01 * CUBE  # a margin closes the surface where it touches the box


def shape_source(field: nn.Module, config: ShapeConfig, frame: Frame) -> MeshSource:
    """Returns the source for a mesh of a fitted shape, with the transform to the shape's own coordinates."""
    where, inside = level(config)
    to_world = np.diag([frame.scale] * 3 + [1.0])
    to_world[:3, 3] = frame.center
    known, device = known_everywhere(field, config, frame), next(field.parameters()).device
    return MeshSource(
        field=known,
        bounds=bounds_of(config, frame),
        level=where,
        inside=inside,
        lipschitz=None if config.quantity == "occupancy" else distance_bound(known, CUBE, device),
        detail=finest_cell(field),
        device=device,
        to_world=to_world,
    )


TASK = ShapeTask()
