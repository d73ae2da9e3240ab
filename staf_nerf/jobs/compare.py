"""`staf compare`: compares a mesh with a reference mesh."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional, arg

from staf_nerf.jobs.output import write_json
from staf_nerf.mesh import compare as comparison
from staf_nerf.mesh.export import check_writable
from staf_nerf.mesh.triangles import TriangleMesh, read_mesh
from staf_nerf.progress import Stages


@dataclass(frozen=True)
class CompareMeshes:
    """Compares a mesh with a reference mesh: Chamfer distances, F-scores, normals and volumes."""

    mesh: Positional[Path]
    """Mesh file (OBJ, PLY, STL, GLB)."""
    reference: Positional[Path]
    """Reference mesh file. Distances are in its units, F-score thresholds are fractions of its diagonal."""
    icp: bool = False
    """Align the mesh to the reference first, by a rigid motion (ICP)."""
    points: int = 200_000
    """Number of points sampled on each surface."""
    seed: int = 0
    """Random seed of the points."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """JSON file for the results."""

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points must be >= 1, got {self.points}")


def compare_meshes(job: CompareMeshes) -> dict[str, Any]:
    """Compares the meshes, prints a table, and returns the content of the JSON file."""
    if job.output is not None:
        check_writable(job.output)
    console = Console()
    with Stages(console) as stages:
        with stages("reading"):
            mesh, reference = read_mesh(job.mesh), read_mesh(job.reference)
        if job.icp:
            with stages("alignment"):
                mesh = comparison.align(mesh, reference)
        with stages("distances"):
            found = comparison.compare(mesh, reference, points=job.points, seed=job.seed)
    title = f"{job.mesh} compared with {job.reference}"
    console.print(comparison_table(title, found, mesh, reference))
    results = {"mesh": job.mesh.name, "reference": job.reference.name, "icp": job.icp, **asdict(found)}
    write_json(results, job.output)
    return results


def comparison_table(title: str, found: comparison.Comparison, mesh: TriangleMesh, reference: TriangleMesh) -> Table:
    """Returns the table that is printed on screen."""
    table = Table("metric", "value", title=escape(title))
    for name, total, (there, back) in (
        ("L1", found.chamfer_l1, found.chamfer_l1_parts),
        ("squared", found.chamfer_squared, found.chamfer_squared_parts),
    ):
        table.add_row(f"Chamfer distance, {name}", f"{total:.6g} (to reference {there:.6g}, back {back:.6g})")
    rows = zip(found.thresholds, found.precision, found.recall, found.f_score, strict=True)
    for radius, precision, recall, score in rows:
        name = f"F-score at {100 * radius:g} % of the diagonal ({radius * found.diagonal:.4g})"
        table.add_row(name, f"{score:.4f} (precision {precision:.4f}, recall {recall:.4f})")
    table.add_row("normal consistency", f"{found.normal_consistency:.4f}")
    edges = f"{mesh.boundary_edges} and {reference.boundary_edges} boundary edges"
    iou = f"{found.iou:.4f}" if found.iou is not None else f"- (a surface is open: {edges})"
    table.add_row("intersection over union", iou)
    return table
