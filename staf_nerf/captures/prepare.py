"""Prepares a capture for training: images and masks in a cache, as nerfstudio's data set reads them.

An image that is not plainly 8-bit grey, RGB or RGBA is converted, and a large one is reduced. The intrinsics follow the
ratio of the sizes exactly, with the image's corner as origin, and the distortion does not change. Nothing is written
into the user's data.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from staf_nerf.captures.cache import folder_of, kept
from staf_nerf.captures.capture import Camera, Capture, CaptureError, Photo
from staf_nerf.captures.images import check_pixels, read_header, read_pixels, resize_image, to_srgb
from staf_nerf.captures.load import load
from staf_nerf.captures.masks import WHITE_ENOUGH, read_mask, resize_mask, threshold

Masks = Literal["background", "ignore"]

VERSION = 2
"""Version of the cache. Another one is prepared anew."""
MOST_THREADS = 4
"""Most images that are in memory at a time. One of 100 megapixels takes up to 2 GB while it is reduced."""
PATIENCE = 2.0
"""Seconds after which the progress is shown."""


@dataclass(frozen=True)
class Prepared:
    """A capture that is ready for training."""

    capture: Capture
    """The capture whose photos are those to train on: converted, reduced, with the cameras that belong to them. Either
    all of them have a mask or none has, and either all have transparency or none has."""
    originals: tuple[Photo, ...]
    """The same photos as they are in the user's data, in the same order. `capture.splits` names their images."""
    has_alpha: bool
    """Whether the images have transparency."""
    factor: float
    """Factor by which the largest image was reduced, with two decimals. 1: none was."""


@dataclass(frozen=True)
class Plan:
    """What is to be done to a photo."""

    photo: Photo
    size: tuple[int, int]
    """Width and height of the image to train on."""
    covered: tuple[int, int]
    """Width and height of the part of the photo that this image shows, from the upper left corner."""
    masks: Masks
    has_alpha: bool
    """Whether the image gets an alpha channel."""
    has_mask: bool
    """Whether the image gets a mask."""

    @property
    def merges(self) -> bool:
        """Whether the photo's mask becomes transparency."""
        return self.masks == "background" and self.photo.mask is not None


def prepare(
    data: Path,
    *,
    downscale_factor: int | None = None,
    max_image_size: int | None = None,
    masks: Masks = "background",
    cache: Path | None = None,
) -> Prepared:
    """Reads and checks a capture, and converts and reduces its images if asked for or needed.

    Args:
        data: Folder or transforms file.
        downscale_factor: Integer factor by which images are reduced. None: as `max_image_size` says.
        max_image_size: Largest allowed side length in pixels, for each image by itself. None: no limit.
        masks: "background": masked pixels become transparent and are trained as empty space. "ignore": masked pixels
            are excluded from training, as in nerfstudio.
        cache: Output folder. None: the user's cache folder.

    Raises:
        CaptureError: If the capture cannot be used, or the cache not be written.
    """
    data = Path(data).expanduser().absolute()
    return prepare_capture(
        load(data),
        data.name,
        downscale_factor=downscale_factor,
        max_image_size=max_image_size,
        masks=masks,
        cache=cache,
    )


def prepare_capture(
    capture: Capture,
    name: str,
    *,
    downscale_factor: int | None = None,
    max_image_size: int | None = None,
    masks: Masks = "background",
    cache: Path | None = None,
) -> Prepared:
    """Converts and reduces the images of a capture, as `prepare` does.

    Args:
        capture: The capture.
        name: Its name in the cache.
        downscale_factor: See `prepare`.
        max_image_size: See `prepare`.
        masks: See `prepare`.
        cache: See `prepare`.

    Raises:
        CaptureError: If an image or a mask cannot be used, or the cache not be written.
    """
    plans = _plans(capture.photos, masks, downscale_factor, max_image_size)
    folder = folder_of(cache, name, _key(plans))
    content = kept(folder, lambda target: _make(plans, target))
    photos = tuple(_photo(plan, folder, *names) for plan, names in zip(plans, content["photos"], strict=True))
    ready = dataclasses.replace(capture, photos=photos, notes=(*capture.notes, *content["notes"]))
    factor = max(round(plan.covered[0] / plan.size[0], 2) for plan in plans)
    return Prepared(ready, capture.photos, plans[0].has_alpha, factor)


