"""Super-resolution: an image is reduced by averaging, and a field that is fitted to the result is rendered larger."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from staf_nerf.config import SuperResolutionConfig
from staf_nerf.files.image import opencv
from staf_nerf.metrics.image import pixel_psnr
from staf_nerf.signals.raster import Pixels, Raster
from staf_nerf.tasks.image import ImageProblem, ImageTask


class SuperResolutionTask(ImageTask):
    """Super-resolution: reduces an image by averaging, fits the result, and renders it at the original size."""

    name = "superres"
    title = "Super-resolution"
    config = SuperResolutionConfig()
    methods = ("superres", "superres+sine")

    def problem(
        self, file: Path, pixels: Pixels, raster: Raster, config: SuperResolutionConfig, seed: int
    ) -> ImageProblem:
        """Returns the problem for the pixels of a file.

        Columns and rows that the factor does not divide are cut off on the right and at the bottom.

        Raises:
            ValueError: If the image is smaller than the factor.
        """
        height, width = (n - n % config.factor for n in pixels.shape[:2])
        if not height or not width:
            raise ValueError(f"factor must be <= the image's sides {pixels.shape[:2]}, got {config.factor}")
        truth = np.ascontiguousarray(pixels[:height, :width])
        raster = dataclasses.replace(raster, height=height, width=width)
        given = area_average(truth, config.factor)
        cv2 = opencv()
        large = cv2.resize(given, (width, height), interpolation=cv2.INTER_CUBIC).reshape(truth.shape)
        return ImageProblem(
            file=file,
            config=config,
            frame=raster,
            seed=seed,
            given=given,
            given_raster=raster.scaled(1.0 / config.factor),
            truth=truth,
            baseline={"bicubic_psnr": pixel_psnr(large, truth, raster)} if config.factor > 1 else {},
        )


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


TASK = SuperResolutionTask()
