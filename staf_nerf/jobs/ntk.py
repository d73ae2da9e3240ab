"""`staf ntk`: compares the tangent kernels of networks, and training with what the kernels predict."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor, nn
from tyro.conf import OmitArgPrefixes, Positional, arg

from staf_nerf.activations import ACTIVATIONS
from staf_nerf.checkpoint import load_field
from staf_nerf.config import ENCODINGS, FieldConfig
from staf_nerf.fields import NeuralField
from staf_nerf.figures import kernels as kernel_figures
from staf_nerf.files.image import read_image
from staf_nerf.jobs.output import prepare_folder, write_page
from staf_nerf.layers import LinearMap
from staf_nerf.presets import override
from staf_nerf.progress import Stages, peak_memory
from staf_nerf.signals.raster import Raster
from staf_nerf.tasks import find_task
from staf_nerf.theory.descent import Compared, bands, compare

ALSO_CALLED = {"siren": "sine", "wire": "gabor", "mfn": "filter", "pe": "octaves", "ff": "fourier", "none": "identity"}
"""Alternative names of activations and encodings."""

TITLE = """tangent kernels: trace, effective rank (Σλ)² / Σλ², eigenvalues above 1e-4 of the largest, trace share
of C, Ω and Φ; gradient descent: final error (initially 1), measured and predicted ("foretold"); change of the kernel"""
"""Title of the table: it explains the columns."""


@dataclass(frozen=True)
class CompareKernels:
    """Compares the neural tangent kernels of networks on a grid of pixels."""

    compare: Annotated[Positional[tuple[str, ...]], arg(metavar="[NETWORK ...]")] = (
        "staf",
        "sine",
        "relu",
        "relu-octaves",
    )
    """Networks to compare, at initialisation unless they are files.
    An activation ("staf", "siren"), with an encoding after a hyphen ("relu-pe", "relu-ff").
    Or a field.safetensors file of a fitted image or shape (a shape is evaluated on the plane z = 0)."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("outputs/ntk")
    """Output folder."""
    size: int = 32
    """Number of points along the longer axis of the grid. A size of 64 takes about a minute per network."""
    image: Path | None = None
    """Target image for gradient descent, converted to grey. Defaults to a pattern of stripes and squares."""
    steps: int = 200
    """Number of gradient descent steps."""
    rate: float = 0.2
    """Learning rate times the largest eigenvalue, between 0 and 2.
    At 2 gradient descent diverges, and earlier if the eigenvalue grows during training."""
    seed: int = 0
    """Random seed."""
    overwrite: bool = False
    """Replace results in the output folder."""
    config: OmitArgPrefixes[FieldConfig] = field(
        default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=3)
    )
    """Settings that all networks share."""

    def __post_init__(self) -> None:
        if not self.compare:
            raise ValueError("compare must name one network or more, got none")
        if len(set(map(short_name, self.compare))) < len(self.compare):
            raise ValueError(f"compare must name each network once, files by their folders, got {list(self.compare)}")
        for name, value, least in (("size", self.size, 2), ("steps", self.steps, 1)):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if not 0.0 < self.rate < 2.0:
            raise ValueError(f"rate must be between 0 and 2, got {self.rate}")


def compare_kernels(job: CompareKernels) -> list[Compared]:
    """Compares the networks, writes the results and returns them, one entry per network."""
    models = [(name, make_network(name, job.config, seed=job.seed)) for name in job.compare]
    grid, target = make_target(job.size, job.image)
    prepare_folder(job.output, overwrite=job.overwrite)
    console = Console()
    found = []
    for name, model in models:
        with Stages(console) as stages:
            one = compare(short_name(name), model, grid, target, rate=job.rate, steps=job.steps, stages=stages)
            found.append(one)
    shape = target.shape
    names = {
        "spectra.png": "eigenvalues of the tangent kernels, and their cumulative sum",
        "eigenfunctions.png": "eigenfunctions, those that are learned fastest first",
        "decay.png": "error along groups of eigenvectors; dashed: prediction of the initial kernel",
        "parts.png": "contribution of amplitudes, frequencies and phases to each eigenvalue",
    }
    figures = [(caption, job.output / name) for name, caption in names.items()]
    kernel_figures.draw_spectra(figures[0][1], found)
    kernel_figures.draw_eigenfunctions(figures[1][1], found, shape)
    kernel_figures.draw_decay(figures[2][1], found, bands(target.numel()))
    kernel_figures.draw_parts(figures[3][1], found)
    (job.output / "ntk.json").write_text(json.dumps(record(job, found), indent=1) + "\n")
    rows = {one.name: ", ".join(f"{key} {value}" for key, value in shown(one).items()) for one in found}
    write_page(job.output / "report.html", "tangent kernels", rows, figures, _settings(job))
    console.print(table(found))
    console.print(f"Written to {job.output}: {', '.join(sorted(path.name for path in job.output.iterdir()))}")
    return found


# --- networks and targets --------------------------------------------------------------------------------------------


