"""Images as signals: pixels of any bit depth for training, and fields rendered at any scale.

Conventions: an image is (height, width, channels), rows downwards. Channels are grey, grey and alpha, RGB or RGBA, in
the values of the file. Coordinates are (x, y) in [-1, 1] with x to the right and y down. The edges of the longer side
lie at -1 and 1, pixels are square, and a pixel is evaluated at its centre. Field values are the image's values, mapped
to [-1, 1].
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import FieldConfig, ImageConfig
from staf_nerf.fields import NeuralField
from staf_nerf.perceptual import load_lpips
from staf_nerf.signals.sampling import first_omega, in_chunks, order, to_learn

Pixels = np.ndarray[Any, np.dtype[Any]]

DEPTHS = {"uint8": 255.0, "uint16": 65535.0}
"""Largest value of integer images. The range of a float image is that of its values."""
STRIP = 2**16
"""Approximate number of pixels that are rendered at a time."""
SSIM_WINDOW = 11
"""Side length of the SSIM window in pixels (Wang et al. 2004)."""
JUDGED = 2**15
"""Largest number of held-out pixels in a validation."""


@dataclass(frozen=True)
class Raster:
    """The size, range and type of an image: everything that is needed to render a field as such an image."""

    height: int
    width: int
    channels: int
    low: float
    high: float
    dtype: str
    floor: float = -1.0
    """Field value of the lowest image value. The highest is 1."""
    corners: bool = False
    """Whether the outermost pixel centres lie at -1 and 1 on both axes, as in published code."""

    @classmethod
    def of(cls, pixels: Pixels) -> Raster:
        """Returns the raster of an image, (height, width, channels) uint8, uint16 or float32.

        Raises:
            ValueError: If the image has no pixels, values that are not finite, or another type.
        """
        if pixels.ndim != 3 or not pixels.size:
            raise ValueError(f"an image must have shape (height, width, channels), got {pixels.shape}")
        if pixels.shape[2] > 4:
            raise ValueError(f"an image has 1 to 4 channels, got {pixels.shape[2]}")
        height, width, channels = pixels.shape
        name = pixels.dtype.name
        if name in DEPTHS:
            return cls(height, width, channels, 0.0, DEPTHS[name], name)
        if name != "float32":
            raise ValueError(f"an image must be uint8, uint16 or float32, got {name}")
        if bad := int((~np.isfinite(pixels)).sum()):
            raise ValueError(f"{bad} of the image's {pixels.size} values are NaN or infinite")
        low, high = float(pixels.min()), float(pixels.max())
        return cls(height, width, channels, low, high if high > low else low + 1.0, name)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def scaled(self, scale: float) -> Raster:
        """Returns the raster with `scale` times as many rows and columns, at least one of each."""
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        height, width = (max(round(scale * n), 1) for n in (self.height, self.width))
        return dataclasses.replace(self, height=height, width=width)

    def coordinates(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Returns coordinates (…, 2) for positions in pixels from the upper left corner. The first pixel is (½, ½)."""
        across, down = 2.0 * columns - self.width, 2.0 * rows - self.height
        if self.corners:
            return torch.stack([across / max(self.width - 1, 1), down / max(self.height - 1, 1)], -1)
        longest = max(self.height, self.width)
        return torch.stack([across / longest, down / longest], -1)

    def inward(self, values: Tensor) -> Tensor:
        """Maps image values to [floor, 1]."""
        return (values.float() - self.low) * ((1.0 - self.floor) / (self.high - self.low)) + self.floor

    def outward(self, values: Tensor) -> Tensor:
        """Maps [floor, 1] to image values, clipped to the range of an integer image."""
        return self.clamped((values - self.floor) * ((self.high - self.low) / (1.0 - self.floor)) + self.low)

    def squared_error(self, found: Tensor, values: Tensor) -> Tensor:
        """Returns the squared error of field values, scaled to a range of [-1, 1]."""
        return ((found - values) * (2.0 / (1.0 - self.floor))).square()

    def clamped(self, values: Tensor) -> Tensor:
        """Clips values to the range of an integer image."""
        return values.clamp(self.low, self.high) if self.dtype in DEPTHS else values


