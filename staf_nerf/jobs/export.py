"""`staf export`: reads a fitted field and writes a file for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from staf_nerf.checkpoint import Checkpoint, field_file, load_field
from staf_nerf.export.fused import fused_file
from staf_nerf.export.network import Network, network_of
from staf_nerf.export.onnx import onnx_model
from staf_nerf.export.page import Precision, largest_difference, rounded
from staf_nerf.export.shader import glsl_function
from staf_nerf.export.sines import sine_file
from staf_nerf.tasks import find_task

Format = Literal["onnx", "sine-safetensors", "tcnn", "glsl", "html"]
SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "sine-safetensors": ".safetensors",
    "tcnn": ".safetensors",
    "glsl": ".glsl",
    "html": ".html",
}
"""File suffix of each format, used when no file name is given."""


@dataclass(frozen=True)
class Export:
    """Writes a fitted field for other programs."""

    checkpoint: Positional[Path]
    """A field.safetensors file written by `staf fit`, or the folder that contains it."""
    to: Format
    """Output format.
    "onnx": an ONNX graph.
    "html": a page that shows an image at any magnification, or a signed distance with an orbiting camera.
    "glsl": a shader function, for small networks.
    "sine-safetensors": the equivalent plain sine network.
    "tcnn": that network in the memory layout of tiny-cuda-nn."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Output file. Defaults to a file beside the checkpoint."""
    overwrite: bool = False
    """Replace the output file if it exists."""
    exact: bool = False
    """HTML only: store all weights in float32, which doubles the file size.
    By default matrices are stored in half precision, and the command prints the resulting error."""
    up: Literal["y", "z"] = "y"
    """HTML only: the axis of a shape that points up."""

    def __post_init__(self) -> None:
        if self.exact and self.to != "html":
            raise ValueError(f"exact needs --to html, got --to {self.to}")

    @property
    def target(self) -> Path:
        """The file that is written."""
        field = field_file(self.checkpoint)
        return self.output or field.with_name(f"{field.stem}-{self.to}{SUFFIXES[self.to]}")


def export_field(job: Export, console: Console | None = None) -> Path:
    """Writes the exported file, prints its size and returns its path.

    Raises:
        ValueError: If the format cannot represent the field. The message gives the reason.
        OSError: If the checkpoint does not exist, or the output exists already or cannot be written.
    """
    console = console or Console()
    checkpoint, target = load_field(job.checkpoint), job.target
    _refuse_present(job)
    content = _content(job, checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    console.print(f"Written: {target}, {len(content) / 1e3:,.0f} kB")
    if job.to == "html" and not job.exact:
        network = network_of(checkpoint.field)
        most, mean = largest_difference(network, rounded(network))
        console.print(f"Half precision changes its values by {mean:.1e} (root mean square), at most {most:.1e}")
    return target


def _refuse_present(job: Export) -> None:
    if job.target.is_dir():
        raise IsADirectoryError(f"output must be a file, {job.target} is a folder")
    if job.target.resolve() == field_file(job.checkpoint).resolve():
        raise ValueError(f"output must be a different file than the checkpoint, got {job.target}")
    if job.target.exists() and not job.overwrite:
        raise FileExistsError(f"{job.target} exists already; --overwrite replaces it")


def _content(job: Export, checkpoint: Checkpoint) -> bytes:
    field, network, about = checkpoint.field, network_of(checkpoint.field), _metadata(job, checkpoint)
    if job.to == "html":
        return _page(job, checkpoint).encode()
    if job.to == "glsl":
        return _function(checkpoint, network, about).encode()
    if job.to == "onnx":
        return onnx_model(network, about)
    return sine_file(field, about) if job.to == "sine-safetensors" else fused_file(field, about)


def _metadata(job: Export, checkpoint: Checkpoint) -> dict[str, str]:
    """Returns texts that say what coordinates and values mean, for the file's metadata."""
    config, frame = checkpoint.config, checkpoint.frame
    coordinates, values = find_task(config.task).meaning(config, frame)
    return {
        "task": config.task,
        "fitted to": checkpoint.file or job.checkpoint.name,
        "frame": json.dumps(asdict(frame)),
        "coordinates": coordinates,
        "values": values,
    }


def _function(checkpoint: Checkpoint, network: Network, about: dict[str, str]) -> str:
    """Returns the GLSL text."""
    config = checkpoint.config
    scale, offset, values = find_task(config.task).shown_values(config, checkpoint.frame)
    title = f"{about['fitted to']} as a network of {network.numbers:,} numbers, by staf_nerf."
    head = [title, f"x: {about['coordinates']}", values]
    return glsl_function(network, head=head, scale=scale, offset=offset)


def _page(job: Export, checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    title = Path(checkpoint.file).name if checkpoint.file else job.checkpoint.stem
    precision: Precision = "float32" if job.exact else "float16"
    task = find_task(config.task)
    return task.page(checkpoint.field, config, checkpoint.frame, title, precision=precision, up=job.up)
