"""The nerfstudio dataparser for captures of any supported format.

It prepares the capture and passes it on to nerfstudio's own dataparser.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE

from staf_nerf.captures.prepare import Masks, Prepared, prepare
from staf_nerf.plugin.cameras import focus_of

BLENDER_BOX = 1.5
"""Half the side length of a synthetic scene's box around the origin (as in nerfstudio's blender dataparser)."""


@dataclass
class CaptureDataParserConfig(DataParserConfig):
    """Captures in the format of nerfstudio, instant-ngp, blender or COLMAP. The format is detected."""

    _target: type = dataclasses.field(default_factory=lambda: CaptureDataParser)
    data: Path = Path()
    """Folder of the capture, or its transforms file."""
    downscale_factor: int | None = None
    """Integer factor by which the images are reduced. Defaults to the smallest factor that meets max-image-size."""
    max_image_size: int | None = 1600
    """Largest allowed side length of the training images in pixels. None: no limit."""
    masks: Masks = "background"
    """Treatment of masked pixels. "background": train them as empty space. "ignore": do not train on them."""
    eval_mode: Literal["auto", "fraction", "filename", "interval", "all"] = "auto"
    """How images are held out for evaluation. "auto": as listed in the capture, otherwise a fraction of them.
    The other modes are nerfstudio's."""
    train_split_fraction: float = 0.9
    """Fraction of the images to train on, for "fraction" and for "auto" without listed splits."""
    eval_interval: int = 8
    """Hold out every n-th image, for "interval"."""
    train_every: int = 1
    """Use only every n-th training image, starting with the first. 1: use all of them."""
    scale_factor: float = 1.0
    """Additional factor on the camera positions, after they have been scaled to [-1, 1]."""
    orientation_method: Literal["pca", "up", "vertical", "none"] = "up"
    """How the scene is rotated to be upright. Synthetic (blender) scenes are not rotated."""
    center_method: Literal["poses", "focus", "none"] = "poses"
    """Which point becomes the origin. Synthetic (blender) scenes are not moved."""
    auto_scale_poses: bool = True
    """Scale the camera positions to [-1, 1]. Synthetic (blender) scenes are not scaled."""


@dataclass
class CaptureDataParser(DataParser):
    """Prepares a capture (`staf_nerf.captures`) and passes it on to nerfstudio's own dataparser."""

    config: CaptureDataParserConfig
    prepared: Prepared | None = None

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if self.prepared is None:
            self.prepared = prepare(
                config.data,
                downscale_factor=config.downscale_factor,
                max_image_size=config.max_image_size,
                masks=config.masks,
            )
            report(self.prepared)
        prepared = self.prepared
        synthetic = prepared.kind == "blender"
        transforms = prepared.transforms
        if prepared.has_splits and config.eval_mode != "auto":
            transforms = _without_splits(transforms)
        stock = NerfstudioDataParserConfig(
            data=transforms,
            downscale_factor=1,
            scale_factor=config.scale_factor,
            scene_scale=BLENDER_BOX * config.scale_factor if synthetic else 1.0,
            orientation_method="none" if synthetic else config.orientation_method,
            center_method="none" if synthetic else config.center_method,
            auto_scale_poses=config.auto_scale_poses and not synthetic,
            eval_mode="fraction" if config.eval_mode == "auto" else config.eval_mode,
            # nerfstudio rounds up, which would leave no evaluation image of a small capture.
            train_split_fraction=min(config.train_split_fraction, 1.0 - 1.0 / prepared.count - 1e-6),
            eval_interval=config.eval_interval,
        )
        outputs = stock.setup().get_dataparser_outputs(split)
        if split == "train" and config.train_every != 1:
            outputs = thinned(outputs, config.train_every)
        outputs.metadata |= {"has_alpha": prepared.has_alpha, "bounded": synthetic}
        outputs.metadata["scene_from_capture"] = _scene_from_capture(transforms, outputs)
        outputs.metadata["focus"] = focus_of(outputs.cameras)
        return outputs


def thinned(outputs: DataparserOutputs, every: int) -> DataparserOutputs:
    """Returns the outputs with every n-th image only, starting with the first.

    Raises:
        ValueError: If `every` is not positive.
    """
    if every < 1:
        raise ValueError(f"train_every must be >= 1, got {every}")
    kept = slice(None, None, every)
    masks = outputs.mask_filenames
    return dataclasses.replace(
        outputs,
        image_filenames=outputs.image_filenames[kept],
        mask_filenames=None if masks is None else masks[kept],
        cameras=outputs.cameras[torch.arange(0, len(outputs.image_filenames), every)],
    )


def _scene_from_capture(transforms: Path, outputs: DataparserOutputs) -> list[list[float]]:
    """Returns the matrix (4, 4) from the coordinates of the listed poses to those of the scene.

    nerfstudio's own transform starts from the coordinates before `applied_transform` and `applied_scale`.
    """
    import json

    import numpy as np

    meta = json.loads(transforms.read_text(encoding="utf-8"))
    matrix, applied = np.eye(4), np.eye(4)
    matrix[:3] = outputs.dataparser_transform.double().numpy()
    if "applied_transform" in meta:
        applied[:3] = np.asarray(meta["applied_transform"], dtype=np.float64)[:3]
    matrix = matrix @ np.linalg.inv(applied)
    matrix[:3] *= outputs.dataparser_scale / float(meta.get("applied_scale", 1.0))
    return matrix.tolist()


def report(prepared: Prepared) -> None:
    """Prints which listed images do not exist, and by how much images were reduced."""
    if prepared.dropped:
        names = ", ".join(path.name for path in prepared.dropped[:3])
        more = ", …" if len(prepared.dropped) > 3 else ""
        missing, listed = len(prepared.dropped), prepared.count + len(prepared.dropped)
        CONSOLE.print(
            f"{prepared.count} of {listed} listed images are used. "
            f"{missing} do not exist and are skipped: {names}{more}"
        )
    if prepared.factor > 1:
        CONSOLE.print(f"Images are reduced by a factor of {prepared.factor}, in {prepared.transforms.parent}")


def _without_splits(transforms: Path) -> Path:
    """Writes a copy of the transforms file without the capture's own splits, and returns its path."""
    import json

    meta = json.loads(transforms.read_text(encoding="utf-8"))
    kept = {name: value for name, value in meta.items() if not name.endswith("_filenames")}
    path = transforms.with_name("transforms_unsplit.json")
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path


capture = DataParserSpecification(
    config=CaptureDataParserConfig(),
    description="Captures in the format of nerfstudio, instant-ngp, blender or COLMAP, which is detected.",
)
