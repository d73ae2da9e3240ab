"""The source of a mesh: a field or views of it, with bounds, colours and the transform to original coordinates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from staf_nerf.mesh.extract import extract_mesh
from staf_nerf.mesh.fuse import View
from staf_nerf.mesh.texture import ColorFunction
from staf_nerf.mesh.triangles import Floats, TriangleMesh

Method = Literal["surface", "fusion"]
FINER = 2
"""How much finer than useful a resolution may be before the user is told."""


def too_fine(resolution: int, finest: float, reason: str) -> list[str]:
    """Returns a warning if a resolution of a level set is much finer than useful, and nothing otherwise.

    Args:
        resolution: Number of cells along the longest side of the box.
        finest: The finest useful resolution.
        reason: What limits it.
    """
    if resolution <= FINER * finest:
        return []
    return [
        f"warning: resolution {resolution} is much finer than {reason}, which costs time and memory only. "
        f"Use --resolution {finest}"
    ]


@dataclasses.dataclass(frozen=True)
class MeshSource:
    """A field in model coordinates, with everything that is needed to make a mesh of it."""

    field: Callable[[Tensor], Tensor]
    """Maps points (N, 3) to values (N, 1)."""
    bounds: Floats
    """(2, 3): the box of the surface, in model coordinates."""
    limits: Floats | None = None
    """(2, 3): the box beyond which there is nothing, in model coordinates. None: `bounds`."""
    level: float = 0.0
    """Value of the field on the surface."""
    inside: Literal["below", "above"] = "below"
    """Whether the inside has values below or above the level."""
    lipschitz: float | None = None
    """Bound on the slope of the field, if known; see `extract_mesh`."""
    detail: float | None = None
    """Size of the smallest details that the field can hold, in model coordinates. None if it is not known."""
    device: torch.device | str = "cpu"
    """Device on which the field is evaluated."""
    color: ColorFunction | None = None
    """Colour function of the surface, in model coordinates."""
    views: Callable[[], Iterator[View]] | None = None
    """Renders the depth maps, in model coordinates."""
    view_count: int = 0
    """Number of views."""
    view_pixel: Callable[[Floats], float] | None = None
    """Returns the size of the smallest pixel of the views at the surfaces in a box (2, 3), in model coordinates.
    It renders far fewer pixels than `views`. Infinity if no surface is seen there."""
    rays: tuple[Floats, Floats] | None = None
    """Origins and directions (N, 3) of rays from the cameras, in model coordinates. Parts that they hit are visible."""
    method: Method = "surface"
    """Default method: "surface" extracts the level set, "fusion" fuses the views."""
    to_world: Floats = dataclasses.field(default_factory=lambda: np.eye(4))
    """(4, 4): from model coordinates to the original ones, by a rotation, a uniform scale and a translation."""
    up: Literal["y", "z"] = "y"
    """Axis of the model that points up, for preview images."""

    def finest(self, bounds: Floats | None = None) -> float:
        """Returns the finest resolution of the level set that shows more details. Infinity if it is not known."""
        if self.detail is None:
            return math.inf
        extent = float(np.ptp(self.bounds if bounds is None else bounds, axis=0).max())
        return max(round(extent / self.detail), 1)

    def surface(
        self,
        *,
        bounds: Floats | None = None,
        level: float | None = None,
        resolution: int = 256,
        memory: float = 2e9,
        progress: Callable[[float], None] | None = None,
    ) -> TriangleMesh:
        """Extracts the surface of the field, in model coordinates.

        Arguments and errors are those of `extract_mesh`. Bounds and level default to those of the source.
        """
        return extract_mesh(
            self.field,
            bounds=self.bounds if bounds is None else bounds,
            resolution=resolution,
            level=self.level if level is None else level,
            inside=self.inside,
            lipschitz=self.lipschitz,
            memory=memory,
            device=self.device,
            progress=progress,
        )
