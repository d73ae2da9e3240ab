"""The nerfstudio dataparser for captures of any kind: it prepares them and leaves the parsing to the stock one."""

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

from staf_nerf.plugin.capture import Masks, Prepared, prepare
from staf_nerf.plugin.poses import attention

BLENDER_BOX = 1.5
"""Half the side of the box around the origin that holds a synthetic scene (as in nerfstudio's blender parser)."""


@dataclass
class CaptureDataParserConfig(DataParserConfig):
    """Captures: nerfstudio or instant-ngp transforms, blender transforms, or a COLMAP folder, told apart by looking."""

    _target: type = dataclasses.field(default_factory=lambda: CaptureDataParser)
    data: Path = Path()
    """Folder of the capture, or its transforms file."""
    downscale_factor: int | None = None
    """Whole factor by which to make the images smaller. If not set, the least that meets max-image-size."""
    max_image_size: int | None = 1600
    """Longest side in pixels of the images to train on; None: as they are."""
    masks: Masks = "background"
    """What masks exclude is trained as empty space, or ignored (as in nerfstudio)."""
    eval_mode: Literal["auto", "fraction", "filename", "interval", "all"] = "auto"
    """Which images are held out. "auto": those that the capture lists, else a fraction; the others as in nerfstudio."""
    train_split_fraction: float = 0.9
    """Part of the images to train on, for "fraction" and, without lists, "auto"."""
    eval_interval: int = 8
    """Every so many images one is held out, for "interval"."""
    train_every: int = 1
    """Only every so manyth of the images to train on is used, from the first."""
    scale_factor: float = 1.0
    """Factor on the camera positions, after they have been scaled to lie in [-1, 1]."""
    orientation_method: Literal["pca", "up", "vertical", "none"] = "up"
    """How to turn the scene upright. Synthetic (blender) scenes stay as they are."""
    center_method: Literal["poses", "focus", "none"] = "poses"
    """What to put at the origin. Synthetic (blender) scenes stay as they are."""
    auto_scale_poses: bool = True
    """Whether to scale the camera positions to lie in [-1, 1]. Synthetic (blender) scenes stay as they are."""


@dataclass
class CaptureDataParser(DataParser):
    """Prepares a capture (`staf_nerf.plugin.capture`), then hands it to nerfstudio's own parser."""

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
            # Rounding up would leave a capture of a few photos without any to evaluate on.
            train_split_fraction=min(config.train_split_fraction, 1.0 - 1.0 / prepared.count - 1e-6),
            eval_interval=config.eval_interval,
        )
        outputs = stock.setup().get_dataparser_outputs(split)
        if split == "train" and config.train_every != 1:
            outputs = thinned(outputs, config.train_every)
        outputs.metadata |= {"has_alpha": prepared.has_alpha, "bounded": synthetic}
        outputs.metadata["scene_from_capture"] = _scene_from_capture(transforms, outputs)
        outputs.metadata["attention"] = attention(outputs.cameras)
        return outputs


def thinned(outputs: DataparserOutputs, every: int) -> DataparserOutputs:
    """With every so manyth image alone, from the first.

    Raises:
        ValueError: If the number is not positive.
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
    """(4, 4): from the coordinates of the listing's poses to the scene's.

    nerfstudio's own transform begins at what the listing was made from, before its `applied_transform` and scale.
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
    """One line about what was left out, one about what was made smaller."""
    if prepared.dropped:
        names = ", ".join(Path(path).name for path in prepared.dropped[:3])
        more = ", …" if len(prepared.dropped) > 3 else ""
        CONSOLE.print(f"{len(prepared.dropped)} listed images do not exist and are left out: {names}{more}")
    if prepared.factor > 1:
        CONSOLE.print(f"Images are reduced by {prepared.factor}, in {prepared.transforms.parent}")


def _without_splits(transforms: Path) -> Path:
    """The same listing without the capture's own split, beside it."""
    import json

    meta = json.loads(transforms.read_text(encoding="utf-8"))
    kept = {name: value for name, value in meta.items() if not name.endswith("_filenames")}
    path = transforms.with_name("transforms_unsplit.json")
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path


capture = DataParserSpecification(
    config=CaptureDataParserConfig(),
    description="Captures: nerfstudio, instant-ngp, blender or COLMAP, told apart by looking.",
)
