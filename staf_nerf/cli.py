"""The command `staf`."""

from __future__ import annotations

import functools
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, subcommand

from staf_nerf.bench import activation, extraction, linear, mlp, nerf, nerf_speed, report, signals, surface
from staf_nerf.config import AudioConfig, ImageConfig, ShapeConfig
from staf_nerf.jobs import audio, image, shape
from staf_nerf.jobs import evaluate as evaluation
from staf_nerf.jobs import export as export_job
from staf_nerf.jobs import mesh as mesh_job
from staf_nerf.jobs import ntk as ntk_job
from staf_nerf.kernels import library
from staf_nerf.presets import load_preset

MEASURE = {
    activation.ActivationBenchmark: activation.main,
    extraction.ExtractionBenchmark: extraction.main,
    linear.LinearBenchmark: linear.main,
    mlp.MlpBenchmark: mlp.main,
    mlp.ScalingBenchmark: mlp.main,
    nerf.NerfBenchmark: nerf.main,
    nerf_speed.NerfSpeedBenchmark: nerf_speed.main,
    report.Report: report.main,
    signals.ImageBenchmark: signals.main,
    signals.SuperResolutionBenchmark: signals.main,
    signals.DenoiseBenchmark: signals.main,
    signals.AudioBenchmark: signals.main,
    signals.ShapeBenchmark: signals.main,
    surface.SurfaceBenchmark: surface.main,
}
"""The function that runs each benchmark, by the type of its settings."""

SHORT_STEPS, SHORT_FRAMES = 150, 8
"""Largest numbers of steps and frames of a demo if the environment variable STAF_SHORT_DEMO is set."""


def demo(
    *,
    method: str = "staf-nerf",
    data: Path | None = None,
    steps: int = 3800,
    output: Path = Path("outputs/demo"),
    seed: int = 0,
    frames: int = 40,
) -> None:
    """Trains a radiance field on the shipped scene, evaluates it, and makes pictures, a film and a mesh.

    Args:
        method: Preset of the method to train.
        data: Capture to train on. Defaults to the shipped scene, scenes/tin_robot in the repository.
        steps: Number of training steps. The default takes two to five minutes on two cores.
        output: Output folder. Each run gets its own folder in it.
        seed: Random seed.
        frames: Number of frames of the turntable film. 0: no film.
    """
    if os.environ.get("STAF_SHORT_DEMO"):  # a short run of every stage, to check an installation
        steps, frames = min(steps, SHORT_STEPS), min(frames, SHORT_FRAMES)
        print(f"STAF_SHORT_DEMO is set: {steps} steps and {frames} frames")
    with _without_warnings():
        from staf_nerf.plugin import demo as module

    module.demo(method=method, data=data, steps=steps, output=output, seed=seed, frames=frames)


def bench(
    benchmark: OmitSubcommandPrefixes[
        OmitArgPrefixes[
            Annotated[activation.ActivationBenchmark, subcommand("activation")]
            | Annotated[extraction.ExtractionBenchmark, subcommand("extraction")]
            | Annotated[linear.LinearBenchmark, subcommand("linear")]
            | Annotated[mlp.MlpBenchmark, subcommand("mlp")]
            | Annotated[mlp.ScalingBenchmark, subcommand("scaling")]
            | Annotated[nerf.NerfBenchmark, subcommand("nerf")]
            | Annotated[nerf_speed.NerfSpeedBenchmark, subcommand("nerf-speed")]
            | Annotated[report.Report, subcommand("report")]
            | Annotated[signals.ImageBenchmark, subcommand("image")]
            | Annotated[signals.SuperResolutionBenchmark, subcommand("superres")]
            | Annotated[signals.DenoiseBenchmark, subcommand("denoise")]
            | Annotated[signals.AudioBenchmark, subcommand("audio")]
            | Annotated[signals.ShapeBenchmark, subcommand("shape")]
            | Annotated[surface.SurfaceBenchmark, subcommand("surface")]
        ]
    ],
) -> None:
    """Compares quality or cost. It writes JSON and prints a table.

    Args:
        benchmark: What to compare.
    """
    MEASURE[type(benchmark)](benchmark)


FITS: dict[str, tuple[type, Any]] = {
    "image": (image.FitImage, ImageConfig()),
    "audio": (audio.FitAudio, AudioConfig()),
    "superres": (image.FitSuperResolution, ImageConfig(task="superres")),
    "denoise": (image.FitNoisyImage, ImageConfig(task="denoise")),
    "shape": (shape.FitShape, ShapeConfig()),
}
"""For each kind of signal: the class of its job, and the configuration that its presets change."""


