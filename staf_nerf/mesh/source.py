"""What a mesh is made from: a field, or views of it, where they lie, and how they lead back to the original world."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Source:
    """A field in coordinates of its own ("model"), and what belongs to it."""

    field: Callable[[Tensor], Tensor]
    """Points (N, 3) -> values (N, 1)."""
    bounds: Floats
    """(2, 3), the box that matters, in the model's coordinates."""
    level: float = 0.0
    """Value on the surface."""
    inside: Literal["below", "above"] = "below"
    """On which side of the level inside is."""
    lipschitz: float | None = None
    """The most by which the field changes over a unit of length; see `extract_mesh`."""
    device: torch.device | str = "cpu"
    """Where the field computes."""
    color: ColorFunction | None = None
    """Colours of a surface, in the model's coordinates."""
    views: Callable[[], Iterator[View]] | None = None
    """Pictures with depth, in the model's coordinates."""
    view_count: int = 0
    """How many `views` gives."""
    rays: tuple[Floats, Floats] | None = None
    """Origins and directions (N, 3) of rays from the cameras, in the model's coordinates: what they meet is seen."""
    method: Method = "surface"
    """"surface": where the field crosses the level; "fusion": from the views."""
    to_world: Floats = dataclasses.field(default_factory=lambda: np.eye(4))
    """(4, 4): from the model's coordinates to the original ones; a rotation, one scale and a shift."""
    up: Literal["y", "z"] = "y"
    """The model's axis that points up, for pictures."""

    def surface(
        self,
        *,
        bounds: Floats | None = None,
        level: float | None = None,
        resolution: int = 256,
        memory: float = 2e9,
        progress: Callable[[float], None] | None = None,
    ) -> TriangleMesh:
        """Where the field crosses its level (or another) in its box (or another), in its coordinates.

        The arguments and errors are those of `extract_mesh`.
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
