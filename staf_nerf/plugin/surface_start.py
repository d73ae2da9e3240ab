"""Initialisation of a surface from a density: depth maps are carved, and the signed distance is fitted to the result.

A signed distance that starts as a sphere finds parts that grow out of the sphere, but misses thin, separate ones. A
density finds them, and a few hundred steps of density training suffice to show where everything is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from staf_nerf.config import FitConfig
from staf_nerf.fitting.loop import fit
from staf_nerf.mesh.carve import Carving, seen_points
from staf_nerf.mesh.fuse import View
from staf_nerf.plugin.model import StafModel
from staf_nerf.plugin.surface_field import StafSurfaceField
from staf_nerf.plugin.views import views
from staf_nerf.signals.signal import Signal

MOST_STEPS = 600
"""Largest number of steps of the fit to carved points."""
FIT = FitConfig(
    steps=MOST_STEPS, points=8192, hidden_learning_rate=1e-2, network_learning_rate=3e-3, learning_rate_decay=0.1
)
"""Settings of the fit of the signed distance to carved points."""
MOST_PIXELS = 128
"""Longest side, in pixels, of the depth maps that carve."""
CELLS = 64.0
"""The reach, up to which carved distances are used, is the side length of the cube divided by this."""
POINTS = 2**19
"""Number of carved points."""
CHUNK = 2**12
"""Number of points that are carved at a time."""
SHARPNESS = 2.0
"""Initial sharpness of the surface, per reach: the opacity changes over half the reach."""
THICKER = 0.25
"""Solids are carved too thick by this fraction of the reach.
Training removes excess thickness, but does not restore missing parts."""


class NothingSeenError(ValueError):
    """Raised if no depth map shows a surface in the cube of the signed distance."""


class CarvedSignal(Signal):
    """A signal for a surface field from depth maps: free space, solids and colours of surfaces.

    Args:
        views: The depth maps with colours, in scene coordinates.
        field: The field that is fitted.
        generator: Random generator for the carved points, which are drawn once.
        device: Device of the batches.

    Raises:
        NothingSeenError: If no depth map shows a surface in the field's cube.
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
        """Draws points (POINTS, 3): three quarters near visible surfaces, the rest anywhere in the cube."""
        anywhere = 2.0 * torch.rand(POINTS // 4, 3, generator=generator) - 1.0
        anywhere = self.field.half_side * anywhere + self.field.middle.cpu()
        seen = self._seen[0].cpu()
        near = seen[torch.randint(len(seen), (POINTS - len(anywhere),), generator=generator)]
        return torch.cat([near + self.reach * torch.randn(near.shape, generator=generator), anywhere])

    def carved(self, count: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Returns scene points (count, 3), signed distances (count,) there, and whether they are known (count,)."""
        index = torch.randint(POINTS, (count,), generator=generator).to(self._points.device)
        return self._points[index], self._distance[index], self._known[index]

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, ...]:
        """Returns visible points (a quarter), their colours and view directions, and carved points as in `carved`."""
        index = torch.randint(len(self._seen[0]), (count // 4,), generator=generator).to(self._points.device)
        return *(values[index] for values in self._seen), *self.carved(count - len(index), generator)

    def losses(self, field: Any, batch: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
        """Returns the losses of distances up to the reach, of the gradient's length and of colours, in scene units."""
        seen, colors, directions, points, distance, known = batch
        x, _ = field.coordinates_of(torch.cat([seen, points]))
        predicted, gradient, features = field.field.surface(x)
        normals = torch.nn.functional.normalize(gradient[: len(seen)], dim=-1)
        appearance = None if field.appearance is None else field.appearance.mean(dim=0)
        rgb = field.field.color(features[: len(seen)], directions, appearance, normals)
        return {
            "distance": distance_loss(field.half_side * predicted[len(seen) :, 0], distance, known, self.reach),
            "eikonal": 0.01 * (gradient.norm(dim=-1) - 1.0).square().mean(),
            "color": (rgb - colors).square().mean(),
        }


def of_one_size(views: Sequence[View]) -> list[View]:
    """Crops all views to their common size, around the centre of the image."""
    height, width = (min(view.depth.shape[axis] for view in views) for axis in (0, 1))
    cropped = []
    for view in views:
        top, left = (view.depth.shape[0] - height) // 2, (view.depth.shape[1] - width) // 2
        part = slice(top, top + height), slice(left, left + width)
        fx, fy, cx, cy = view.intrinsics
        cropped.append(View(view.color[part], view.depth[part], (fx, fy, cx - left, cy - top), view.world_to_camera))
    return cropped


@torch.no_grad()
def _carved(carving: Carving, points: Tensor) -> tuple[Tensor, Tensor]:
    """Returns distances and whether they are known, in chunks of points that fit into the cache."""
    distance, known = zip(*map(carving.distance, points.split(CHUNK)), strict=True)
    return torch.cat(distance), torch.cat(known)


def distance_loss(predicted: Tensor, carved: Tensor, known: Tensor, reach: float) -> Tensor:
    """Returns the mean error of known distances (N,), relative to the reach. Beyond the reach only the sign counts."""
    close = carved.abs() < reach
    error = torch.where(close, (predicted - carved).abs(), torch.relu(reach - carved.sign() * predicted))
    return (error * known).mean() / reach


def start_surface(model: StafModel, manager: Any, *, steps: int = MOST_STEPS, seed: int = 0) -> CarvedSignal | None:
    """Initialises the surface from depth maps of the model's density, and switches to rendering the surface.

    If the depth maps show nothing in the cube of the signed distance, the surface stays the initial sphere.

    Args:
        model: A model whose field is a `StafSurfaceField` that has not started.
        manager: nerfstudio's data manager.
        steps: Largest number of steps of the fit.
        seed: Random seed.

    Returns:
        The carved signal, or None if the depth maps show nothing.
    """
    field: Any = model.field
    model.eval()
    rendered = list(views(model, manager.train_dataset.cameras, most_pixels=MOST_PIXELS))
    model.train()
    try:
        signal = CarvedSignal(rendered, field, Generator().manual_seed(seed), model.device)
    except NothingSeenError:
        field.start()
        return None
    fit(field, signal, FIT.lasting(steps=min(max(steps, 1), MOST_STEPS)), seed=seed)
    field.start(SHARPNESS / signal.reach)
    return signal