# --- what is to be done ----------------------------------------------------------------------------------------------


def _plans(photos: Sequence[Photo], masks: Masks, factor: int | None, limit: int | None) -> list[Plan]:
    """Returns what is to be done to each photo."""
    _check(photos, factor, limit)
    any_mask = any(photo.mask is not None for photo in photos)
    has_alpha = any(photo.has_alpha for photo in photos) or (any_mask and masks == "background")
    has_mask = any_mask and masks == "ignore"
    plans = [
        Plan(photo, *_sizes(photo.camera, factor, limit), masks, has_alpha=has_alpha, has_mask=has_mask)
        for photo in photos
    ]
    if has_mask and len({plan.size for plan in plans}) > 1:
        # In nerfstudio 1.1.5 `rejection_sample_mask` fails for images of several sizes.
        raise CaptureError(
            "images of different sizes cannot be trained with --masks ignore.\n"
            "Use --masks background, or reduce or crop the images to one size."
        )
    return plans


def _check(photos: Sequence[Photo], factor: int | None, limit: int | None) -> None:
    shortest = min(min(photo.camera.width, photo.camera.height) for photo in photos)
    if factor is not None and not 1 <= factor <= shortest:
        raise CaptureError(f"downscale_factor must be between 1 and the images' side length in pixels, got {factor}")
    if limit is not None and limit < 1:
        raise CaptureError(f"max_image_size must be >= 1, got {limit}")