def make_network(name: str, config: FieldConfig, *, seed: int = 0) -> nn.Module:
    """Returns a field (n, 2) -> (n, 1) in float64, freshly initialised or from a file; see `CompareKernels.compare`.

    Raises:
        ValueError: If the name is unknown, or the file holds neither an image nor a shape.
        OSError: If the file does not exist.
    """
    if name.endswith(".safetensors"):
        return _to_float64(_from_file(Path(name)))
    first, _, second = name.partition("-")
    activation, encoding = ALSO_CALLED.get(first, first), ALSO_CALLED.get(second, second) or config.encoding.name
    if activation not in ACTIVATIONS or encoding not in ENCODINGS:
        raise ValueError(
            f"compare must name an activation of {list(ACTIVATIONS)}, optionally with an encoding of "
            f'{list(ENCODINGS)} after "-", or a .safetensors file, got {name!r}'
        )
    config = override(config, {"activation": activation, "encoding": encoding})
    return _to_float64(NeuralField(2, 1, config, generator=Generator().manual_seed(seed)))


def short_name(name: str) -> str:
    """Returns the name of a network in tables and figures. For a file this is the name of its folder."""
    return Path(name).resolve().parent.name if name.endswith(".safetensors") else name


def _from_file(path: Path) -> nn.Module:
    """Returns the mean over the channels of a fitted image, or a fitted shape at z = 0."""
    found = load_field(path)
    coordinates = find_task(found.config.task).coordinates
    if coordinates == 3:
        return _Plane(found.field)
    if coordinates != 2:
        raise ValueError(f"{path} must hold the field of an image or a shape, got {found.config.task}")
    model: Any = copy.deepcopy(found.field)
    output = model.mlp.output
    mean = LinearMap(output.in_features, 1, dtype=output.weight.dtype)
    mean.weight, mean.bias = (nn.Parameter(p.detach().mean(0, keepdim=True)) for p in (output.weight, output.bias))
    model.mlp.output = mean
    return model


class _Plane(nn.Module):
    """The restriction of a field in space to the plane z = 0."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(nn.functional.pad(x, (0, 1)))


def _to_float64(model: nn.Module) -> nn.Module:
    """Converts a model to double precision, including complex weights, which `double` does not convert."""
    model = model.double()
    for parameter in model.parameters():
        if parameter.is_complex():
            parameter.data = parameter.data.to(torch.complex128)
    return model


def make_target(size: int, image: Path | None) -> tuple[Tensor, Tensor]:
    """Returns pixel centres (rows · columns, 2), x to the right and y down, and target values (rows, columns)."""
    raster = Raster(size, size, 1, 0.0, 1.0, "float32")
    values = None
    if image is not None:
        pixels = read_image(image)
        whole = Raster.of(pixels)
        raster = whole.scaled(size / max(whole.height, whole.width))
        grey = whole.normalize(torch.from_numpy(pixels)).double().mean(-1)
        shape = (raster.height, raster.width)
        values = nn.functional.interpolate(grey[None, None], shape, mode="bilinear", antialias=True)[0, 0]
    rows, columns = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (raster.height, raster.width))
    grid = raster.coordinates(*torch.meshgrid(rows, columns, indexing="ij"))
    if values is None:
        x, y = grid.unbind(-1)
        values = 0.5 * torch.sin(9.0 * x * y) + 0.5 * torch.sign(torch.sin(12.0 * x) * torch.sin(9.0 * y))
    return grid.reshape(-1, 2), values


def record(job: CompareKernels, found: list[Compared]) -> dict[str, Any]:
    """Returns the content of ntk.json."""
    rows = []
    for one in found:
        groups = bands(len(one.energy))
        rows.append(
            {
                "name": one.name,
                "parameters": one.parameters,
                "trace": one.spectrum.values.sum().item(),
                "shares_of_the_trace": one.parts,
                "effective_rank": one.effective_rank,
                "eigenvalues": one.spectrum.values.tolist(),
                "sinusoids_along_eigenvectors": one.along.tolist(),
                "energy_of_the_target": one.energy.tolist(),
                "bands": [[group.start, group.stop] for group in groups],
                "error_of_bands_predicted": [one.predicted[:, group].sum(1).tolist() for group in groups],
                "error_of_bands_measured": [one.measured[:, group].sum(1).tolist() for group in groups],
                "kernel_moved": one.moved,
                "seconds": one.seconds,
            }
        )
    return {"settings": _settings(job), "peak_memory_bytes": peak_memory(), "networks": rows}


def _settings(job: CompareKernels) -> dict[str, Any]:
    return asdict(job) | {"output": str(job.output), "image": str(job.image) if job.image else None}


def shown(one: Compared) -> dict[str, str]:
    """Returns the columns of the table for one network."""
    sinusoids = sum(one.parts[name] for name in ("amplitude", "frequency", "phase"))
    values = one.spectrum.values
    return {
        "weights": f"{one.parameters / 1000:.0f}k",
        "trace": f"{values.sum():.2g}",
        "rank": f"{one.effective_rank:.1f}",
        ">1e-4": str(int((values > 1e-4 * values[0]).sum())),
        "C, Ω, Φ": f"{sinusoids:.1e}",
        "error": f"{one.measured[-1].sum():.3f}",
        "foretold": f"{one.predicted[-1].sum():.3f}",
        "moved": f"{one.moved:.2f}",
    }


def table(found: list[Compared]) -> Table:
    """Returns the table that is printed on screen."""
    rows = [shown(one) for one in found]
    made = Table("network", *rows[0], title=TITLE, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for one, row in zip(found, rows, strict=True):
        made.add_row(one.name, *row.values())
    return made
