"""Reader of NeuS' and IDR's `cameras_sphere.npz`, as in their copies of DTU and BlendedMVS.

`world_mat_0`, `world_mat_1` … are projections P = K [R | t] of the images in the order of their names, from the world
to pixels counted from the centre of the first one. `scale_mat_0` maps the unit sphere to the sphere around the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing
from staf_nerf.captures.conventions import PERSPECTIVE, check_shear, from_pixel_centers, intrinsics, opengl_pose
from staf_nerf.captures.folders import find_file, folder_of, images_in, readable, size_of

FILES = "cameras_sphere.npz (NeuS, IDR)"

NAMES = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz", "cameras_*.npz")
IMAGE_FOLDERS, MASK_FOLDERS = ("image", "images", "rgb"), ("mask", "masks")


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, NAMES)


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists. The sphere around the object is `region` in `world`: x, y, z and radius.

    Raises:
        CaptureError: If the file is damaged, has a camera that cannot be used, or does not fit the images.
    """
    with readable(path, "NeuS' archive of cameras"), np.load(path, allow_pickle=False) as archive:
        matrices = {name: archive[name].astype(np.float64) for name in archive.files}
        cameras = {number: decomposed(matrix) for number, matrix in _projections(matrices).items()}
    folder = folder_of(path)
    images = next(filter(None, (images_in(folder / name) for name in IMAGE_FOLDERS)), [])
    numbers = _numbers(images, cameras, path)
    masks = _masks(folder, images)
    photos = tuple(
        _photo(image, *cameras[number], masks.get(image), path) for image, number in zip(images, numbers, strict=True)
    )
    return Listing(path, photos, world=_region(matrices))


def _projections(matrices: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Returns the projections (3, 4) by the number of their image."""
    projections = {
        int(number): matrix[:3, :4]
        for name, matrix in matrices.items()
        if name.startswith("world_mat_") and (number := name.removeprefix("world_mat_")).isdigit()
    }
    if not projections:
        raise ValueError("it has no world_mat_0")
    return projections


def decomposed(projection: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the camera matrix (3, 3) with a positive diagonal, and the axes and position of a projection (3, 4)."""
    from scipy.linalg import rq

    if projection.shape != (3, 4) or not np.isfinite(projection).all():
        raise ValueError(f"a projection must have 3x4 finite numbers, got {projection.tolist()}")
    if np.linalg.det(projection[:, :3]) < 0:  # a projection has any scale, also a negative one
        projection = -projection
    matrix, rotation = rq(projection[:, :3])
    signs = np.sign(np.diag(matrix))
    if not signs.all():
        raise ValueError(f"a projection is singular: {projection.tolist()}")
    matrix, rotation = matrix * signs, rotation * signs[:, None]
    return matrix / matrix[2, 2], rotation.T, -np.linalg.solve(projection[:, :3], projection[:, 3])


def _numbers(images: list[Path], cameras: Mapping[int, object], path: Path) -> list[int]:
    """Returns the number of each image: its place, or, if images are missing, the number that is its name."""
    if len(images) == len(cameras):
        return sorted(cameras)
    named = [int(image.stem) for image in images if image.stem.isdigit()]
    if images and len(named) == len(images) and set(named) <= set(cameras):
        return named
    raise CaptureError(
        f"{path} has {len(cameras)} cameras, but there are {len(images)} images in {path.parent / IMAGE_FOLDERS[0]}.\n"
        "The cameras belong to the images in the order of their names: put exactly those images there."
    )


def _masks(folder: Path, images: list[Path]) -> dict[Path, Path]:
    """Returns the masks: those of the same names, or, if as many have others, in the order of their names."""
    masks = next(filter(None, (images_in(folder / name) for name in MASK_FOLDERS)), [])
    same = {mask.stem: mask for mask in masks}
    if not any(image.stem in same for image in images) and len(masks) == len(images):
        return dict(zip(images, masks, strict=True))
    return {image: same[image.stem] for image in images if image.stem in same}


def _photo(
    image: Path, matrix: np.ndarray, axes: np.ndarray, position: np.ndarray, mask: Path | None, source: Path
) -> ListedPhoto:
    size = size_of(image)
    assert size is not None
    camera = {"camera_model": PERSPECTIVE, "w": size[0], "h": size[1], **intrinsics(matrix)}
    camera |= {name: from_pixel_centers(camera[name], side) for name, side in zip(("cx", "cy"), size, strict=True)}
    check_shear(matrix[0, 1], camera, size[1], source)
    return ListedPhoto(image, opengl_pose(axes, position), camera, mask)


def _region(matrices: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    scale = matrices.get("scale_mat_0")
    if scale is None or scale.shape != (4, 4):
        return {}
    return {"region": [*scale[:3, 3].tolist(), float(np.linalg.norm(scale[:3, 0]))]}
