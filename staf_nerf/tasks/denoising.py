"""Denoising: a field is fitted to a noisy image, and held-out pixels say when it starts to fit the noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from staf_nerf.config import DenoisingConfig
from staf_nerf.metrics.image import pixel_psnr
from staf_nerf.signals.raster import Pixels, Raster
from staf_nerf.tasks.image import ImageProblem, ImageTask


class DenoisingTask(ImageTask):
    """Denoising: fits a noisy image, validated on held-out pixels. Adds noise first, unless --photon-count is 0."""

    name = "denoise"
    title = "Denoising"
    config = DenoisingConfig()
    methods = ("denoise", "denoise+sine")

    def problem(self, file: Path, pixels: Pixels, raster: Raster, config: DenoisingConfig, seed: int) -> ImageProblem:
        """Returns the problem for the pixels of a file. With `photon_count` 0 they are noisy, without a known truth."""
        given, truth, baseline = pixels, None, {}
        if config.photon_count:
            truth = pixels
            given = with_sensor_noise(
                pixels, raster, photon_count=config.photon_count, read_noise=config.read_noise, seed=seed
            )
            baseline = {"noisy_psnr": pixel_psnr(given, truth, raster)}
        return ImageProblem(
            file=file,
            config=config,
            frame=raster,
            seed=seed,
            given=given,
            given_raster=raster,
            truth=truth,
            baseline=baseline,
        )


def with_sensor_noise(
    pixels: Pixels, raster: Raster, *, photon_count: float, read_noise: float, seed: int = 0
) -> Pixels:
    """Adds sensor noise: shot noise for a mean photon count of a white pixel, and Gaussian read noise.

    With x in [0, 1], y = (Poisson(photon_count · x) + N(0, readout²)) / photon_count, as in the protocol of WIRE
    (arXiv 2301.05187). The result is float32 in image values and may exceed their range. Alpha is not changed.

    Raises:
        ValueError: If `photon_count` is not positive.
    """
    if not photon_count > 0:
        raise ValueError(f"photon_count must be positive, got {photon_count}")
    random = np.random.default_rng(seed)
    colors = raster.channels - (raster.channels in (2, 4))
    found = pixels.astype(np.float32)
    level = (pixels[..., :colors].astype(np.float64) - raster.low) / (raster.high - raster.low)
    counted = random.poisson(photon_count * level) + read_noise * random.standard_normal(level.shape)
    found[..., :colors] = raster.low + (raster.high - raster.low) * counted / photon_count
    return found


TASK = DenoisingTask()
