"""The nerfstudio field of a surface: signed distance near the middle, a radiance field behind it.

Conventions: nerfstudio's scene coordinates. The signed distance lives in a cube; its network sees that cube as
[-1, 1]³, and distances are given back in the scene's units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.fields.base_field import Field
from torch import Tensor, nn
from torch.nn import functional

from staf_nerf.config import ColorConfig, FieldConfig, SurfaceConfig
from staf_nerf.encodings import Implementation
from staf_nerf.fields import SurfaceField
from staf_nerf.plugin.field import StafField, make_appearance
from staf_nerf.plugin.poses import Attention
from staf_nerf.plugin.sampling import positions_of

SHARPNESS_RATE = 10.0
"""The sharpness is exp(that times a parameter), as in NeuS: it has to change by far more than weights do."""


def neus_alpha(distance: Tensor, slope: Tensor, delta: Tensor, sharpness: Tensor, anneal: float = 1.0) -> Tensor:
    """The opacity of a part of a ray around a sample (NeuS, arXiv 2106.10689, equation 13), (..., 1).

    Along the part the distance changes by slope · delta; what is passed on is the share of a logistic distribution's
    integral that is left.

    Args:
        distance: Signed distance at the sample, (..., 1).
        slope: Its change along the ray, (..., 1): the gradient times the ray's direction.
        delta: Length of the part, (..., 1).
        sharpness: s, of the logistic distribution, per unit of distance.
        anneal: 0 lets rays that leave a surface see it too, so that a wrong start can be mended; 1 does not.
    """
    falling = -((1.0 - anneal) * functional.relu(0.5 - 0.5 * slope) + anneal * functional.relu(-slope))
    half = 0.5 * falling * delta
    before, after = torch.sigmoid((distance - half) * sharpness), torch.sigmoid((distance + half) * sharpness)
    return ((before - after + 1e-5) / (before + 1e-5)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Cube:
    """Where the signed distance lives: |x - middle| < half_side on each axis."""

    middle: tuple[float, float, float]
    half_side: float


class StafSurfaceField(Field):
    """A `SurfaceField` in a cube, and a radiance field outside of it.

    Args:
        aabb: The scene's box, (2, 3).
        num_images: Of the training photos.
        config: The distance network and its encoding.
        color: The colour network.
        surface: How it starts, and what else it needs.
        cube: Where the distance lives.
        look: Where the cameras look; the first sphere is about that point, or around the cameras.
        background: Of a radiance field of all space: at first it is all there is, then what is outside of the cube.
        contraction: Of all space, for the background.
        implementation: Of the hash grids.
    """

    middle: Tensor
    started: Tensor
    """Whether there is a surface: until then the background is everywhere."""

    def __init__(
        self,
        aabb: Tensor,
        num_images: int,
        config: FieldConfig,
        color: ColorConfig,
        surface: SurfaceConfig,
        *,
        cube: Cube,
        background: FieldConfig,
        look: Attention | None = None,
        contraction: SpatialDistortion | None = None,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.register_buffer("middle", torch.tensor(cube.middle))
        self.half_side = cube.half_side
        center, radius = first_sphere(surface, cube, look)
        self.field = SurfaceField(
            config,
            color,
            radius=radius,
            center=center,
            hollow=is_room(surface, look),
            implementation=implementation,
        )
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(surface.sharpness) / SHARPNESS_RATE))
        self.anneal = 1.0
        self.appearance = make_appearance(num_images, color)
        self.background = StafField(
            aabb, num_images, background, color, contraction=contraction, implementation=implementation
        )
        self.unbounded = contraction is not None
        self.register_buffer("started", torch.tensor(surface.density_steps == 0))

    def start(self, sharpness: float | None = None) -> None:
        """Renders the surface from now on, at first with that sharpness (None: as it is)."""
        self.started.fill_(True)
        if sharpness is not None:
            with torch.no_grad():
                self.log_sharpness.fill_(math.log(sharpness) / SHARPNESS_RATE)

    @property
    def sharpness(self) -> Tensor:
        """s of `neus_alpha`, per unit of the scene's length."""
        return torch.exp(SHARPNESS_RATE * self.log_sharpness)

    def coordinates_of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The network's coordinates (..., 3) of positions in the scene, and whether they lie in the cube (...)."""
        x = (positions - self.middle) / self.half_side
        return x, (x.abs() < 1.0).all(-1)

    def signed_distance(self, positions: Tensor) -> Tensor:
        """Distance (..., 1) at positions (..., 3) of the scene, both in its units."""
        return self.half_side * self.field.distance(self.coordinates_of(positions)[0])

    def forward_geonetwork(self, inputs: Tensor) -> Tensor:
        """Distance and features (..., 1 + g): the name by which `ns-export marching-cubes` asks."""
        distance, features = self.field.distance.distance(self.coordinates_of(inputs)[0])
        return torch.cat([self.half_side * distance, features], -1)

    def surface_color(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Colour (N, 3) at positions (N, 3) seen along unit directions (N, 3), with the mean appearance."""
        _, gradient, features = self.field.surface(self.coordinates_of(positions)[0])
        appearance = None if self.appearance is None else self.appearance.mean(dim=0)
        return self.field.color(features, directions, appearance, functional.normalize(gradient, dim=-1)).detach()

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> dict:
        """Opacity "alpha", rgb and normals of each sample, and the distance's "gradient" at those in the cube."""
        x, inside = self.coordinates_of(positions_of(ray_samples))
        directions, deltas = ray_samples.frustums.directions, ray_samples.deltas
        assert deltas is not None
        distance, gradient, features = self.field.surface(x[inside])
        slope = (gradient * directions[inside]).sum(-1, keepdim=True)
        opacity = neus_alpha(self.half_side * distance, slope, deltas[inside], self.sharpness, self.anneal)
        normals = functional.normalize(gradient, dim=-1)
        color = self.field.color(features, directions[inside], _appearance(self, ray_samples, inside), normals)
        shape = inside.shape
        alpha, rgb = x.new_zeros(*shape, 1), x.new_zeros(*shape, 3)
        alpha[inside], rgb[inside] = opacity, color
        if self.unbounded:
            beyond = ~inside
            opacity, color = self._behind(ray_samples, beyond)
            alpha[beyond], rgb[beyond] = opacity, color
        everywhere = x.new_zeros(*shape, 3)
        everywhere[inside] = normals.detach()
        return {
            "alpha": alpha,
            FieldHeadNames.RGB: rgb,
            FieldHeadNames.NORMALS: everywhere,
            "gradient": gradient,
        }

    def _behind(self, ray_samples: RaySamples, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Opacity (N, 1) and colour (N, 3) of the samples outside the cube."""
        field, frustums = self.background, ray_samples.frustums
        density, features = field.density_of(positions_of(ray_samples)[chosen])
        deltas = ray_samples.deltas
        assert deltas is not None
        appearance = _appearance(field, ray_samples, chosen)
        color = field.field.color(features, frustums.directions[chosen], appearance)
        return 1.0 - torch.exp(-density * deltas[chosen]), color

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """The logistic density of the signed distance, whatever the direction, for what asks a field for a density."""
        x, inside = self.coordinates_of(positions_of(ray_samples))
        distance, features = self.field.distance.distance(x)
        return self.sharpness * torch.sigmoid(-self.half_side * distance * self.sharpness) * inside[..., None], features

    def get_outputs(self, ray_samples: RaySamples, density_embedding: Tensor | None = None) -> dict:
        return {}


def _appearance(field: StafField | StafSurfaceField, ray_samples: RaySamples, chosen: Tensor) -> Tensor | None:
    """The embedding of the photos that the chosen samples belong to; at evaluation the mean of all."""
    if field.appearance is None:
        return None
    if not field.training:
        return field.appearance.mean(dim=0)
    assert ray_samples.camera_indices is not None
    return field.appearance(ray_samples.camera_indices[chosen].squeeze(-1))


def is_room(surface: SurfaceConfig, look: Attention | None) -> bool:
    """Whether the cameras stand within the surface."""
    if surface.inside == "auto":
        return look is not None and not look.inwards
    return surface.inside == "room"


def surface_cube(surface: SurfaceConfig, look: Attention | None, bounds: Tensor | None) -> Cube:
    """Where the signed distance lives: the scene's bounds (2, 3), or about what cameras look at, or around them."""
    if bounds is not None:
        x, y, z = bounds.mean(0).tolist()
        return Cube((x, y, z), half_side=float((bounds[1] - bounds[0]).max()) / 2.0)
    if look is None or is_room(surface, look):
        return Cube((0.0, 0.0, 0.0), surface.extent)
    return Cube(look.center, surface.extent * look.nearest)


def first_sphere(
    surface: SurfaceConfig, cube: Cube, look: Attention | None
) -> tuple[tuple[float, float, float], float]:
    """Centre and radius of the first surface, in the network's coordinates.

    Cameras around an object see a ball about the point that they look at, and past it on all sides; cameras in a room
    see a hollow ball around them.
    """
    if look is None or is_room(surface, look):
        return (0.0, 0.0, 0.0), 0.9 if look is not None else surface.radius
    x, y, z = ((c - m) / cube.half_side for c, m in zip(look.center, cube.middle, strict=True))
    center = min(max(x, -0.5), 0.5), min(max(y, -0.5), 0.5), min(max(z, -0.5), 0.5)
    radius = surface.radius * look.half_view * look.nearest / cube.half_side
    return center, min(radius, 0.9 - max(map(abs, center)))
