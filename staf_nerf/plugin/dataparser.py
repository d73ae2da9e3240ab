"""The nerfstudio dataparser for captures of any supported format.

It prepares a capture and places it in the scene. Poses become float32 at the very end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from nerfstudio.cameras.camera_utils import get_distortion_params
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.data.utils.dataparsers_utils import (
    get_train_eval_split_all,
    get_train_eval_split_filename,
    get_train_eval_split_fraction,
    get_train_eval_split_interval,
)
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE

from staf_nerf.captures.capture import Lens, Photo
from staf_nerf.captures.prepare import Masks, Prepared, prepare
from staf_nerf.captures.region import NO_DEPTH, RegionOfInterest, describe
from staf_nerf.plugin.cameras import focus_of
from staf_nerf.plugin.scene import Center, Orientation, Scene, original_transform, place

BLENDER_BOX = 1.5
"""Half the side length of a synthetic scene's box around the origin (as in nerfstudio's blender dataparser)."""

CAMERA_TYPES: dict[Lens, CameraType] = {
    "perspective": CameraType.PERSPECTIVE,
    "fisheye": CameraType.FISHEYE,
    "equirectangular": CameraType.EQUIRECTANGULAR,
}


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
    """Additional factor on all positions, after the cameras have been scaled to [-1, 1]."""
    orientation_method: Orientation = "up"
    """How the scene is rotated to be upright. Synthetic (blender) scenes are not rotated."""
    center_method: Center = "region"
    """Which point becomes the origin. Synthetic (blender) scenes are not moved.
    "region": the middle of the region of interest, which comes from sparse points, or else from the cameras.
    "poses": the middle of the cameras. "focus": where the cameras look, by nerfstudio's method."""
    auto_scale_poses: bool = True
    """Scale the camera positions to [-1, 1], and with "region" the region of interest too.
    Synthetic (blender) scenes are not scaled."""


@dataclass
class CaptureDataParser(DataParser):
    """Prepares a capture (`staf_nerf.captures`) and places it in nerfstudio's scene."""

    config: CaptureDataParserConfig
    prepared: Prepared | None = None
    scene: Scene | None = None

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        if self.prepared is None or self.scene is None:
            self.prepared = prepare(
                config.data,
                downscale_factor=config.downscale_factor,
                max_image_size=config.max_image_size,
                masks=config.masks,
            )
            self.scene = _scene(self.prepared, config)
            report(self.prepared, self.scene, config.data)
        prepared, scene = self.prepared, self.scene
        capture, synthetic = prepared.capture, prepared.capture.kind == "blender"
        chosen = indices(prepared, config, split)
        photos = [capture.photos[i] for i in chosen]
        cameras = _cameras(photos, scene.poses[chosen], _crop_radius(prepared))
        half_side = BLENDER_BOX * config.scale_factor if synthetic else 1.0
        transform, scale = original_transform(scene, capture.world)
        own = config.center_method == "region" and not synthetic
        return DataparserOutputs(
            image_filenames=[photo.image for photo in photos],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-half_side] * 3, [half_side] * 3], dtype=torch.float32)),
            mask_filenames=_masks(photos),
            dataparser_transform=torch.from_numpy(transform).float(),
            dataparser_scale=scale,
            metadata={
                # nerfstudio's depth methods and data sets ask for these
                "depth_filenames": None,
                "depth_unit_scale_factor": 1e-3,
                "mask_color": None,
                "has_alpha": prepared.has_alpha,
                "bounded": synthetic,
                "scene_from_capture": scene.matrix.tolist(),
                "focus": scene.region.focus if own else focus_of(cameras),
                "region": scene.region,
                "mesh_bounds": _mesh_bounds(scene.region) if own else None,
            },
        )


def _scene(prepared: Prepared, config: CaptureDataParserConfig) -> Scene:
    """Returns the place of the capture. Synthetic scenes stay where they are."""
    synthetic = prepared.capture.kind == "blender"
    orientation = prepared.capture.world.get("orientation_override", config.orientation_method)
    return place(
        prepared.capture,
        orientation="none" if synthetic else orientation,
        center="none" if synthetic else config.center_method,
        auto_scale=config.auto_scale_poses and not synthetic,
        scale_factor=config.scale_factor,
    )


def _mesh_bounds(region: RegionOfInterest) -> list[list[float]]:
    """Returns the cube (2, 3) of the region, in the scene."""
    return [[x - region.half_side for x in region.center], [x + region.half_side for x in region.center]]


def indices(prepared: Prepared, config: CaptureDataParserConfig, split: str) -> list[int]:
    """Returns the photos of a split, in nerfstudio's order: by the paths of the images."""
    order = sorted(range(len(prepared.originals)), key=_paths(prepared).__getitem__)
    originals = [prepared.originals[i].image for i in order]
    splits = prepared.capture.splits
    if splits and config.eval_mode == "auto":
        listed = set(splits[split])
        places = [i for i, image in enumerate(originals) if image in listed]
    else:
        train, held_out = _split(originals, config)
        places = train if split == "train" else held_out
    if split == "train":
        places = places[:: _positive(config.train_every)]
    return [order[i] for i in places]