class ImageSignal:
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
        self._learned: Tensor | None = None
        if config.held_out:
            generator = Generator().manual_seed(seed)
            out = torch.rand(len(self._values), generator=generator) < config.held_out
            self._learned, self._held_out = (mask.nonzero()[:, 0].int() for mask in (~out, out))
            if not len(self._learned) or not len(self._held_out):
                raise ValueError(f"held_out must leave pixels on each side, got {config.held_out} of {len(out)} pixels")
        self.samples = len(self._values) if self._learned is None else len(self._learned)
        self.passes, self._choose = order(self.samples, in_passes=bool(config.fit.passes))

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns coordinates (count, k, 2) of k points in each pixel, and values (count, channels); see `choose`."""
        index = self._choose(count, generator)
        if self._learned is not None:
            index = self._learned[index].long()
        return self._points(index, generator).to(self.device), self._targets(index)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error for values in [-1, 1]."""
        points, values = batch
        found = to_learn(field, points.flatten(0, 1)).unflatten(0, points.shape[:2]).mean(1)
        return {"squared error": self.raster.squared_error(found, values).mean()}

    def held_out_error(self, field: nn.Module) -> float:
        """Returns the mean squared error on the held-out pixels (at most 2¹⁵ of them)."""
        if self._learned is None:
            raise ValueError("held_out must be positive for a validation error, got 0")
        index = self._held_out[:: -(-len(self._held_out) // JUDGED)].long()
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
        return self.raster.inward(_gather(self._values, index)).to(self.device)


class ImagesSignal:
    """Several images as one signal for a `FieldStack`, with the same number of pixels from each."""

    def __init__(self, signals: Sequence[ImageSignal]) -> None:
        self.signals = signals
        self.samples = max(signal.samples for signal in signals)
        self.passes = [order for signal in signals for order in signal.passes]

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns coordinates (b, count, k, 2) and values (b, count, channels)."""
        batches = [signal.batch(count, generator) for signal in self.signals]
        points, values = zip(*batches, strict=True)
        return torch.stack(points), torch.stack(values)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error of each image by its index. The fields do not affect each other."""
        points, values = batch
        found = to_learn(field, points.flatten(1, 2)).unflatten(1, points.shape[1:3]).mean(2)
        errors = self.signals[0].raster.squared_error(found, values).mean((1, 2))
        return {str(number): error for number, error in enumerate(errors)}


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
    return first_omega(config.field, in_features=2, samples=longest, band=config.band)


@torch.no_grad()
def render_strips(field: nn.Module, raster: Raster, *, device: torch.device | str) -> Iterator[Tensor]:
    """Yields strips (rows, width, channels) of the image from the top, in image values, float32, not rounded."""
    step = max(STRIP // raster.width, 1)
    for start in range(0, raster.height, step):
        rows = torch.arange(start, min(start + step, raster.height)) + 0.5
        columns = torch.arange(raster.width) + 0.5
        points = raster.coordinates(*torch.meshgrid(rows, columns, indexing="ij")).to(device)
        yield raster.outward(in_chunks(field, points.reshape(-1, 2))).reshape(len(rows), raster.width, -1).cpu()


def render(field: nn.Module, raster: Raster, *, scale: float = 1.0, device: torch.device | str = "cpu") -> Pixels:
    """Renders a field as an image at `scale` times its size, in the type of the original."""
    raster = raster.scaled(scale)
    found = np.empty((raster.height, raster.width, raster.channels), raster.dtype)
    _fill(found, render_strips(field, raster, device=device))
    return found


def _fill(found: Pixels, strips: Iterable[Tensor]) -> None:
    start = 0
    for strip in strips:
        values = strip.round() if found.dtype.name in DEPTHS else strip
        found[start : start + len(strip)] = values.numpy().astype(found.dtype)
        start += len(strip)


def _beside(strips: Iterable[Tensor], pixels: Pixels) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields strips of an image, each with the same rows of another image in float32."""
    start = 0
    for strip in strips:
        yield strip, torch.from_numpy(pixels[start : start + len(strip)].astype(np.float32))
        start += len(strip)


def image_psnr(field: nn.Module, raster: Raster, pixels: Pixels, *, device: torch.device | str = "cpu") -> float:
    """Returns the "psnr" of `render_and_measure`, without the other metrics."""
    pairs = _beside(render_strips(field, raster, device=device), pixels)
    squared = sum(float((strip.double() - truth).square().sum()) for strip, truth in pairs)
    return psnr(squared / pixels.size, raster.high - raster.low)


def measure_image(
    field: nn.Module, raster: Raster, pixels: Pixels, *, device: torch.device | str = "cpu"
) -> dict[str, float | None]:
    """Returns the metrics of a field compared with an image; see `render_and_measure`."""
    return render_and_measure(field, raster, pixels, device=device)[1]


def render_and_measure(
    field: nn.Module, raster: Raster, pixels: Pixels, *, device: torch.device | str = "cpu"
) -> tuple[Pixels, dict[str, float | None]]:
    """Renders a field and compares it with an image of this raster, with one evaluation of the field.

    Returns:
        The rendered image, in the type of the original, and the metrics:
        "psnr" in dB, 10 log10((high - low)² / mean squared error), of values that are not rounded, but clipped to
        the range of an integer image.
        "ssim" (Wang et al. 2004, Gaussian window of 11 pixels), None for images smaller than the window.
        "lpips" (AlexNet), only if its weights are in torch's cache.
    """
    squared, similarity, windows = 0.0, 0.0, 0
    kept: tuple[Tensor, Tensor] | None = None
    start = 0
    found = np.empty((raster.height, raster.width, raster.channels), raster.dtype)
    for strip, truth in _beside(render_strips(field, raster, device=device), pixels):
        _fill(found[start:], [strip])
        start += len(strip)
        squared += float((strip.double() - truth).square().sum())
        pair = (strip, truth) if kept is None else (torch.cat([kept[0], strip]), torch.cat([kept[1], truth]))
        count = max(len(pair[0]) - SSIM_WINDOW + 1, 0)
        if count and raster.width >= SSIM_WINDOW:
            similarity += count * _ssim(*pair, raster.high - raster.low)
            windows += count
        kept = pair[0][-(SSIM_WINDOW - 1) :], pair[1][-(SSIM_WINDOW - 1) :]
    measures = {
        "psnr": psnr(squared / pixels.size, raster.high - raster.low),
        "ssim": similarity / windows if windows else None,
    }
    if raster.channels >= 3 and (lpips := load_lpips()) is not None:
        both = (torch.from_numpy(a[..., :3].astype(np.float32)).permute(2, 0, 1)[None] for a in (found, pixels))
        measures["lpips"] = float(lpips(*(((a - raster.low) / (raster.high - raster.low)).clamp(0, 1) for a in both)))
    return found, measures


def psnr(squared_error: float, peak: float) -> float:
    """Returns 10 log10(peak² / mean squared error) in dB, infinite for an error of 0."""
    return 10.0 * math.log10(peak**2 / squared_error) if squared_error else math.inf


def _ssim(found: Tensor, truth: Tensor, peak: float) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    first, second = (values.double().permute(2, 0, 1)[None] for values in (found, truth))
    _, each = ssim(first, second, data_range=peak, return_full_image=True)
    edge = SSIM_WINDOW // 2
    return float(each[..., edge:-edge, edge:-edge].mean())  # only whole windows, as in the original definition


# --- inverse problems ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageTask:
    """An inverse problem: the given image, and the wanted result."""

    raster: Raster
    """Raster of the result."""
    given: Pixels
    """Image that the field is fitted to."""
    given_raster: Raster
    truth: Pixels | None
    """Image that the result is compared with, or None if it is unknown."""

    @property
    def whole(self) -> Pixels:
        """The truth, or the given image if the truth is unknown."""
        return self.given if self.truth is None else self.truth

    @classmethod
    def of(cls, pixels: Pixels, config: ImageConfig, *, seed: int = 0) -> ImageTask:
        """Returns the task for an image: a fit, super-resolution from a reduced image, or denoising with added noise.

        An image to denoise with `photons` 0 is taken as noisy already, and the truth is unknown. For super-resolution,
        columns and rows that the factor does not divide are cut off on the right and at the bottom.

        Raises:
            ValueError: If the image is smaller than the factor.
        """
        floor = 0.0 if config.zero_to_one else -1.0
        raster = dataclasses.replace(Raster.of(pixels), floor=floor, corners=config.corners)
        if config.task == "superres":
            height, width = (n - n % config.factor for n in pixels.shape[:2])
            if not height or not width:
                raise ValueError(f"factor must be <= the image's sides {pixels.shape[:2]}, got {config.factor}")
            cut = np.ascontiguousarray(pixels[:height, :width])
            raster = dataclasses.replace(raster, height=height, width=width)
            given = area_average(cut, config.factor)
            return cls(raster, given, raster.scaled(1.0 / config.factor), cut)
        if config.task == "image":
            return cls(raster, pixels, raster, pixels)
        if not config.photons:
            return cls(raster, pixels, raster, None)
        noisy = with_sensor_noise(pixels, raster, photons=config.photons, readout=config.readout, seed=seed)
        return cls(raster, noisy, raster, pixels)

    def baseline(self) -> dict[str, float]:
        """Returns the PSNR of the given image itself, enlarged by bicubic interpolation or noisy, against the truth."""
        if self.truth is None or self.truth is self.given:
            return {}
        peak, size = self.raster.high - self.raster.low, (self.raster.width, self.raster.height)
        if self.given_raster == self.raster:
            name, shown = "noisy_psnr", self.given
        else:
            cv2 = _opencv()
            name, shown = "bicubic_psnr", cv2.resize(self.given, size, interpolation=cv2.INTER_CUBIC)
        difference = self.raster.clamped(torch.from_numpy(shown).reshape(self.truth.shape)).numpy() - self.truth
        return {name: psnr(float((difference.astype(np.float64) ** 2).mean()), peak)}


def area_average(pixels: Pixels, factor: int) -> Pixels:
    """Returns means over blocks of factor x factor pixels, float32.

    Raises:
        ValueError: If the factor does not divide the sides of the image.
    """
    height, width, channels = pixels.shape
    if height % factor or width % factor or not factor >= 1:
        raise ValueError(f"factor must divide {width} x {height}, got {factor}")
    blocks = pixels.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean((1, 3), dtype=np.float64).astype(np.float32)


def with_sensor_noise(pixels: Pixels, raster: Raster, *, photons: float, readout: float, seed: int = 0) -> Pixels:
    """Adds sensor noise: shot noise for a mean photon count of a white pixel, and Gaussian readout noise.

    With x in [0, 1], y = (Poisson(photons · x) + N(0, readout²)) / photons, as in the protocol of WIRE
    (arXiv 2301.05187). The result is float32 in image values and may exceed their range. Alpha is not changed.

    Raises:
        ValueError: If `photons` is not positive.
    """
    if not photons > 0:
        raise ValueError(f"photons must be positive, got {photons}")
    random = np.random.default_rng(seed)
    colors = raster.channels - (raster.channels in (2, 4))
    found = pixels.astype(np.float32)
    level = (pixels[..., :colors].astype(np.float64) - raster.low) / (raster.high - raster.low)
    counted = random.poisson(photons * level) + readout * random.standard_normal(level.shape)
    found[..., :colors] = raster.low + (raster.high - raster.low) * counted / photons
    return found


# --- files -----------------------------------------------------------------------------------------------------------

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".hdr", ".webp", ".bmp")


def read_image(path: Path) -> Pixels:
    """Reads an image (height, width, channels): uint8, uint16, or float32 for EXR, HDR and float TIFF.

    Photos are rotated according to their EXIF orientation.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not an image, or its values are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the image {path} does not exist")
    pixels = _read_photo(path) if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else _read_with_opencv(path)
    if pixels is None:
        raise ValueError(f"{path} cannot be read as an image: it is damaged or has another format")
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.dtype.name not in (*DEPTHS, "float32"):
        pixels = pixels.astype(np.float32)
    try:
        Raster.of(pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return np.ascontiguousarray(pixels)


def write_image(path: Path, pixels: Pixels) -> None:
    """Writes an image as returned by `read_image`: integers as PNG or TIFF, floats as EXR, HDR or TIFF.

    Raises:
        OSError: If the file cannot be written.
    """
    cv2 = _opencv()
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    shown = cv2.cvtColor(pixels, codes[pixels.shape[2]]) if pixels.shape[2] in codes else pixels
    # OpenCV's default compression of float TIFF is lossy.
    options = (cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW) if path.suffix[:4] == ".tif" else ()
    try:
        written = cv2.imwrite(str(path), shown, options)
    except cv2.error as error:
        raise OSError(f"could not write {path}: {error}") from error
    if not written:
        raise OSError(f"could not write {path}")


def _read_photo(path: Path) -> Pixels | None:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
            return np.array(turned if turned.mode in ("L", "RGB", "RGBA") else turned.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None


def _read_with_opencv(path: Path) -> Pixels | None:
    cv2 = _opencv()
    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.ndim == 2 or pixels.shape[2] not in (3, 4):
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _opencv() -> Any:
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV reads this when it opens the first EXR file
    import cv2

    return cv2
