"""`staf export`: reads a fitted field and writes a file for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from staf_nerf.checkpoint import Checkpoint, field_file, load_field
from staf_nerf.config import AudioConfig, ImageConfig, ShapeConfig
from staf_nerf.evaluation import CUBE, distance_bound
from staf_nerf.export.fused import fused_file
from staf_nerf.export.network import Network, network_of
from staf_nerf.export.onnx import onnx_model
from staf_nerf.export.page import Precision, image_page, largest_difference, rounded, shape_page
from staf_nerf.export.shader import glsl_function
from staf_nerf.export.sines import sine_file

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


def run(job: Export, console: Console | None = None) -> Path:
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
        return _page(job, checkpoint, network).encode()
    if job.to == "glsl":
        return _function(checkpoint, network, about).encode()
    if job.to == "onnx":
        return onnx_model(network, about)
    return sine_file(field, about) if job.to == "sine-safetensors" else fused_file(field, about)


def _metadata(job: Export, checkpoint: Checkpoint) -> dict[str, str]:
    """Returns texts that say what coordinates and values mean, for the file's metadata."""
    config, frame = checkpoint.config, checkpoint.frame
    return {
        "task": config.task,
        "fitted to": checkpoint.file or job.checkpoint.name,
        "frame": json.dumps(asdict(frame)),
        "coordinates": _meaning(checkpoint)[0],
        "values": _meaning(checkpoint)[1],
    }


def _meaning(checkpoint: Checkpoint) -> tuple[str, str]:
    """Returns one sentence about the coordinates and one about the values."""
    config, frame = checkpoint.config, checkpoint.frame
    if isinstance(config, ImageConfig):
        sides = "both sides, between their outermost pixel centres" if frame.corners else "the longer side"
        where = f"(x, y), x to the right and y down, relative to the image's centre; [-1, 1] is {sides}"
        ends = f"{frame.floor:g} is the file's value {frame.low:g}, 1 is its value {frame.high:g}"
        return where, f"{frame.channels} channels; {ends}"
    if isinstance(config, AudioConfig):
        return f"time: [-1, 1] are the {frame.samples} samples", f"{frame.channels} channels; 1 is {frame.peak:g}"
    where = f"(p - {list(frame.center)}) / {frame.scale:g} for a point p of the shape's file"
    if config.quantity == "occupancy":
        return where, "occupancy: 1 inside, 0 outside, the surface at 0.5"
    return where, f"signed distance, negative inside, in these coordinates; times {frame.scale:g} in the file's units"


def _function(checkpoint: Checkpoint, network: Network, about: dict[str, str]) -> str:
    """Returns the GLSL text. For an image the function gives unclipped colours in [0, 1], else the field's values."""
    scale, offset = 1.0, 0.0
    title = f"{about['fitted to']} as a network of {network.numbers:,} numbers, by staf_nerf."
    head = [title, f"x: {about['coordinates']}"]
    if isinstance(checkpoint.config, ImageConfig):
        floor = checkpoint.frame.floor
        scale, offset = 1.0 / (1.0 - floor), -floor / (1.0 - floor)
        head.append(f"Gives {checkpoint.frame.channels} channels, mapped to [0, 1] and not clipped.")
    else:
        head.append(f"Gives {about['values']}")
    return glsl_function(network, head=head, scale=scale, offset=offset)


def _page(job: Export, checkpoint: Checkpoint, network: Network) -> str:
    config, field = checkpoint.config, checkpoint.field
    title = Path(checkpoint.file).name if checkpoint.file else job.checkpoint.stem
    precision: Precision = "float32" if job.exact else "float16"
    if isinstance(config, ImageConfig):
        return image_page(network, field, checkpoint.frame, title, precision=precision)
    if isinstance(config, ShapeConfig) and config.quantity == "signed-distance":
        bound = distance_bound(field, CUBE, next(field.parameters()).device)
        return shape_page(network, field, bound, title, up=job.up, precision=precision)
    what = "an occupancy, which gives no distance to the surface" if isinstance(config, ShapeConfig) else "a sound"
    raise ValueError(f"--to html needs an image or a signed distance, got {what}; use --to onnx")