def _paths(prepared: Prepared) -> list[Path]:
    """Returns the paths that give the order: those of the images in the cache if all are there, else the user's."""
    photos = prepared.capture.photos
    cached = all(photo.image != own.image for photo, own in zip(photos, prepared.originals, strict=True))
    return [photo.image for photo in (photos if cached else prepared.originals)]


def _split(images: Sequence[Path], config: CaptureDataParserConfig) -> tuple[list[int], list[int]]:
    """Returns the places of the images to train on and of those held out, by nerfstudio's functions."""
    names = [str(image) for image in images]
    if config.eval_mode == "filename":
        train, held_out = get_train_eval_split_filename(names)
    elif config.eval_mode == "interval":
        train, held_out = get_train_eval_split_interval(names, config.eval_interval)
    elif config.eval_mode == "all":
        train, held_out = get_train_eval_split_all(names)
    else:
        # nerfstudio rounds up, which would leave no evaluation image of a small capture.
        fraction = min(config.train_split_fraction, 1.0 - 1.0 / len(names) - 1e-6)
        train, held_out = get_train_eval_split_fraction(names, fraction)
    return train.tolist(), held_out.tolist()


def _positive(every: int) -> int:
    if every < 1:
        raise ValueError(f"train_every must be >= 1, got {every}")
    return every


def _cameras(photos: Sequence[Photo], poses: np.ndarray, crop_radius: float | None) -> Cameras:
    """Returns nerfstudio's cameras of photos with poses (N, 4, 4)."""
    cameras = [photo.camera for photo in photos]
    fisheye = any(camera.lens == "fisheye" for camera in cameras)
    numbers = np.array([[c.fx, c.fy, c.cx, c.cy] for c in cameras])
    fx, fy, cx, cy = torch.from_numpy(numbers).float().unbind(-1)
    return Cameras(
        camera_to_worlds=torch.from_numpy(poses[:, :3]).float(),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=torch.tensor([c.width for c in cameras], dtype=torch.int32),
        height=torch.tensor([c.height for c in cameras], dtype=torch.int32),
        distortion_params=torch.stack([_distortion(photo) for photo in photos]),
        camera_type=torch.tensor([CAMERA_TYPES[c.lens].value for c in cameras]),
        metadata={"fisheye_crop_radius": crop_radius} if fisheye and crop_radius is not None else {},
    )


def _distortion(photo: Photo) -> torch.Tensor:
    """Returns k1, k2, k3, k4, p1, p2 of a photo's camera."""
    distortion = photo.camera.distortion
    if "distortion_params" in distortion:
        return torch.tensor(distortion["distortion_params"], dtype=torch.float32)
    return get_distortion_params(**{name: float(value) for name, value in distortion.items()})


def _crop_radius(prepared: Prepared) -> float | None:
    """Returns the radius, in pixels, of what a fisheye lens shows, for the images as they are prepared."""
    listed = prepared.capture.world.get("fisheye_crop_radius")
    now, own = prepared.capture.photos[0].camera, prepared.originals[0].camera
    return None if listed is None else float(listed) * now.width / own.width


def _masks(photos: Sequence[Photo]) -> list[Path] | None:
    masks = [photo.mask for photo in photos if photo.mask is not None]
    assert len(masks) in (0, len(photos)), "a prepared capture has a mask for all photos or for none"
    return masks or None


def report(prepared: Prepared, scene: Scene, data: Path) -> None:
    """Prints what was found: photos, how the cameras stand, the region of interest, and the capture's notes."""
    for line in summary(prepared, scene, data):
        CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


def summary(prepared: Prepared, scene: Scene, data: Path) -> list[str]:
    """Returns the lines of `report`."""
    capture = prepared.capture
    lines = [
        f"{Path(data).name}: {len(capture.photos)} photos ({capture.kind}) of {_sizes(capture.photos)}; "
        f"{describe(scene.region.moved(np.linalg.inv(scene.matrix)))}",
        *([NO_DEPTH] if scene.region.cameras == "one place" else []),
    ]
    if capture.dropped:
        names = ", ".join(path.name for path in capture.dropped[:3])
        more = ", …" if len(capture.dropped) > 3 else ""
        missing, listed = len(capture.dropped), len(capture.photos) + len(capture.dropped)
        lines.append(
            f"{len(capture.photos)} of {listed} listed images are used. "
            f"{missing} do not exist and are skipped: {names}{more}"
        )
    if prepared.factor > 1:
        lines.append(f"Images are reduced by a factor of {prepared.factor:g}, in {capture.photos[0].image.parent}")
    return [*lines, *capture.notes]


def _sizes(photos: Sequence[Photo]) -> str:
    sizes = [(photo.camera.width, photo.camera.height) for photo in photos]
    smallest, largest = min(sizes), max(sizes)
    first = f"{smallest[0]} x {smallest[1]}"
    return first if smallest == largest else f"{first} to {largest[0]} x {largest[1]}"


capture = DataParserSpecification(
    config=CaptureDataParserConfig(),
    description="Captures in the format of nerfstudio, instant-ngp, blender or COLMAP, which is detected.",
)
