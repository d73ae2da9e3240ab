"""The command `staf`: turns arguments into one call for each command. Nothing is computed here."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import operator
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

from staf_nerf.config import BUDGETS
from staf_nerf.jobs import capture as capture_job
from staf_nerf.jobs import check as check_job
from staf_nerf.jobs import compare as compare_job
from staf_nerf.jobs import evaluate as evaluate_job
from staf_nerf.jobs import export as export_job
from staf_nerf.jobs import fit as fit_job
from staf_nerf.jobs import mesh as mesh_job
from staf_nerf.jobs import ntk as ntk_job
from staf_nerf.jobs.output import write_json
from staf_nerf.kernels import library
from staf_nerf.migrations import MOVED, RENAMED, option_value
from staf_nerf.presets import load_preset, resolved
from staf_nerf.tasks import Task, tasks

STYLE = (FlagCreatePairsOff,)
"""A switch has one option: --flag, or --no-flag if it is on."""
VIEW_PIXELS = 256
"""Longest side of the depth maps that are fused, in pixels."""
SHORT_STEPS, SHORT_FRAMES = 150, 8
"""Largest numbers of steps and frames of a demo if the environment variable STAF_SHORT_DEMO is set."""


def demo(
    *,
    data: Annotated[Path | None, Positional, arg(metavar="[CAPTURE]")] = None,
    method: str = "staf-nerf",
    steps: int = 3800,
    output: Annotated[Path, arg(aliases=["-o"])] = Path("outputs/demo"),
    seed: int = 0,
    frames: int = 40,
) -> None:
    """Trains a radiance field on the shipped scene, evaluates it, and makes pictures, a film and a mesh.

    Args:
        data: Capture to train on. Defaults to the shipped scene, scenes/tin_robot in the repository.
        method: Preset of the method to train.
        steps: Number of training steps. The default takes two to five minutes on two cores.
        output: Output folder. Each run gets its own folder in it.
        seed: Random seed.
        frames: Number of frames of the turntable film. 0: no film.
    """
    if os.environ.get("STAF_SHORT_DEMO"):  # a short run of every stage, to check an installation
        steps, frames = min(steps, SHORT_STEPS), min(frames, SHORT_FRAMES)
        print(f"STAF_SHORT_DEMO is set: {steps} steps and {frames} frames")
    with _without_warnings():
        from staf_nerf.jobs import demo as module

    module.demo(method=method, data=data, steps=steps, output=output, seed=seed, frames=frames)


def capture(job: OmitArgPrefixes[capture_job.CapturePhotos]) -> None:
    """Finds the cameras of photos or of a video, and writes a capture to train on.

    Args:
        job: The photos, and how their cameras are found.
    """
    capture_job.capture_photos(job)


def fit() -> None:
    """Fits a field to a signal: an image, a sound or a shape."""
    arguments = sys.argv[2:]
    chosen = next((argument for argument in arguments if argument in tasks()), None)
    configs = {name: task.config for name, task in tasks().items()}
    if chosen is not None:
        configs[chosen] = _with_budget(
            load_preset(_value_of("--preset", arguments) or chosen, "cpu", configs[chosen]), arguments
        )
    kinds = [_fit_of(task, configs[name]) for name, task in tasks().items()]
    job = _choose("staf fit", fit, kinds, arguments)
    config = resolved(job.config, configs[job.task.name])
    fit_job.refuse_without_effect(config, [name for name in vars(config) if _is_given(name, arguments)])
    fit_job.fit_files(dataclasses.replace(job, config=config))


def _fit_of(task: Task, config: Any) -> Any:
    """Returns the subcommand that fits a kind of signal, with the defaults of a preset."""
    advanced = fit_job.Advanced() if task.stacks else fit_job.OneAtATime()
    default = fit_job.Fit(tyro.MISSING, config, task.options, advanced=advanced)
    kind = fit_job.Fit[type(config), type(task.options)]
    return Annotated[kind, subcommand(task.name, default=default, description=type(task).__doc__)]


def _with_budget(config: Any, arguments: Sequence[str]) -> Any:
    """Returns the configuration without its budget if the arguments give another one, which then replaces it."""
    given = {name: 1 for name in BUDGETS if _value_of(f"--{name}", arguments) is not None}
    return dataclasses.replace(config, fit=config.fit.lasting(**given)) if given else config


def bench() -> None:
    """Compares quality or cost. It writes JSON and prints a table."""
    from staf_nerf.bench import signals
    from staf_nerf.bench.commands import BENCHMARKS

    kinds: dict[str, Any] = {
        name: Annotated[benchmark, subcommand(name)] for name, (benchmark, _) in BENCHMARKS.items()
    }
    for name, task in tasks().items():
        default = signals.benchmark_of(task, tyro.MISSING)
        about = f"Compares methods of the task {name}, at equal cost."
        kinds[name] = Annotated[signals.SignalBenchmark, subcommand(name, default=default, description=about)]
    benchmark = _choose("staf bench", bench, [kinds[name] for name in sorted(kinds)], sys.argv[2:])
    run = {kind: main for kind, main in BENCHMARKS.values()} | {signals.SignalBenchmark: signals.main}
    run[type(benchmark)](benchmark)


def _choose(prog: str, command: Callable[[], None], kinds: Sequence[Any], arguments: Sequence[str]) -> Any:
    """Returns the settings that the arguments give, of one of several kinds."""
    union = OmitSubcommandPrefixes[OmitArgPrefixes[functools.reduce(operator.or_, kinds)]]
    with _plain_errors():
        return tyro.cli(union, prog=prog, description=command.__doc__, args=arguments, config=STYLE)  # pyright: ignore


def _is_given(key: str, arguments: Sequence[str]) -> bool:
    """Returns whether the arguments give a value of a setting."""
    return _value_of(f"--{key.replace('_', '-')}", arguments) is not None


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Returns the value of an option: the next argument, or the text after "="."""
    for index, argument in enumerate(arguments):
        if argument == option:
            return next(iter(arguments[index + 1 :]), None)
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
    return None


