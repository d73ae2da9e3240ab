"""Metrics of images: PSNR, SSIM and LPIPS of a field, rendered strip by strip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from staf_nerf.metrics.perceptual import load_lpips
from staf_nerf.signals.raster import Pixels, Raster, fill, render_strips

SSIM_WINDOW = 11
"""Side length of the SSIM window in pixels (Wang et al. 2004)."""


def _strip_pairs(strips: Iterable[Tensor], pixels: Pixels) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields strips of an image, each with the same rows of another image in float32."""
    start = 0
    for strip in strips:
        yield strip, torch.from_numpy(pixels[start : start + len(strip)].astype(np.float32))
        start += len(strip)


def image_psnr(field: nn.Module, raster: Raster, pixels: Pixels, *, device: torch.device | str = "cpu") -> float:
    """Returns the "psnr" of `render_and_measure`, without the other metrics."""
    pairs = _strip_pairs(render_strips(field, raster, device=device), pixels)
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
    overlap: tuple[Tensor, Tensor] | None = None  # the last rows of the strips before
    start = 0
    rendered = np.empty((raster.height, raster.width, raster.channels), raster.dtype)
    for strip, truth in _strip_pairs(render_strips(field, raster, device=device), pixels):
        fill(rendered[start:], [strip])
        start += len(strip)
        squared += float((strip.double() - truth).square().sum())
        pair = (strip, truth) if overlap is None else (torch.cat([overlap[0], strip]), torch.cat([overlap[1], truth]))
        count = max(len(pair[0]) - SSIM_WINDOW + 1, 0)
        if count and raster.width >= SSIM_WINDOW:
            similarity += count * _ssim(*pair, raster.high - raster.low)
            windows += count
        overlap = pair[0][-(SSIM_WINDOW - 1) :], pair[1][-(SSIM_WINDOW - 1) :]
    metrics = {
        "psnr": psnr(squared / pixels.size, raster.high - raster.low),
        "ssim": similarity / windows if windows else None,
    }
    if raster.channels >= 3 and (lpips := load_lpips()) is not None:
        metrics["lpips"] = float(lpips(*(_in_unit_range(image, raster) for image in (rendered, pixels))))
    return rendered, metrics


def psnr(squared_error: float, peak: float) -> float:
    """Returns 10 log10(peak² / mean squared error) in dB, infinite for an error of 0."""
    return 10.0 * math.log10(peak**2 / squared_error) if squared_error else math.inf


def _in_unit_range(image: Pixels, raster: Raster) -> Tensor:
    """Returns the first three channels of an image as (1, 3, height, width) in [0, 1]."""
    channels = torch.from_numpy(image[..., :3].astype(np.float32)).permute(2, 0, 1)[None]
    return ((channels - raster.low) / (raster.high - raster.low)).clamp(0, 1)


def _ssim(rendered: Tensor, truth: Tensor, peak: float) -> float:
    """Returns the mean SSIM over all windows in two images (height, width, channels)."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    first, second = (values.double().permute(2, 0, 1)[None] for values in (rendered, truth))
    _, similarity = ssim(first, second, data_range=peak, return_full_image=True)
    edge = SSIM_WINDOW // 2
    return float(similarity[..., edge:-edge, edge:-edge].mean())  # only whole windows, as in the original definition


def pixel_psnr(pixels: Pixels, truth: Pixels, raster: Raster) -> float:
    """Returns the PSNR in dB of pixels, clipped to the range of an integer image, against the truth."""
    difference = raster.clamped(torch.from_numpy(pixels)).numpy() - truth
    return psnr(float((difference.astype(np.float64) ** 2).mean()), raster.high - raster.low)
