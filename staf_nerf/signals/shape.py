"""Shapes as signals: the signed distance or occupancy of a mesh, or the surface through a point cloud.

Conventions: network coordinates are the shape's, translated and scaled such that its box is centred at zero with a
longest side of 2 · EXTENT (see `Frame`). Signed distance is in these units and negative inside. Occupancy is 1 inside
and 0 outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import ShapeConfig
from staf_nerf.fields import NeuralField, SignedDistanceField
from staf_nerf.mesh.points import PointCloud
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import Floats, Integers, TriangleMesh
from staf_nerf.signals.signal import Signal

EXTENT = 0.85
"""Half the longest side of the shape's box in network coordinates. The surface stays away from the cube's faces."""


@dataclass(frozen=True)
class Frame:
    """The map x = (p - center) / scale from a shape's own coordinates p to the network's coordinates x."""

    center: tuple[float, float, float]
    scale: float
    size: tuple[float, float, float] = (2.0, 2.0, 2.0)
    """Size of the shape's box, in the network's coordinates."""

    @classmethod
    def of(cls, bounds: Floats) -> Frame:
        """Returns the frame that centres a box (2, 3) and scales its longest side to 2 · EXTENT."""
        extent = float((bounds[1] - bounds[0]).max())
        if not extent > 0:
            raise ValueError("a shape must have a positive extent, got a bounding box of size 0")
        scale = extent / (2.0 * EXTENT)
        (x, y, z), (a, b, c) = ((bounds[0] + bounds[1]) / 2).tolist(), ((bounds[1] - bounds[0]) / scale).tolist()
        return cls((x, y, z), scale, (a, b, c))

    def normalize(self, points: Floats) -> Floats:
        """Maps the shape's coordinates to the network's."""
        return (points - np.array(self.center)) / self.scale

    def denormalize(self, points: Floats) -> Floats:
        """Maps the network's coordinates to the shape's."""
        return points * self.scale + np.array(self.center)


class ShapeSignal(Signal):
    """The signed distance or occupancy of a mesh as a signal.

    Args:
        mesh: The surface. For an open mesh a vote of several rays decides what is inside.
        config: Quantity, distribution of points, and loss.
        seed: Random seed of the cached points.
        device: Device of the batches.
    """

    def __init__(
        self, mesh: TriangleMesh, config: ShapeConfig, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.device = config, device
        self.frame = Frame.of(mesh.bounds)
        self.mesh = TriangleMesh(self.frame.normalize(mesh.vertices), mesh.triangles)
        self._surface = Surface(self.mesh)
        self._cache: tuple[Tensor, Tensor] | None = None
        if config.cached_points:
            self._cache = self._draw(config.cached_points, np.random.default_rng(seed))

    @property
    def samples(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number of cells of the grid that points are drawn from. None without a grid."""
        if not self.config.grid:
            return None
        return int(Cells.of(self.frame, self.config.grid).counts.prod())

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns points (count, 3) and the quantity (count, 1) there."""
        if self._cache is None:
            seed = int(torch.randint(2**62, (), generator=generator))
            points, values = self._draw(count, np.random.default_rng(seed))
        else:
            index = torch.randint(len(self._cache[0]), (count,), generator=generator)
            points, values = (x[index] for x in self._cache)
        return points.to(self.device), values.to(self.device)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the loss of the quantity, and the eikonal loss if it has a weight."""
        points, values = batch
        if self.config.quantity == "occupancy":
            return {"squared error": (field(points) - values).square().mean()}
        weight = self.config.eikonal_weight
        if not weight:
            return {"distance": self._distance_loss(field(points), values)}
        predicted, gradient = value_and_gradient(field, points)
        return {
            "distance": self._distance_loss(predicted, values),
            "eikonal": weight * (gradient.norm(dim=-1) - 1.0).abs().mean(),
        }

    def _distance_loss(self, predicted: Tensor, values: Tensor) -> Tensor:
        return ((predicted - values).abs() / (values.abs() + self.config.softness)).mean() * self.config.softness

    def _anywhere(self, count: int, random: np.random.Generator) -> Floats:
        """Draws points (count, 3) in the cube, or cell centres of the grid in the shape's box."""
        if not self.config.grid:
            return random.uniform(-1.0, 1.0, (count, 3))
        return Cells.of(self.frame, self.config.grid).draw(count, random)

    def _draw(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draws points on the surface, near it and anywhere, and computes the quantity there."""
        on = round(self.config.surface_part * count)
        near = min(round(self.config.near_part * count / 2), (count - on) // 2)
        surface, _ = self.mesh.sample(on + 2 * near, random)
        widths = self.mesh.diagonal * np.repeat([0.0, *self.config.near], [on, near, near])
        close = surface + widths[:, None] * random.standard_normal(surface.shape)
        anywhere = self._anywhere(count - len(close), random)
        points = np.clip(np.concatenate([close, anywhere]), -1.0, 1.0)
        distance = self._surface.signed_distance(points)
        distance[:on] = 0.0
        if self.config.quantity == "occupancy":
            distance = np.where(distance < 0, 1.0, np.where(distance > 0, 0.0, 0.5))
        return torch.from_numpy(points).float(), torch.from_numpy(distance).float()[:, None]


def check_quantity(config: ShapeConfig) -> None:
    """Refuses quantities that cannot be fitted to a point cloud.

    Raises:
        ValueError: If the quantity is not the signed distance.
    """
    if config.quantity != "signed-distance":
        raise ValueError(f"quantity must be 'signed-distance' for a point cloud, got {config.quantity!r}")


class PointCloudSignal(Signal):
    """The signed distance to the surface through a point cloud as a signal (SIREN, arXiv 2006.09661, section 4.2).

    The losses state that the distance is 0 at the points, that its gradient has unit length, and that the gradient
    points along the normals, if there are any. Without normals the inside is where the initial field is negative.

    Args:
        cloud: The points.
        config: Settings of the fit. The quantity must be the signed distance.
        device: Device of the batches.

    Raises:
        ValueError: If the quantity is not the signed distance.
    """

    def __init__(self, cloud: PointCloud, config: ShapeConfig, *, device: torch.device | str = "cpu") -> None:
        check_quantity(config)
        self.config, self.device = config, device
        self.frame = Frame.of(cloud.bounds)
        self._points = torch.from_numpy(self.frame.normalize(cloud.points)).float()
        self._normals = None if cloud.normals is None else torch.from_numpy(cloud.normals).float()

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """Returns points (count, 3), the first half on the surface, and the normals of that half."""
        index = torch.randint(len(self._points), (count // 2,), generator=generator)
        anywhere = 2.0 * torch.rand(count - len(index), 3, generator=generator) - 1.0
        points = torch.cat([self._points[index], anywhere]).to(self.device)
        return points, None if self._normals is None else self._normals[index].to(self.device)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor | None]) -> Mapping[str, Tensor]:
        """Returns SIREN's losses with its weights: surface, eikonal, off-surface and normals."""
        points, normals = batch
        values, gradient = value_and_gradient(field, points)
        on, off = values.tensor_split([len(points) // 2])
        losses = {
            "surface": 3e3 * on.abs().mean(),
            "eikonal": 5e1 * (gradient.norm(dim=-1) - 1.0).abs().mean(),
            "elsewhere": 1e2 * torch.exp(-1e2 * off.abs()).mean(),
        }
        if normals is not None:
            agreement = nn.functional.cosine_similarity(gradient[: len(normals)], normals, dim=-1)
            losses["normals"] = 1e2 * (1.0 - agreement).mean()
        return losses


@dataclass(frozen=True)
class Cells:
    """The cells of a grid that fills a shape's box."""

    side: float
    counts: Integers
    """(3,): number of cells along x, y and z."""

    @classmethod
    def of(cls, frame: Frame, grid: int) -> Cells:
        """Returns a grid with `grid` cells along the box's longest side."""
        size = np.array(frame.size)
        side = float(size.max()) / grid
        return cls(side, np.maximum(np.ceil(size / side - 1e-9), 1).astype(np.int64))

    def draw(self, count: int, random: np.random.Generator) -> Floats:
        """Returns the centres (count, 3) of random cells."""
        return self._middles(random.integers(0, self.counts, (count, 3)))

    def layers(self) -> Iterator[Floats]:
        """Yields the centres (N, 3) of all cells, one layer along x at a time."""
        layer = np.indices((1, *self.counts[1:])).reshape(3, -1).T
        for x in range(self.counts[0]):
            yield self._middles(layer + np.array([x, 0, 0]))

    def _middles(self, index: Integers) -> Floats:
        return self.side * (index + 0.5 - self.counts / 2.0)


class Boxed(nn.Module):
    """A field that was trained in its shape's box only, extended to all of space.

    Outside the box an occupancy is 0. A distance is that at the nearest point of the box, plus the distance to it.
    """

    def __init__(self, field: nn.Module, config: ShapeConfig, frame: Frame) -> None:
        super().__init__()
        self.field, self.is_occupancy = field, config.quantity == "occupancy"
        self.half_size = [s / 2.0 for s in frame.size]

    def forward(self, x: Tensor) -> Tensor:
        half = x.new_tensor(self.half_size)
        nearest = x.clamp(-half, half)
        value, distance = self.field(nearest), (x - nearest).norm(dim=-1, keepdim=True)
        return torch.where(distance > 0, 0.0, value) if self.is_occupancy else value + distance


def known_everywhere(field: nn.Module, config: ShapeConfig, frame: Frame) -> nn.Module:
    """Returns the field, restricted to the shape's box if it was trained on a grid in the box only."""
    return Boxed(field, config, frame) if config.grid else field


def value_and_gradient(field: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a field's values (N, 1) and gradients (N, 3), both differentiable."""
    points = points.detach().requires_grad_()
    values = field(points)
    gradient = torch.autograd.grad(values.sum(), points, create_graph=True)[0]
    return values, gradient


def make_field(config: ShapeConfig, *, start_as_sphere: bool = False, generator: Generator | None = None) -> nn.Module:
    """Returns the field (N, 3) -> (N, 1) of a configuration.

    A signed distance may start as a sphere. For a point cloud this is necessary, because it defines the inside.
    """
    if config.quantity == "occupancy":
        return NeuralField(3, 1, config.field, generator=generator)
    return SignedDistanceField(config.field, radius=0.5 if start_as_sphere else None, generator=generator)


def level(config: ShapeConfig) -> tuple[float, Literal["below", "above"]]:
    """Returns the value of the field on the surface, and whether the inside lies "below" or "above" it."""
    return (0.5, "above") if config.quantity == "occupancy" else (0.0, "below")
