"""A trained run as the source of a mesh: its geometry, its colours and the views of its cameras."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import nn

from staf_nerf.encodings import finest_cell
from staf_nerf.mesh.extract import distance_bound
from staf_nerf.mesh.source import MeshSource
from staf_nerf.mesh.texture import ColorFunction
from staf_nerf.mesh.triangles import Floats
from staf_nerf.plugin.cameras import pinhole, refuse_one_place
from staf_nerf.plugin.field import StafField
from staf_nerf.plugin.model import StafModel
from staf_nerf.plugin.run import open_saved
from staf_nerf.plugin.surface_field import StafSurfaceField
from staf_nerf.plugin.views import view_pixel, views

OPAQUE = 50.0
"""Density that counts as a surface, per model unit. At this density light is halved over 1/70 of a unit."""
SEEN_PIXELS = 64
"""Longest side, in pixels, of the views that decide which parts of a mesh are visible."""
COLOR_CHUNK = 2**14
"""Number of points whose colours are evaluated at a time."""


def open_run(config: Path, *, most_pixels: int = 256) -> MeshSource:
    """Loads a run of `ns-train` as the source of a mesh.

    Args:
        config: The run's config.yml.
        most_pixels: Longest side, in pixels, of the views that are rendered for fusion.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a run of one of our methods.
        CaptureError: If no depth can be found from the cameras of its capture.
    """
    saved = open_saved(config)
    return source_of(saved.model, saved.manager, most_pixels=most_pixels)


def source_of(model: StafModel, manager: Any, *, most_pixels: int = 256) -> MeshSource:
    """Returns the source of a mesh for a trained model and the data manager with its training cameras."""
    model.eval()
    outputs, cameras = manager.train_dataparser_outputs, manager.train_dataset.cameras
    field: Any = model.field
    if isinstance(field, StafSurfaceField) and not field.started:
        field = field.background
    refuse_one_place(outputs.metadata)
    contracted = getattr(field, "contraction", None) is not None
    box = model.scene_box.aabb.detach().cpu().double().numpy()
    # A unit of the field's coordinates; with a contraction, in the middle, where it is smallest.
    unit = 2.0 if contracted else float(np.ptp(box, axis=0).max()) / 2
    bounds = box if outputs.metadata.get("mesh_bounds") is None else np.array(outputs.metadata["mesh_bounds"])
    far = model.config.sampling.far
    density = MeshSource(
        field=field.density_fn,
        bounds=bounds,
        limits=np.array([[-far] * 3, [far] * 3]) if contracted else None,
        detail=detail(field.field, unit, cameras, bounds.mean(0)),
        level=OPAQUE,
        inside="above",
        device=model.device,
        color=color_function(field, model.device),
        views=lambda: views(model, cameras, most_pixels=most_pixels),
        view_count=len(cameras),
        view_pixel=lambda box: view_pixel(model, cameras, box, most_pixels=most_pixels),
        rays=rays(cameras),
        method="fusion",
        to_world=to_world(outputs),
        up="z",
    )
    if not isinstance(field, StafSurfaceField):
        return density
    middle, half = field.middle.cpu().double().numpy(), field.half_side
    bounds = np.stack([middle - half, middle + half])
    return dataclasses.replace(
        density,
        field=field.signed_distance,
        bounds=bounds,
        limits=None,
        level=0.0,
        inside="below",
        lipschitz=distance_bound(field.signed_distance, bounds, model.device),
        detail=detail(field.field, half, cameras, middle),
        method="surface",
    )


def detail(field: nn.Module, half_side: float, cameras: Cameras, middle: Floats) -> float | None:
    """Returns the size of the smallest details that a field with coordinates in a cube can hold, in model coordinates.

    That is a cell of the field's finest hash grid, or what a pixel of the nearest photo covers, if that is larger.
    """
    cell = finest_cell(field)
    distance = np.linalg.norm(cameras.camera_to_worlds[:, :3, 3].cpu().double().numpy() - middle, axis=-1)
    pixel = float((distance / cameras.fx.cpu().double().numpy()[:, 0]).min())
    return None if cell is None else max(cell * half_side, pixel)


def camera_positions(manager: Any) -> Floats:
    """Returns the positions of the training cameras, (N, 3), in the coordinates of the capture's poses."""
    world = to_world(manager.train_dataparser_outputs)
    positions = manager.train_dataset.cameras.camera_to_worlds[:, :3, 3].double().cpu().numpy()
    return positions @ world[:3, :3].T + world[:3, 3]


def rays(cameras: Cameras) -> tuple[Floats, Floats]:
    """Returns origins and directions (N, 3) of a few thousand rays from each camera."""
    bundles = [pinhole(cameras[i : i + 1], SEEN_PIXELS).generate_rays(camera_indices=0) for i in range(len(cameras))]
    origins, directions = (
        np.concatenate([getattr(bundle, name).reshape(-1, 3).double().numpy() for bundle in bundles])
        for name in ("origins", "directions")
    )
    return origins, directions


def to_world(outputs: DataparserOutputs) -> Floats:
    """Returns the matrix (4, 4) from nerfstudio's scene to the coordinates of the capture's poses."""
    matrix = outputs.metadata.get("scene_from_capture")
    if matrix is None:  # another dataparser: only its own transform is known
        matrix = np.eye(4)
        matrix[:3] = outputs.dataparser_scale * outputs.dataparser_transform.double().numpy()
    return np.linalg.inv(np.asarray(matrix, dtype=np.float64))


def color_function(field: StafField | StafSurfaceField, device: torch.device | str) -> ColorFunction:
    """Returns a function for the colours of a surface, seen from outside along its normals."""

    @torch.no_grad()
    def color(points: Floats, normals: Floats) -> Floats:
        colors = []
        for start in range(0, len(points), COLOR_CHUNK):
            x, n = (torch.from_numpy(v[start : start + COLOR_CHUNK]).float().to(device) for v in (points, normals))
            colors.append(field.surface_color(x, -n).cpu().double().numpy())
        return np.concatenate(colors) if colors else np.zeros((0, 3))

    return color
