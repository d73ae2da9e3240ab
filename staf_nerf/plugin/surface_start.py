"""A first surface from a density: what a young radiance field shows, carved and learned by the signed distance.

A signed distance that starts as a ball finds what grows out of that ball; what stands apart and is thin, it never
samples. A density has no such trouble, and a few hundred steps of it show where everything is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from staf_nerf.config import FitConfig
from staf_nerf.fit import fit
from staf_nerf.mesh.carve import Carving, seen_points
from staf_nerf.mesh.fuse import View
from staf_nerf.plugin.model import StafModel
from staf_nerf.plugin.surface_field import StafSurfaceField
from staf_nerf.plugin.views import views

FIT = FitConfig(
    minutes=0.0, steps=600, points=8192, matrix_learning_rate=1e-2, network_learning_rate=3e-3, final_learning_rate=0.1
)
"""How the distance learns what was carved."""
MOST_PIXELS = 128
"""Longest side of the pictures that carve."""
CELLS = 64.0
"""Carved distances are told apart up to the cube's side over this."""
POINTS = 2**19
"""Points that are carved."""
CHUNK = 2**12
"""Points that are carved at a time."""
SHARPNESS = 2.0
"""Sharpness of the first surface, per reach: opacity changes within half of what is told apart."""
THICKER = 0.25
"""Solids are carved that part of it too thick: what is too thick wears off, what is missing does not come back."""


class NothingSeenError(ValueError):
    """No picture shows anything where the signed distance lives."""


class CarvedSignal:
    """What pictures with depth say about a surface field: where it is free, where solid, and colours of surfaces.

    Args:
        views: The pictures, in the scene's coordinates.
        field: The field that learns them.
        generator: Of the points that are carved, once.
        device: Where points are handed out.

    Raises:
        NothingSeenError: If no picture shows anything in the field's cube.
    """

    def __init__(
        self, views: Sequence[View], field: StafSurfaceField, generator: Generator, device: torch.device | str
    ) -> None:
        self.field = field
        self.reach = 2.0 * field.half_side / CELLS
        seen = [torch.cat(parts).to(device) for parts in zip(*map(seen_points, views), strict=True)]
        inside = field.coordinates_of(seen[0])[1]
        if not inside.any():
            raise NothingSeenError("no view sees a surface in the cube of the signed distance")
        self._seen = [values[inside] for values in seen]
        carving = Carving(of_one_size(views), doubts=min(2, len(views) - 1), device=device)
        self._points = self._draw(generator).to(device)
        self._distance, self._known = _carved(carving, self._points)
        self._distance -= THICKER * self.reach

    def _draw(self, generator: Generator) -> Tensor:
        """Points (POINTS, 3): three in four near what is seen, the rest anywhere in the cube."""
        anywhere = 2.0 * torch.rand(POINTS // 4, 3, generator=generator) - 1.0
        anywhere = self.field.half_side * anywhere + self.field.middle.cpu()
        seen = self._seen[0].cpu()
        near = seen[torch.randint(len(seen), (POINTS - len(anywhere),), generator=generator)]
        return torch.cat([near + self.reach * torch.randn(near.shape, generator=generator), anywhere])

    def carved(self, count: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Points (count, 3) of the scene, signed distances (count,) there, and whether these are known (count,)."""
        index = torch.randint(POINTS, (count,), generator=generator).to(self._points.device)
        return self._points[index], self._distance[index], self._known[index]

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, ...]:
        """Points seen (a quarter), their colours and the rays' directions; carved points, distances, whether known."""
        index = torch.randint(len(self._seen[0]), (count // 4,), generator=generator).to(self._points.device)
        return *(values[index] for values in self._seen), *self.carved(count - len(index), generator)

    def losses(self, field: Any, batch: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
        """Of distances up to the reach, of the gradient's length, and of colours; in the scene's units."""
        seen, colors, directions, points, distance, known = batch
        x, _ = field.coordinates_of(torch.cat([seen, points]))
        found, gradient, features = field.field.surface(x)
        normals = torch.nn.functional.normalize(gradient[: len(seen)], dim=-1)
        appearance = None if field.appearance is None else field.appearance.mean(dim=0)
        rgb = field.field.color(features[: len(seen)], directions, appearance, normals)
        return {
            "distance": distance_loss(field.half_side * found[len(seen) :, 0], distance, known, self.reach),
            "eikonal": 0.01 * (gradient.norm(dim=-1) - 1.0).square().mean(),
            "color": (rgb - colors).square().mean(),
        }


def of_one_size(views: Sequence[View]) -> list[View]:
    """The middles of pictures, as high and as wide as all of them are."""
    height, width = (min(view.depth.shape[axis] for view in views) for axis in (0, 1))
    found = []
    for view in views:
        top, left = (view.depth.shape[0] - height) // 2, (view.depth.shape[1] - width) // 2
        part = slice(top, top + height), slice(left, left + width)
        fx, fy, cx, cy = view.intrinsics
        found.append(View(view.color[part], view.depth[part], (fx, fy, cx - left, cy - top), view.world_to_camera))
    return found


@torch.no_grad()
def _carved(carving: Carving, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances and whether they are known, a cacheful of points at a time."""
    distance, known = zip(*map(carving.distance, points.split(CHUNK)), strict=True)
    return torch.cat(distance), torch.cat(known)


def distance_loss(found: Tensor, carved: Tensor, known: Tensor, reach: float) -> Tensor:
    """The mean error of distances (N,) where they are known, beyond the reach only of the side; in parts of it."""
    close = carved.abs() < reach
    error = torch.where(close, (found - carved).abs(), torch.relu(reach - carved.sign() * found))
    return (error * known).mean() / reach


def start_surface(model: StafModel, manager: Any, *, steps: int = FIT.steps, seed: int = 0) -> CarvedSignal | None:
    """Makes a surface of what the model's density shows to the training cameras, and renders it from then on.

    Where it shows nothing in the cube of the signed distance, the surface stays the sphere that it is.

    Args:
        model: A model whose field is a `StafSurfaceField` that has not started.
        manager: nerfstudio's data manager.
        steps: In which the distance learns it, at most as many as it needs.
        seed: Of the points.

    Returns:
        What was carved, if anything was.
    """
    field: Any = model.field
    model.eval()
    seen = list(views(model, manager.train_dataset.cameras, most_pixels=MOST_PIXELS))
    model.train()
    try:
        signal = CarvedSignal(seen, field, Generator().manual_seed(seed), model.device)
    except NothingSeenError:
        field.start()
        return None
    fit(field, signal, replace(FIT, steps=min(max(steps, 1), FIT.steps)), seed=seed)
    field.start(SHARPNESS / signal.reach)
    return signal