def evaluate(job: OmitArgPrefixes[evaluate_job.Evaluate]) -> None:
    """Compares a fitted field with its file again, or a run with its held-out views, and prints the metrics.

    Args:
        job: The field and its file, or the run.
    """
    with _without_warnings():
        found = evaluate_job.evaluate(job)
    if job.output is not None:
        write_json(found, job.output)


def export(job: OmitArgPrefixes[export_job.Export]) -> None:
    """Writes a fitted field for other programs: ONNX, a page for a browser, GLSL, plain sines.

    Args:
        job: The field and the output format.
    """
    export_job.export_field(job)


def mesh(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    *,
    view_pixels: int | None = None,
    options: OmitArgPrefixes[mesh_job.MakeMesh],
) -> None:
    """Extracts a clean, coloured mesh from a trained field, in the coordinates of the capture.

    Args:
        run: The config.yml of a run (`ns-train`, `staf demo`) or the field.safetensors of a fitted shape.
            Or the folder that contains it.
        view_pixels: Method "fusion": longest side of the depth maps, in pixels. Defaults to 256.
        options: Settings of the mesh.
    """
    from staf_nerf.checkpoint import field_file, load_shape
    from staf_nerf.mesh.export import check_output
    from staf_nerf.tasks.shape import shape_source

    check_output(options.output)
    is_shape = run.suffix == ".safetensors" or (field_file(run).is_file() and run.is_dir())
    if is_shape and view_pixels is not None:
        raise ValueError(f"--view-pixels has no effect on a fitted shape, which has no views: {run}")
    with _without_warnings():
        if is_shape:
            source = shape_source(*load_shape(run))
        else:
            from staf_nerf.plugin.mesh_source import open_run

            source = open_run(run, most_pixels=view_pixels or VIEW_PIXELS)
        mesh_job.make_mesh(source, options)


def compare(job: OmitArgPrefixes[compare_job.CompareMeshes]) -> None:
    """Compares a mesh with a reference mesh: Chamfer distances, F-scores, normals and volumes.

    Args:
        job: The meshes.
    """
    compare_job.compare_meshes(job)