def _sizes(camera: Camera, factor: int | None, limit: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the size of a reduced image, and that of the part of the photo that it shows.

    A factor cuts off what does not fill a pixel. A limit keeps the whole photo, and the sides are rounded.
    """
    whole = camera.width, camera.height
    if factor is not None:
        size = whole[0] // factor, whole[1] // factor
        return size, (size[0] * factor, size[1] * factor)
    ratio = min(1.0, limit / max(whole)) if limit is not None else 1.0
    return (max(round(whole[0] * ratio), 1), max(round(whole[1] * ratio), 1)), whole


def _reduced_camera(camera: Camera, plan: Plan) -> Camera:
    """Returns the camera of a reduced image: lengths across by the ratio of the widths, down by that of the heights."""
    (width, height), (whole_width, whole_height) = plan.size, plan.covered
    across, down = whole_width / width, whole_height / height
    return dataclasses.replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx / across,
        fy=camera.fy / down,
        cx=camera.cx / across,
        cy=camera.cy / down,
    )


def _photo(plan: Plan, folder: Path, image: str | None, mask: str | None) -> Photo:
    """Returns a photo as it is prepared."""
    return dataclasses.replace(
        plan.photo,
        image=plan.photo.image if image is None else folder / image,
        mask=None if mask is None else folder / mask,
        camera=_reduced_camera(plan.photo.camera, plan),
        has_alpha=plan.has_alpha,
        orientation=1,
    )


def _key(plans: Sequence[Plan]) -> list[Any]:
    """Returns what the prepared images depend on. A file is known by its path, its size and when it was changed."""
    return [VERSION, [[_stamp(plan.photo.image), _stamp(plan.photo.mask), *_settings(plan)] for plan in plans]]


def _stamp(file: Path | None) -> list[Any]:
    if file is None or not file.is_file():
        return [str(file)]
    stat = file.stat()
    return [str(file), stat.st_size, stat.st_mtime_ns]


def _settings(plan: Plan) -> list[Any]:
    return [plan.photo.orientation, plan.size, plan.covered, plan.masks, plan.has_alpha, plan.has_mask]


# --- images and masks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Done:
    """What was done to a photo."""

    image: str | None
    """Name of the image. None: the photo is used as it is."""
    mask: str | None
    """Name of the mask. None: there is none."""
    profile: str | None
    """Name of a colour profile that was converted."""
    mask_is_empty: bool


def _make(plans: Sequence[Plan], folder: Path) -> dict[str, Any]:
    """Prepares all photos, a few at a time. Returns the names of their images and masks in the folder, and notes."""
    masks = [plan.photo.mask for plan in plans if plan.photo.mask is not None]
    least = threshold(masks) if masks else WHITE_ENOUGH
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    try:
        targets = [folder / f"{i:05d}.png" for i in range(len(plans))]
        results = pool.map(lambda plan, target: _one(plan, target, least), plans, targets)
        done = list(_with_progress(results, len(plans)))
    finally:
        pool.shutdown(cancel_futures=True)
    return {"photos": [(one.image, one.mask) for one in done], "notes": list(_notes(plans, done))}


def _one(plan: Plan, target: Path, least: float) -> _Done:
    """Writes the image and the mask of a photo, as far as the photo's own cannot be used."""
    photo, header = plan.photo, read_header(plan.photo.image)
    mask = None if photo.mask is None else _mask(plan, least)
    as_it_is = (
        header.is_plain
        and plan.size == (photo.camera.width, photo.camera.height)
        and photo.orientation == 1
        and photo.has_alpha == plan.has_alpha
        and not plan.merges
    )
    if as_it_is:
        check_pixels(photo.image)
    else:
        _save(target, _image(plan, mask if plan.merges else None))
    beside = target.with_suffix(".mask.png")
    if plan.has_mask:
        _save(beside, _reduced_mask(plan, mask))
    return _Done(
        None if as_it_is else target.name,
        beside.name if plan.has_mask else None,
        header.profile,
        mask is not None and not mask.any(),
    )


def _image(plan: Plan, mask: np.ndarray | None) -> np.ndarray:
    """Returns the image to train on. Its colours are converted last, because that takes longest."""
    pixels, profile = read_pixels(plan.photo.image, orientation=plan.photo.orientation)
    width, height = plan.covered
    pixels = pixels[:height, :width]
    if plan.has_alpha:
        pixels = _with_alpha(pixels, None if mask is None else mask[:height, :width])
    return to_srgb(resize_image(pixels, plan.size), profile)


def _with_alpha(pixels: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Returns pixels (H, W, 3 or 4) as RGBA, where masked pixels are transparent."""
    result = np.full((*pixels.shape[:2], 4), 255, dtype=np.uint8)
    result[..., : pixels.shape[2]] = pixels
    if mask is not None:
        np.minimum(result[..., 3], mask, out=result[..., 3])
    return result


def _mask(plan: Plan, least: float) -> np.ndarray:
    """Returns the photo's own mask, in the size of the photo."""
    photo = plan.photo
    assert photo.mask is not None
    size = photo.camera.width, photo.camera.height
    return read_mask(photo.mask, size, least=least, orientation=photo.orientation)


def _reduced_mask(plan: Plan, mask: np.ndarray | None) -> np.ndarray:
    """Returns the mask of the image to train on. A photo without one counts whole."""
    width, height = plan.covered
    if mask is None:
        return np.full((plan.size[1], plan.size[0]), 255, dtype=np.uint8)
    return resize_mask(mask[:height, :width], plan.size)


def _save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, format="PNG", compress_level=1)


def _with_progress(results: Iterable[_Done], count: int) -> Iterator[_Done]:
    """Passes results on, and shows a progress bar if they take long."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("preparing images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task, start, shown = progress.add_task("", total=count), time.monotonic(), False
    try:
        for result in results:
            progress.advance(task)
            if not shown and time.monotonic() - start > PATIENCE:
                progress.start()
                shown = True
            yield result
    finally:
        progress.stop()


# --- notes -----------------------------------------------------------------------------------------------------------


def _notes(plans: Sequence[Plan], done: Sequence[_Done]) -> Iterator[str]:
    """Returns what the user should know of how images and masks were prepared."""
    if profiles := [one.profile for one in done if one.profile is not None]:
        yield f"{_images(len(profiles))} with another colour profile than sRGB, {profiles[0]}: converted."
    masked = [plan.photo for plan in plans if plan.photo.mask is not None]
    if masked and len(masked) < len(plans):
        yield f"{_images(len(plans) - len(masked))} of {len(plans)} without a mask: used whole."
    if empty := [plan.photo for plan, one in zip(plans, done, strict=True) if one.mask_is_empty]:
        yield f"{_images(len(empty))} with a mask that is black everywhere, {empty[0].image.name} for example."


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
