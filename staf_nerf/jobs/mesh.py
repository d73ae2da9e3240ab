"""`staf mesh`: extracts a clean, coloured mesh from a trained field, in the coordinates of the capture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from staf_nerf.jobs.output import write_whole
from staf_nerf.machine.cores import shared_cores
from staf_nerf.machine.memory import keep_freed_memory, return_freed_memory
from staf_nerf.mesh.clean import (
    clamped,
    cropped,
    decimated,
    within_hull,
    without_floaters,
    without_small_holes,
    without_unseen,
)
from staf_nerf.mesh.export import check_output, check_writable, write_mesh
from staf_nerf.mesh.fuse import fuse
from staf_nerf.mesh.preview import save_preview
from staf_nerf.mesh.source import FINER, MeshSource, Method, too_fine
from staf_nerf.mesh.texture import LARGEST, SMALLEST, bake, with_vertex_colors
from staf_nerf.mesh.triangles import Floats, TriangleMesh, box_around, moved
from staf_nerf.progress import Stages, peak_memory

TRIANGLES = 3.5
"""Triangles of a surface, per square of the resolution: 3.6 million at 1024 (docs/benchmarks/extraction.md)."""
CUT = 0.1
"""Fraction of the vertices at the bounds above which the user is told. A floor that is cut has some 3 %."""
DECIMATION = 10
"""How many times the triangles that are kept are useful for decimation."""


@dataclass(frozen=True)
class MakeMesh:
    """Settings of a mesh that is extracted from a field."""

    output: Annotated[Path, arg(aliases=["-o"])] = Path("mesh.glb")
    """Output file: .glb, .ply, or .obj (with .mtl and .png).
    A report (.report.json) and a picture (.preview.png) are written beside it."""
    resolution: int = 256
    """Number of cells along the longest side of the box."""
    method: Method | None = None
    """"surface": extract a level set of the field. "fusion": fuse depth maps rendered from the cameras.
    Defaults to the method that suits the model."""
    level: float | None = None
    """Method "surface": value of the field on the surface. Defaults to the value that suits the model.
    The unit of a density is one over the model's unit of length."""
    box: tuple[float, float, float, float, float, float] | None = None
    """Box to keep, in the coordinates of the output: smallest x, y and z, then largest x, y and z.
    Defaults to the region of interest of the capture, with room to spare."""
    frame: Literal["world", "model"] = "world"
    """Coordinates of the output: those of the capture ("world") or those of the model ("model")."""
    hull: bool = False
    """Keep only what lies inside the convex hull of the cameras."""
    keep_unseen: bool = False
    """Keep parts of the surface that no camera sees."""
    keep_parts: int | None = None
    """Largest number of connected parts to keep, the largest first. Defaults to all.
    They are selected before decimation, so that all triangles belong to them."""
    smallest_part: float = 0.05
    """Remove connected parts with a bounding box diagonal below this fraction of the largest part's."""
    holes: float = 0.02
    """Fill holes up to about this width, relative to the diagonal of the mesh's bounding box. 0: fill no holes."""
    triangles: int = 300_000
    """Largest number of triangles. A mesh with more triangles is decimated. 0: no limit."""
    texture: int = 0
    """Side length of a baked texture (GLB and OBJ only), in pixels. 0: colours at the vertices."""
    memory: float = 2e9
    """Method "surface": memory limit of the extraction in bytes, without the memory of the field itself."""

    @property
    def report(self) -> Path:
        return self.output.with_suffix(".report.json")

    @property
    def picture(self) -> Path:
        return self.output.with_suffix(".preview.png")

    def __post_init__(self) -> None:
        for name, least in (("resolution", 1), ("triangles", 0), ("texture", 0), ("keep_parts", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if not 0 < self.memory < math.inf:
            raise ValueError(f"memory must be a positive number of bytes, got {self.memory}")
        if self.level is not None and not math.isfinite(self.level):
            raise ValueError(f"level must be finite, got {self.level}")
        for name in ("smallest_part", "holes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.texture and not SMALLEST <= self.texture <= LARGEST:
            raise ValueError(f"texture must be between {SMALLEST} and {LARGEST} pixels, got {self.texture}")
        if self.texture and self.output.suffix.lower() == ".ply":
            raise ValueError(f"a texture needs a file name that ends in .obj or .glb, got {self.output.name}")
        if self.box is not None:
            low, high = np.asarray(self.box).reshape(2, 3)
            if not (np.isfinite([low, high]).all() and (low < high).all()):
                raise ValueError(f"box must be the smallest x, y, z and then larger x, y, z, got {list(self.box)}")


@shared_cores()
def make_mesh(source: MeshSource, job: MakeMesh, console: Console | None = None) -> dict[str, Any]:
    """Extracts the mesh, writes it with a report and a picture, and returns the report.

    Raises:
        ValueError: If an option is out of range, or no surface is found.
        OSError: If the output cannot be written.
        IncompleteError: If the mesh was written, but another result could not be made.
    """
    console = console or Console()
    keep_freed_memory()
    check_output(job.output)
    check_writable(job.report)
    check_writable(job.picture)
    _check(source, job)
    to_frame = source.to_world if job.frame == "world" else np.eye(4)
    with Stages(console) as stages:
        mesh = _surface(source, job, to_frame, stages)
        return_freed_memory()
        parts = int(mesh.components.max()) + 1
        with stages("cleaning"):
            mesh = _boxed(mesh, cropped, job, to_frame)
            if job.hull:
                assert source.rays is not None
                mesh = within_hull(mesh, np.unique(source.rays[0], axis=0))
            if source.rays is not None and not job.keep_unseen:
                mesh = without_unseen(mesh, *source.rays)
            mesh = without_floaters(mesh, smallest=job.smallest_part, most=job.keep_parts)
            _refuse_empty(mesh, "cropping and cleaning")
            mesh, holes = without_small_holes(mesh, job.holes)
        found_parts = int(mesh.components.max()) + 1
        if job.triangles and len(mesh.triangles) > job.triangles:
            with stages.attempt("decimation"):
                fewer = decimated(mesh, job.triangles)
                mesh = _boxed(fewer, clamped, job, to_frame)  # decimation moves vertices, also those at the cut
                if job.keep_parts is not None:  # it may also split a part
                    mesh = without_floaters(mesh, smallest=0.0, most=job.keep_parts)
                if len(mesh.triangles) > job.triangles:
                    console.print(f"warning: {len(mesh.triangles)} triangles are left, fewer would not keep the shape")
            _refuse_empty(mesh, f"decimation to {job.triangles} triangles")
        texture = None
        if job.texture:
            with stages.attempt("texture"):
                assert source.color is not None
                texture = bake(mesh, source.color, size=job.texture)
        coloured = mesh
        if source.color is not None and mesh.colors is None:
            with stages.attempt("colours"):
                coloured = with_vertex_colors(mesh, source.color)
        placed = moved(mesh if texture is not None else coloured, to_frame)
        with stages("writing"):
            files = write_mesh(job.output, placed, texture)
        for old in (job.picture, job.report):
            old.unlink(missing_ok=True)
        with stages.attempt("picture"):
            axes = to_frame[:3, :3] / np.linalg.norm(to_frame[:3, :3], axis=1, keepdims=True)
            save_preview(job.picture, coloured, up=source.up, axes=axes)
    found = report(placed)
    found |= {
        "colors": "texture" if texture is not None else found["colors"],
        "parts_left_out": parts - found_parts,
        "holes_filled": holes,
        "file": job.output.name,
        "frame": job.frame,
        "model_to_world": source.to_world.tolist(),
        "method": job.method or source.method,
        "resolution": job.resolution,
        "seconds": {name: round(seconds, 3) for name, seconds in stages.seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "failed": stages.failed,
    }
    console.print(_table(found))
    with stages.attempt("report"):
        write_whole(job.report, json.dumps(found, indent=1) + "\n")
    beside = [path for path in (job.report, job.picture) if path.is_file()]
    console.print(f"Written: {', '.join(map(str, (*files, *beside)))}", soft_wrap=True)
    stages.refuse_failures()
    return found


def _check(source: MeshSource, job: MakeMesh) -> None:
    """Refuses options that the source cannot serve, before any work is done."""
    method = job.method or source.method
    if method == "fusion" and source.views is None:
        raise ValueError("method 'fusion' needs cameras, and this field has none; use 'surface'")
    if method == "fusion" and job.level is not None:
        raise ValueError("level has no effect with method 'fusion', only with 'surface'")
    if job.hull and source.rays is None:
        raise ValueError("hull needs cameras, and this field has none")
    if job.texture and source.color is None:
        raise ValueError("a texture needs a field with colours, and this one has none")


def _surface(source: MeshSource, job: MakeMesh, to_frame: Floats, stages: Stages) -> TriangleMesh:
    bounds = _bounds(source, job, to_frame)
    mesh = _found(source, job, bounds, stages)
    cut = _cut(mesh, bounds, job.resolution)
    if job.box is None and cut > CUT:
        stages.console.print(
            f"warning: {cut:.0%} of the vertices lie where the mesh is cut, at the bounds of the region of interest. "
            "--box names larger bounds, in the coordinates of the output"
        )
    return mesh


def _cut(mesh: TriangleMesh, bounds: Floats, resolution: int) -> float:
    """Returns the fraction of the vertices that lie within two cells of the bounds."""
    cell = float(np.ptp(bounds, axis=0).max()) / resolution
    inner = bounds + 2.0 * cell * np.array([[1.0], [-1.0]])
    return float(((mesh.vertices < inner[0]) | (mesh.vertices > inner[1])).any(-1).mean())


def _bounds(source: MeshSource, job: MakeMesh, to_frame: Floats) -> Floats:
    """Returns the box of the surface in model coordinates: that of the source, or the one that is asked for."""
    bounds = source.bounds
    if job.box is not None:
        box = box_around(np.asarray(job.box).reshape(2, 3), np.linalg.inv(to_frame))
        limits = bounds if source.limits is None else source.limits
        bounds = np.stack([np.maximum(box[0], limits[0]), np.minimum(box[1], limits[1])])
        if not (bounds[0] < bounds[1]).all():
            raise ValueError(f"box {list(job.box)} lies outside the bounds of the field")
    return bounds


def _found(source: MeshSource, job: MakeMesh, bounds: Floats, stages: Stages) -> TriangleMesh:
    """Returns the surface within bounds, in model coordinates."""
    if (job.method or source.method) == "fusion":
        assert source.views is not None
        with stages("views") as progress:
            _warn_of_small_voxels(source, job, bounds, stages.console)
            return fuse(
                source.views(), bounds=bounds, resolution=job.resolution, count=source.view_count, progress=progress
            )
    for line in too_fine(job.resolution, *_finest(source, job, bounds)):
        stages.console.print(line)
    with stages("surface") as progress:
        return source.surface(
            bounds=bounds, level=job.level, resolution=job.resolution, memory=job.memory, progress=progress
        )


def _warn_of_small_voxels(source: MeshSource, job: MakeMesh, bounds: Floats, console: Console) -> None:
    """Prints a warning if the voxels of a fusion are much smaller than the views' pixels, before these are rendered."""
    pixel = math.inf if source.view_pixel is None else source.view_pixel(bounds)
    finest = max(round(float(np.ptp(bounds, axis=0).max()) / pixel), 1)
    if math.isfinite(pixel) and job.resolution > FINER * finest:
        console.print(
            f"warning: at resolution {job.resolution} the voxels are much finer than the views' pixels, which "
            f"leaves gaps and loose bits. Use --resolution {finest}, or larger views (--view-pixels)"
        )


def _finest(source: MeshSource, job: MakeMesh, bounds: Floats) -> tuple[float, str]:
    """Returns the finest useful resolution of a level set, and what it is limited by.

    A field without a grid has no finest detail. There the triangles that are kept are the limit.
    """
    if source.detail is None and job.triangles:
        return round(math.sqrt(DECIMATION * job.triangles / TRIANGLES)), f"{job.triangles} triangles (--triangles) show"
    return source.finest(bounds), "the details that the field can hold"


def report(mesh: TriangleMesh) -> dict[str, Any]:
    """Returns the counts and sizes of a mesh as JSON values. The volume is None unless the mesh is closed."""
    return {
        "vertices": len(mesh.vertices),
        "triangles": len(mesh.triangles),
        "components": int(mesh.components.max()) + 1,
        "watertight": mesh.watertight,
        "boundary_edges": mesh.boundary_edges,
        "volume": mesh.volume if mesh.watertight else None,
        "area": float(mesh.areas.sum()),
        "bounds": mesh.bounds.tolist(),
        "extent": (mesh.bounds[1] - mesh.bounds[0]).tolist(),
        "colors": "vertices" if mesh.colors is not None else None,
    }


def _boxed(mesh: TriangleMesh, change: Callable[..., TriangleMesh], job: MakeMesh, to_frame: Floats) -> TriangleMesh:
    """Applies a function of a mesh and a box in the output's coordinates, if the job has a box."""
    if job.box is None:
        return mesh
    return moved(change(moved(mesh, to_frame), np.asarray(job.box).reshape(2, 3)), np.linalg.inv(to_frame))


def _refuse_empty(mesh: TriangleMesh, after: str) -> None:
    if not len(mesh.triangles):
        raise ValueError(f"nothing of the mesh is left after {after}")


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=found["file"], show_header=False)
    counts = ("vertices", "triangles", "components", "parts_left_out", "holes_filled", "watertight")
    for name in (*counts, "volume", "area", "extent", "frame", "method"):
        value = found[name]
        if isinstance(value, list):
            value = " x ".join(f"{v:.4g}" for v in value)
        shown = f"{value:.5g}" if isinstance(value, float) else "-" if value is None else f"{value}"
        table.add_row(name.replace("_", " "), shown)
    table.add_row("seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["seconds"].items()))
    if found["peak_memory_bytes"] is not None:
        table.add_row("peak memory", f"{found['peak_memory_bytes'] / 1e9:.2f} GB")
    return table
