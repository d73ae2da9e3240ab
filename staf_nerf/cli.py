"""The command `staf`."""

from __future__ import annotations

import functools
import operator
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
"""What runs a benchmark, by the type of its settings."""


def demo(
    *,
    method: str = "staf-nerf",
    data: Path | None = None,
    steps: int = 3800,
    output: Path = Path("outputs/demo"),
    seed: int = 0,
    frames: int = 40,
) -> None:
    """Trains a radiance field on the scene that is shipped, evaluates it and makes pictures, a film and a mesh of it.

    Args:
        method: Preset to train.
        data: Capture to train on; the scene that is shipped, if not given.
        steps: Training steps; 3800 take two to four minutes of two cores.
        output: Folder for the results.
        seed: Of all random numbers.
        frames: Frames of the turntable film; 0: no film.
    """
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
    """Compares quality or cost; JSON out, a table on screen.

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
"""Kinds of signals, what fits them, and what their presets change."""


def fit_command(arguments: Sequence[str]) -> Callable[..., None]:
    """`staf fit`, whose options start from the preset that the arguments name."""
    kind = next((argument for argument in arguments if argument in FITS), None)
    preset = _value_of("--preset", arguments)

    def option(name: str) -> Any:
        job, config = FITS[name]
        if preset is None or name != kind:
            return Annotated[job, subcommand(name)]
        return Annotated[job, subcommand(name, default=job(tyro.MISSING, config=load_preset(preset, "cpu", config)))]

    def fit(job: Any) -> None:
        """Fits a field to a signal: an image, a sound, a shape.

        Args:
            job: What to fit, and how.
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
    """What stands after an option, or after it and "="."""
    for index, argument in enumerate(arguments):
        if argument == option:
            return next(iter(arguments[index + 1 :]), None)
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def evaluate(job: OmitArgPrefixes[evaluation.Evaluate]) -> None:
    """Measures a fitted field against the file that it was fitted to: the numbers of the fit.

    Args:
        job: What to measure.
    """
    from staf_nerf.bench.record import write

    found = evaluation.run(job)
    if job.output is not None:
        write(found, job.output)


def export(job: OmitArgPrefixes[export_job.Export]) -> None:
    """Writes a fitted field for other programs: ONNX, a page for a browser, GLSL, plain sines.

    Args:
        job: What to write.
    """
    export_job.run(job)


def mesh(
    *,
    load_config: Path | None = None,
    checkpoint: Path | None = None,
    view_pixels: int = 256,
    options: OmitArgPrefixes[mesh_job.MakeMesh],
) -> None:
    """Makes a mesh of a trained field: clean, coloured, in the capture's own coordinates.

    Args:
        load_config: A run's config.yml (`ns-train`, `staf demo`).
        checkpoint: A fitted shape's field.safetensors (`staf fit shape`), or the folder that it lies in.
        view_pixels: Longest side of the views that are rendered where depths are fused.
        options: How the mesh is made.
    """
    from staf_nerf.checkpoint import load_shape
    from staf_nerf.evaluation import shape_source
    from staf_nerf.mesh.export import check_output

    if (load_config is None) == (checkpoint is None):
        raise ValueError("one of --load-config and --checkpoint is needed")
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
    """Compares a mesh with a reference: Chamfer distances, F-scores, normals, volumes.

    Args:
        mesh: File (OBJ, PLY, STL, GLB).
        reference: File; distances are in its units, radii parts of its box's diagonal.
        icp: Moves the mesh rigidly onto the reference first.
        points: Points on each surface.
        seed: Of the points.
        output: JSON file.
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
    table = Table("measure", "value", title=f"{mesh} against {reference}")
    for name, total, (there, back) in (
        ("L1", found.chamfer_l1, found.chamfer_l1_parts),
        ("squared", found.chamfer_squared, found.chamfer_squared_parts),
    ):
        table.add_row(f"Chamfer distance, {name}", f"{total:.6g} (there {there:.6g}, back {back:.6g})")
    rows = zip(found.thresholds, found.precision, found.recall, found.f_score, strict=True)
    for radius, precision, recall, score in rows:
        title = f"F-score at {100 * radius:g} % of the diagonal ({radius * found.diagonal:.4g})"
        table.add_row(title, f"{score:.4f} (precision {precision:.4f}, recall {recall:.4f})")
    table.add_row("normal consistency", f"{found.normal_consistency:.4f}")
    open_edges = f"a surface is open: {first.boundary_edges} and {second.boundary_edges} boundary edges"
    table.add_row("intersection over union", f"{found.iou:.4f}" if found.iou is not None else open_edges)
    console.print(table)
    write({"mesh": mesh.name, "reference": reference.name, "icp": icp, **asdict(found)}, output)


def ntk(job: OmitArgPrefixes[ntk_job.CompareKernels]) -> None:
    """Compares what networks learn first: spectra of their tangent kernels, eigenfunctions, decay of the error.

    Args:
        job: What to compare, and where.
    """
    ntk_job.run(job)


def doctor() -> None:
    """Says what this machine and installation use: the device, the kernels, the versions of what matters."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch
    from rich.console import Console
    from rich.table import Table

    from staf_nerf.encodings import choose_implementation
    from staf_nerf.kernels import library, triton_is_here
    from staf_nerf.kernels.linear import GAIN, relative_time

    with _without_warnings():
        from staf_nerf.plugin.methods import detect_device
    from staf_nerf.presets import preset_names

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    native = "plain torch: it was installed without a C compiler"
    if library.library() is not None:
        native = f"native, {library.LEVELS[library.level()]}, {torch.get_num_threads()} threads"
    relative = relative_time(False, 4096, 256, 256, torch.get_num_threads())
    way = "1 x 1 convolutions" if relative < GAIN else "torch's own"
    on_cuda = "no CUDA device"
    if torch.cuda.is_available():
        on_cuda = f"Triton {installed('triton')}" if triton_is_here() else "plain torch"
    table = Table(show_header=False)
    for name, value in {
        "staf_nerf": f"{installed('staf-nerf')}, Python {platform.python_version()}, {platform.platform()}",
        "torch": torch.__version__,
        "nerfstudio": installed("nerfstudio"),
        "device": detect_device(),
        "kernels on the CPU": native,
        "kernels on CUDA": on_cuda,
        "linear layers": f"{way}: as convolutions they take {relative:.2f} of the time (4096 x 256 by 256)",
        "hash grids": {"tcnn": "tiny-cuda-nn", "torch": "our own"}[choose_implementation("auto")],
        "methods": ", ".join(preset_names()),
    }.items():
        table.add_row(name, value)
    Console().print(table)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Holds back what libraries say about each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Entry point of `staf`."""
    try:
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
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"staf: {error}")
    except MemoryError as error:
        sys.exit(f"staf: there is not enough memory: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
