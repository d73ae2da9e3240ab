"""Images as signals: pixels of any bit depth for training. `staf_nerf.signals.raster` has the conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import FieldConfig, ImageConfig
from staf_nerf.fields import NeuralField
from staf_nerf.signals.raster import Pixels, Raster
from staf_nerf.signals.sampling import SampledSignal, first_omega, in_chunks, to_learn
from staf_nerf.signals.signal import Signal

MOST_VALIDATED = 2**15
"""Largest number of held-out pixels in a validation."""


class ImageSignal(SampledSignal):
    """The pixels of an image as a signal.

    Args:
        pixels: The image, (height, width, channels). It is not copied.
        config: How a pixel is computed from the field, and the fraction of held-out pixels.
        raster: Size and range of the image. Defaults to those of `pixels`.
        seed: Random seed for the choice of held-out pixels.
        device: Device of the batches.

    Raises:
        ValueError: If no pixel or every pixel would be held out.
    """

    def __init__(
        self,
        pixels: Pixels,
        config: ImageConfig,
        *,
        raster: Raster | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, device
        self.raster = raster or Raster.of(pixels)
        self._values = torch.from_numpy(pixels).reshape(-1, pixels.shape[2])
        self._training_index: Tensor | None = None
        if config.held_out:
            generator = Generator().manual_seed(seed)
            is_held_out = torch.rand(len(self._values), generator=generator) < config.held_out
            masks = (~is_held_out, is_held_out)
            self._training_index, self._held_out_index = (mask.nonzero()[:, 0].int() for mask in masks)
            if not len(self._training_index) or not len(self._held_out_index):
                count = len(is_held_out)
                raise ValueError(f"held_out must leave pixels on each side, got {config.held_out} of {count} pixels")
        samples = self._values if self._training_index is None else self._training_index
        super().__init__(len(samples), in_epochs=bool(config.fit.epochs))

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns coordinates (count, k, 2) of k points in each pixel, and values (count, channels); see `Sampler`."""
        index = self._sampler.draw(count, generator)
        if self._training_index is not None:
            index = self._training_index[index].long()
        return self._points(index, generator).to(self.device), self._targets(index)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error for values in [-1, 1]."""
        points, values = batch
        predicted = to_learn(field, points.flatten(0, 1)).unflatten(0, points.shape[:2]).mean(1)
        return {"squared error": self.raster.squared_error(predicted, values).mean()}

    def held_out_error(self, field: nn.Module) -> float:
        """Returns the mean squared error on the held-out pixels (at most 2¹⁵ of them)."""
        if self._training_index is None:
            raise ValueError("held_out must be positive for a validation error, got 0")
        step = -(-len(self._held_out_index) // MOST_VALIDATED)
        index = self._held_out_index[::step].long()
        points = self._points(index, None)[:, 0].to(self.device)
        return float(self.raster.squared_error(in_chunks(field, points), self._targets(index)).mean())

    def _points(self, index: Tensor, generator: Generator | None) -> Tensor:
        """Returns points (n, k, 2) in the pixels of these indices: their centres, or stratified random samples."""
        rows, columns = index // self.raster.width, index % self.raster.width
        side = self.config.pixel_samples
        if side == 1 or generator is None:
            return self.raster.coordinates(rows + 0.5, columns + 0.5)[:, None]
        down, right = (cell.reshape(-1) for cell in torch.meshgrid(*(torch.arange(side),) * 2, indexing="ij"))
        shift = torch.rand(2, len(index), side**2, generator=generator)
        return self.raster.coordinates(
            rows[:, None] + (down + shift[0]) / side, columns[:, None] + (right + shift[1]) / side
        )

    def _targets(self, index: Tensor) -> Tensor:
        return self.raster.normalize(_gather(self._values, index)).to(self.device)


class ImagesSignal(Signal):
    """Several images as one signal for a `FieldStack`, with the same number of pixels from each.

    Each image draws its batches as it would alone with that seed.

    Args:
        signals: The images.
        seed: Random seed of the batches of each.
    """

    def __init__(self, signals: Sequence[ImageSignal], *, seed: int) -> None:
        self.signals = signals
        self.samples = max(signal.samples or 0 for signal in signals)
        self._generators = [Generator().manual_seed(seed) for _ in signals]

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns coordinates (b, count, k, 2) and values (b, count, channels)."""
        pairs = zip(self.signals, self._generators, strict=True)
        batches = [signal.batch(count, own_generator) for signal, own_generator in pairs]
        points, values = zip(*batches, strict=True)
        return torch.stack(points), torch.stack(values)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error of each image, named by its index. The fields do not affect each other."""
        points, values = batch
        predicted = to_learn(field, points.flatten(1, 2)).unflatten(1, points.shape[1:3]).mean(2)
        raster = self.signals[0].raster
        errors = [raster.squared_error(*pair).mean() for pair in zip(predicted, values, strict=True)]
        return {f"{number}: squared error": error for number, error in enumerate(errors)}

    def state(self) -> list[Tensor]:
        samplers = [state for signal in self.signals for state in signal.state()]
        return [*samplers, *(generator.get_state() for generator in self._generators)]

    def load_state(self, state: list[Tensor]) -> None:
        samplers, generators = state[: len(self.signals)], state[len(self.signals) :]
        for signal, sampler_state in zip(self.signals, samplers, strict=True):
            signal.load_state([sampler_state])
        for generator, generator_state in zip(self._generators, generators, strict=True):
            generator.set_state(generator_state)


def _gather(values: Tensor, index: Tensor) -> Tensor:
    if values.dtype == torch.uint16:  # torch cannot index uint16, but it can index the same bits as int16
        return values.view(torch.int16)[index].int() & 0xFFFF
    return values[index]


def image_field(config: ImageConfig, raster: Raster, *, generator: Generator | None = None) -> NeuralField:
    """Returns the field (…, 2) -> (…, channels) of a configuration, for an image of this size."""
    return NeuralField(2, raster.channels, image_field_config(config, raster), generator=generator)


def image_field_config(config: ImageConfig, raster: Raster) -> FieldConfig:
    """Returns the field's configuration with the first layer's frequency scale for an image of this size."""
    longest = max(raster.height, raster.width)
    return first_omega(config.field, in_features=2, samples=longest, bandwidth=config.bandwidth)