def fit_command(arguments: Sequence[str]) -> Callable[..., None]:
    """Returns the function behind `staf fit`. A preset among the arguments sets the defaults of the options."""
    kind = next((argument for argument in arguments if argument in FITS), None)
    preset = _value_of("--preset", arguments)

    def option(name: str) -> Any:
        job, config = FITS[name]
        if preset is None or name != kind:
            return Annotated[job, subcommand(name)]
        return Annotated[job, subcommand(name, default=job(tyro.MISSING, config=load_preset(preset, "cpu", config)))]

    def fit(job: Any) -> None:
        """Fits a field to a signal: an image, a sound or a shape.

        Args:
            job: Kind of signal.
        """
        if isinstance(job, shape.FitShape):
            shape.run(job)
        elif isinstance(job, audio.FitAudio):
            audio.run(job)
        else:
            image.run(job)

    kinds = functools.reduce(operator.or_, map(option, FITS))
    fit.__annotations__["job"] = OmitSubcommandPrefixes[OmitArgPrefixes[kinds]]
    return fit


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Returns the value of an option: the next argument, or the text after "="."""
    for index, argument in enumerate(arguments):
        if argument == option:
            return next(iter(arguments[index + 1 :]), None)
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def evaluate(job: OmitArgPrefixes[evaluation.Evaluate]) -> None:
    """Compares a fitted field with its file again, and prints the metrics of the fit.

    Args:
        job: The field and its file.
    """
    from staf_nerf.bench.record import write

    found = evaluation.run(job)
    if job.output is not None:
        write(found, job.output)


def export(job: OmitArgPrefixes[export_job.Export]) -> None:
    """Writes a fitted field for other programs: ONNX, a page for a browser, GLSL, plain sines.

    Args:
        job: The field and the output format.
    """
    export_job.run(job)


def mesh(
    *,
    load_config: Path | None = None,
    checkpoint: Path | None = None,
    view_pixels: int = 256,
    options: OmitArgPrefixes[mesh_job.MakeMesh],
) -> None:
    """Extracts a clean, coloured mesh from a trained field, in the coordinates of the capture.

    Args:
        load_config: The config.yml file of a run (`ns-train`, `staf demo`).
        checkpoint: The field.safetensors file of a fitted shape (`staf fit shape`), or the folder that contains it.
        view_pixels: Method "fusion": longest side of the depth maps, in pixels.
        options: Settings of the mesh.
    """
    from staf_nerf.checkpoint import load_shape
    from staf_nerf.evaluation import shape_source
    from staf_nerf.mesh.export import check_output

    if (load_config is None) == (checkpoint is None):
        raise ValueError("either --load-config or --checkpoint is needed, and not both")
    check_output(options.output)
    with _without_warnings():
        if checkpoint is not None:
            source = shape_source(*load_shape(checkpoint))
        else:
            assert load_config is not None
            from staf_nerf.plugin.surface import open_run

            source = open_run(load_config, most_pixels=view_pixels)
        mesh_job.run(source, options)


def compare(
    mesh: Positional[Path],
    reference: Positional[Path],
    *,
    icp: bool = False,
    points: int = 200_000,
    seed: int = 0,
    output: Path | None = None,
) -> None:
    """Compares a mesh with a reference mesh: Chamfer distances, F-scores, normals and volumes.

    Args:
        mesh: Mesh file (OBJ, PLY, STL, GLB).
        reference: Reference mesh file. Distances are in its units, F-score thresholds are fractions of its diagonal.
        icp: Align the mesh to the reference first, by a rigid motion (ICP).
        points: Number of points sampled on each surface.
        seed: Random seed of the points.
        output: JSON file for the results.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from staf_nerf.bench.record import write
    from staf_nerf.jobs.progress import Stages
    from staf_nerf.mesh import compare as module
    from staf_nerf.mesh.export import check_writable
    from staf_nerf.mesh.triangles import read_mesh

    if points < 1:
        raise ValueError(f"points must be >= 1, got {points}")
    if output is not None:
        check_writable(output)
    console = Console()
    with Stages(console) as stages:
        with stages("reading"):
            first, second = read_mesh(mesh), read_mesh(reference)
        if icp:
            with stages("alignment"):
                first = module.align(first, second)
        with stages("distances"):
            found = module.compare(first, second, points=points, seed=seed)
    table = Table("metric", "value", title=f"{mesh} compared with {reference}")
    for name, total, (there, back) in (
        ("L1", found.chamfer_l1, found.chamfer_l1_parts),
        ("squared", found.chamfer_squared, found.chamfer_squared_parts),
    ):
        table.add_row(f"Chamfer distance, {name}", f"{total:.6g} (to reference {there:.6g}, back {back:.6g})")
    rows = zip(found.thresholds, found.precision, found.recall, found.f_score, strict=True)
    for radius, precision, recall, score in rows:
        title = f"F-score at {100 * radius:g} % of the diagonal ({radius * found.diagonal:.4g})"
        table.add_row(title, f"{score:.4f} (precision {precision:.4f}, recall {recall:.4f})")
    table.add_row("normal consistency", f"{found.normal_consistency:.4f}")
    open_edges = f"- (a surface is open: {first.boundary_edges} and {second.boundary_edges} boundary edges)"
    table.add_row("intersection over union", f"{found.iou:.4f}" if found.iou is not None else open_edges)
    console.print(table)
    write({"mesh": mesh.name, "reference": reference.name, "icp": icp, **asdict(found)}, output)


def ntk(job: OmitArgPrefixes[ntk_job.CompareKernels]) -> None:
    """Compares the neural tangent kernels of networks: spectra, eigenfunctions and the decay of the error.

    Args:
        job: Networks to compare, and settings.
    """
    ntk_job.run(job)


def doctor() -> None:
    """Checks this installation: tries each component, and says how to install what is missing."""
    from staf_nerf.jobs import doctor as module

    with _without_warnings():
        broken = module.run()
    if broken:
        sys.exit(1)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hides warnings that libraries give about each other."""
    if (reason := library.why_absent()) is not None:  # its own warning would be hidden too
        print(f"staf: {reason}", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Runs the command that the command line names."""
    tyro.extras.subcommand_cli_from_dict(
        {
            "demo": demo,
            "fit": fit_command(sys.argv[2:]) if sys.argv[1:2] == ["fit"] else fit_command(()),
            "eval": evaluate,
            "export": export,
            "mesh": mesh,
            "compare": compare,
            "bench": bench,
            "ntk": ntk,
            "doctor": doctor,
        },
        prog="staf",
    )
