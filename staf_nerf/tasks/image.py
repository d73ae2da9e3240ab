"""Images: a field is fitted to all pixels. Super-resolution and denoising build on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, nn

from staf_nerf.config import ImageConfig
from staf_nerf.export.network import network_of
from staf_nerf.export.page import image_page
from staf_nerf.fields import NeuralField
from staf_nerf.figures.image import draw_error_map, draw_picture
from staf_nerf.files.image import read_image, write_image
from staf_nerf.metrics.image import image_psnr, psnr, render_and_measure
from staf_nerf.signals.image import ImageSignal, ImagesSignal, image_field
from staf_nerf.signals.raster import DEPTHS, Pixels, Raster, render
from staf_nerf.signals.sampling import refuse_unused_frequency
from staf_nerf.tasks.task import Figure, Metrics, Problem, Task

if TYPE_CHECKING:
    from staf_nerf.progress import Stages


@dataclass(frozen=True)
class ImageOptions:
    """What a fit of an image writes."""

    scale: float = 1.0
    """Resolution of the written image, relative to that of the file."""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")


@dataclass(frozen=True, kw_only=True)
class ImageProblem(Problem):
    """An image to recover from a given one: the same, a smaller one or a noisy one."""

    frame: Raster
    """Raster of the result."""
    given: Pixels
    """Image that the field is fitted to."""
    given_raster: Raster
    truth: Pixels | None
    """Image that the result is compared with, or None if it is unknown."""
    baseline: Metrics = dataclasses.field(default_factory=dict)
    """The metric of the given image itself, against the truth."""

    @property
    def reference(self) -> Pixels:
        """The truth, or the given image if the truth is unknown."""
        return self.given if self.truth is None else self.truth

    @property
    def has_truth(self) -> bool:
        return self.truth is not None

    @property
    def lines(self) -> list[str]:
        height, width, channels = self.reference.shape
        return [f"{width} x {height}, {channels} channels, {self.frame.dtype}"]

    def signal(self, device: torch.device | str) -> ImageSignal:
        return ImageSignal(self.given, self.config, raster=self.given_raster, seed=self.seed, device=device)

    def field(self, generator: Generator | None = None) -> NeuralField:
        return image_field(self.config, self.given_raster, generator=generator)

    def validation(self, signal: Any) -> Callable[[nn.Module], float] | None:
        return signal.held_out_error if self.config.held_out else None

    def epoch_metrics(self, device: torch.device | str) -> Callable[[nn.Module], dict[str, float]]:
        if self.truth is None:
            raise ValueError(
                f"metrics after each epoch need a truth, and a file that is already noisy has none: {self.file}"
            )
        truth = self.truth
        return lambda field: {"psnr": image_psnr(field, self.frame, truth, device=device)}

    def evaluate(self, field: nn.Module, options: ImageOptions, *, device: torch.device | str) -> Metrics:
        return self.render(field, device)[1]

    def render(self, field: nn.Module, device: torch.device | str) -> tuple[Pixels, Metrics]:
        """Returns the rendered image and its metrics. Without a truth they compare it with the noisy pixels."""
        found, metrics = render_and_measure(field, self.frame, self.reference, device=device)
        if self.truth is not None:
            return found, {**metrics, **self.baseline}
        metrics = {"psnr_to_noisy": metrics["psnr"]}
        if self.config.held_out:
            metrics["psnr_held_out"] = psnr(self.signal(device).held_out_error(field), 2.0)
        return found, metrics

    def write(
        self, field: nn.Module, output: Path, options: ImageOptions, stages: Stages, *, device: torch.device | str
    ) -> tuple[Metrics, list[Figure]]:
        found, metrics = None, {}
        with stages.attempt("metrics"):
            found, metrics = self.render(field, device)
        with stages.attempt("image"):
            if found is None:
                found = render(field, self.frame, device=device)
            made = found if options.scale == 1.0 else render(field, self.frame, scale=options.scale, device=device)
            write_image(output / f"image{'.png' if self.frame.dtype in DEPTHS else '.exr'}", made)
        figures: list[Figure] = []
        with stages.attempt("pictures"):
            if found is not None:
                figures = self._draw(output, found)
        return metrics, figures

    def _draw(self, output: Path, found: Pixels) -> list[Figure]:
        given = self.given_raster.clamped(torch.from_numpy(self.given)).numpy()
        draw_picture(output / "found.png", found, self.frame)
        draw_picture(output / "given.png", given, self.given_raster)
        figures = [("rendered field", output / "found.png"), ("training data", output / "given.png")]
        if self.truth is not None:
            draw_error_map(output / "error.png", found, self.truth, self.frame)
            figures.append(("error of the rendered field", output / "error.png"))
        return figures

    def batch_key(self) -> Hashable | None:
        """Returns channels and pixels per step; None with held-out pixels, as each image has its own best weights."""
        if self.config.held_out:
            return None
        points, pixels = self.config.fit.points, self.given_raster.pixels
        return self.frame.channels, points if 0 < points < pixels else pixels


class ImageTask(Task):
    """Fits an image. Writes the field, the image at any scale, metrics and a report."""

    name = "image"
    title = "Images"
    coordinates = 2
    config = ImageConfig()
    options = ImageOptions()
    metric, peak, stacks = "psnr", 2.0, True
    methods = ("image", "image-sine")
    results = ("image.png", "image.exr", "found.png", "given.png", "error.png")

    def read(self, file: Path, config: ImageConfig, *, seed: int = 0) -> ImageProblem:
        refuse_unused_frequency(config.field, bandwidth=config.bandwidth)
        pixels = read_image(file)
        try:
            return self.problem(file, pixels, self.raster(pixels, config), config, seed)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def raster(self, pixels: Pixels, config: ImageConfig) -> Raster:
        """Returns the raster of an image, with the field's values and coordinates that the settings ask for."""
        floor = 0.0 if config.zero_to_one else -1.0
        return dataclasses.replace(Raster.of(pixels), value_min=floor, align_corners=config.align_corners)

    def problem(self, file: Path, pixels: Pixels, raster: Raster, config: Any, seed: int) -> ImageProblem:
        """Returns the problem for the pixels of a file."""
        return ImageProblem(
            file=file, config=config, frame=raster, seed=seed, given=pixels, given_raster=raster, truth=pixels
        )

    def frame(self, description: Mapping[str, Any]) -> Raster:
        return Raster(**description)

    def field(self, config: ImageConfig, frame: Raster, *, generator: Generator | None = None) -> NeuralField:
        return image_field(config, frame, generator=generator)

    def sizes(self) -> Raster:
        return Raster(512, 512, 3, 0.0, 255.0, "uint8")

    def meaning(self, config: ImageConfig, frame: Raster) -> tuple[str, str]:
        sides = "both sides, between their outermost pixel centres" if frame.align_corners else "the longer side"
        where = f"(x, y), x to the right and y down, relative to the image's centre; [-1, 1] is {sides}"
        ends = f"{frame.value_min:g} is the file's value {frame.low:g}, 1 is its value {frame.high:g}"
        return where, f"{frame.channels} channels; {ends}"

    def shown_values(self, config: ImageConfig, frame: Raster) -> tuple[float, float, str]:
        scale = 1.0 / (1.0 - frame.value_min)
        return scale, -frame.value_min * scale, f"Gives {frame.channels} channels, mapped to [0, 1] and not clipped."

    def page(self, field: nn.Module, config: ImageConfig, frame: Raster, title: str, **options: Any) -> str:
        return image_page(network_of(field), field, frame, title, precision=options["precision"])

    def stack(self, signals: Sequence[Any], *, seed: int) -> ImagesSignal:
        return ImagesSignal(signals, seed=seed)


TASK = ImageTask()