def ntk(job: OmitArgPrefixes[ntk_job.CompareKernels]) -> None:
    """Compares the neural tangent kernels of networks: spectra, eigenfunctions and the decay of the error.

    Args:
        job: Networks to compare, and settings.
    """
    ntk_job.compare_kernels(dataclasses.replace(job, config=resolved(job.config, ntk_job.CompareKernels().config)))


def check(job: OmitArgPrefixes[check_job.Check]) -> None:
    """Checks a capture before training: what it holds, what is wrong with it, and what training on it costs here.

    Args:
        job: The capture and settings.
    """
    with _without_warnings():
        check_job.check_capture(job)


def doctor() -> None:
    """Checks this installation: tries each component, and says how to install what is missing."""
    from staf_nerf.jobs import doctor as module

    module.main()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raises the error of settings that refuse a value, as other errors are raised.

    tyro shows it in a box, with a name of its own for the settings, and exits. What tyro says of arguments that it
    cannot read stays as it is.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as end:
        if (refusal := _refusal(end)) is not None:
            raise refusal from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise
    print(said.getvalue(), end="", file=sys.stderr)


def _refusal(error: BaseException | None) -> ValueError | None:
    """Returns the error of our settings among those that led to an error, or None if there is none."""
    while error is not None:
        if isinstance(error, ValueError):
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_globals.get("__name__", "").startswith("staf_nerf."):
                return error
        error = error.__context__
    return None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hides warnings that libraries give about each other."""
    if (reason := library.why_absent()) is not None:  # its own warning would be hidden too
        print(f"staf: {reason}", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def refuse_old_options(command: str, arguments: Sequence[str]) -> None:
    """Refuses options of earlier versions.

    Raises:
        ValueError: If there is one. The message says how the same is written now.
    """
    for argument, after in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option, equals, value = argument.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--"):
            continue
        if (now := OLD_OPTIONS.get(command, {}).get(key)) is None and command in ("fit", "ntk"):
            now = _field_option(key, value if equals else after, arguments)
        if now is not None:
            raise ValueError(f"{option} is not an option any more; write: {now}")


def _field_option(key: str, value: str, arguments: Sequence[str]) -> str | None:
    """Returns how an option of a field of an earlier version is written now."""
    if key in RENAMED:
        return f"--{RENAMED[key].replace('_', '-')} {value}"
    if key not in MOVED:
        return None
    kind, options = MOVED[key]
    chosen = (_value_of(f"--{kind}", arguments) or "").partition(":")[0]
    name = chosen if chosen in options else next(iter(options))
    return f"--{kind} {name}:{options[name]}={option_value(key, value)}"


OLD_OPTIONS: dict[str, dict[str, str]] = {
    "demo": {"data": "staf demo CAPTURE"},
    "mesh": {"load_config": "staf mesh RUN", "checkpoint": "staf mesh RUN"},
    "ntk": {"compare": "staf ntk NETWORK [NETWORK ...]"},
    "bench": {"files": "staf bench KIND FILE [FILE ...]", "data": "staf bench KIND CAPTURE"},
}
"""Options of earlier versions by command, and how the same is written now; those of fields are in `migrations`."""

OF_SEVERAL_KINDS: dict[str, Callable[[], None]] = {"fit": fit, "bench": bench}
"""Commands that read their arguments themselves: these depend on the kinds of signal and on a preset."""


def main() -> None:
    """Runs the command that the command line names."""
    name = next(iter(sys.argv[1:]), "")
    refuse_old_options(name, sys.argv[2:])
    if name in OF_SEVERAL_KINDS:
        OF_SEVERAL_KINDS[name]()
        return
    commands: dict[str, Callable[..., None]] = {
        "demo": demo,
        "capture": capture,
        "check": check,
        "fit": fit,
        "eval": evaluate,
        "export": export,
        "mesh": mesh,
        "compare": compare,
        "bench": bench,
        "ntk": ntk,
        "doctor": doctor,
    }
    with _plain_errors():
        run = tyro.extras.subcommand_cli_from_dict(
            {name: _prepared(command) for name, command in commands.items()}, prog="staf", config=STYLE
        )
    run()


def _prepared(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Returns a function with the arguments of a command. It returns the call of the command, and does not run it."""

    @functools.wraps(command)
    def prepared(*arguments: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *arguments, **options)

    return prepared
