"""The nerfstudio field of surfaces: a signed distance in a cube, and a radiance field outside of it.

Conventions: positions are in nerfstudio's scene coordinates. The network of the signed distance reads coordinates in
[-1, 1]³ of its cube. Distances are returned in scene units.
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

from staf_nerf.captures.region import CameraFocus
from staf_nerf.config import ColorConfig, FieldConfig, SurfaceConfig
from staf_nerf.encodings import Implementation
from staf_nerf.fields import SurfaceField
from staf_nerf.plugin.field import StafField, make_appearance
from staf_nerf.plugin.sampling import positions_of

SHARPNESS_RATE = 10.0
"""The sharpness is exp(this times a parameter), as in NeuS, because it changes by far more than weights do."""


def neus_alpha(distance: Tensor, slope: Tensor, delta: Tensor, sharpness: Tensor, anneal: float = 1.0) -> Tensor:
    """Returns the opacity (..., 1) of the ray segment around a sample (NeuS, arXiv 2106.10689, equation 13).

    Along the segment the distance changes by slope · delta. The transmittance is the ratio of the logistic
    distribution function at the end and at the start of the segment.

    Args:
        distance: Signed distance at the sample, (..., 1).
        slope: Slope of the distance along the ray, (..., 1): the gradient times the ray's direction.
        delta: Length of the segment, (..., 1).
        sharpness: s of the logistic distribution, per unit of distance.
        anneal: Between 0 and 1. At 0 surfaces are also visible from behind, which helps to correct a wrong start. At 1
            only surfaces that face the camera are visible.
    """
    falling = -((1.0 - anneal) * functional.relu(0.5 - 0.5 * slope) + anneal * functional.relu(-slope))
    half = 0.5 * falling * delta
    before, after = torch.sigmoid((distance - half) * sharpness), torch.sigmoid((distance + half) * sharpness)
    return ((before - after + 1e-5) / (before + 1e-5)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Cube:
    """The cube of the signed distance: ``|x - middle| < half_side`` on each axis, in scene coordinates."""

    middle: tuple[float, float, float]
    half_side: float


class StafSurfaceField(Field):
    """A `SurfaceField` in a cube, and a radiance field outside of it.

    Args:
        aabb: The scene's box, (2, 3).
        num_images: Number of training photos.
        config: The distance network and its encoding.
        color: The colour network.
        surface: Settings of the signed distance.
        cube: Cube of the signed distance.
        focus: Where the cameras look. The initial sphere is centred there, or around the cameras in a room.
        background: The density network. It models all of space at first, and later what lies outside the cube.
        contraction: Contraction of space for the background.
        implementation: Implementation of the hash grids; see `HashGrid`.
    """

    middle: Tensor
    started: Tensor
    """Whether the surface has been initialised. Until then the background field is used everywhere."""

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
        focus: CameraFocus | None = None,
        contraction: SpatialDistortion | None = None,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.register_buffer("middle", torch.tensor(cube.middle))
        self.half_side = cube.half_side
        center, radius = first_sphere(surface, cube, focus)
        self.field = SurfaceField(
            config,
            color,
            radius=radius,
            center=center,
            hollow=is_room(surface, focus),
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
        """Starts to render the surface, with that initial sharpness (None: the present one)."""
        self.started.fill_(True)
        if sharpness is not None:
            with torch.no_grad():
                self.log_sharpness.fill_(math.log(sharpness) / SHARPNESS_RATE)

    @property
    def sharpness(self) -> Tensor:
        """The sharpness s of `neus_alpha`, per scene unit."""
        return torch.exp(SHARPNESS_RATE * self.log_sharpness)

    def coordinates_of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the network's coordinates (..., 3) for positions (..., 3), and whether they lie in the cube (...)."""
        x = (positions - self.middle) / self.half_side
        return x, (x.abs() < 1.0).all(-1)

    def signed_distance(self, positions: Tensor) -> Tensor:
        """Returns the signed distance (..., 1) at scene positions (..., 3), in scene units."""
        return self.half_side * self.field.distance(self.coordinates_of(positions)[0])

    def forward_geonetwork(self, inputs: Tensor) -> Tensor:
        """Returns distance and features (..., 1 + g). `ns-export marching-cubes` calls this method by name."""
        distance, features = self.field.distance.distance(self.coordinates_of(inputs)[0])
        return torch.cat([self.half_side * distance, features], -1)

    def surface_color(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Returns the colour (N, 3) at positions (N, 3) for unit view directions (N, 3), with the mean appearance."""
        _, gradient, features = self.field.surface(self.coordinates_of(positions)[0])
        appearance = None if self.appearance is None else self.appearance.mean(dim=0)
        return self.field.color(features, directions, appearance, functional.normalize(gradient, dim=-1)).detach()

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> dict:
        """Returns opacity "alpha", rgb and normals of each sample, and the "gradient" of the distance in the cube."""
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
        """Returns opacity (N, 1) and colour (N, 3) of the chosen samples outside the cube."""
        field, frustums = self.background, ray_samples.frustums
        density, features = field.density_of(positions_of(ray_samples)[chosen])
        deltas = ray_samples.deltas
        assert deltas is not None
        appearance = _appearance(field, ray_samples, chosen)
        color = field.field.color(features, frustums.directions[chosen], appearance)
        return 1.0 - torch.exp(-density * deltas[chosen]), color

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """Returns the logistic density of the signed distance, for callers that need a density for every direction."""
        x, inside = self.coordinates_of(positions_of(ray_samples))
        distance, features = self.field.distance.distance(x)
        return self.sharpness * torch.sigmoid(-self.half_side * distance * self.sharpness) * inside[..., None], features

    def get_outputs(self, ray_samples: RaySamples, density_embedding: Tensor | None = None) -> dict:
        return {}


def _appearance(field: StafField | StafSurfaceField, ray_samples: RaySamples, chosen: Tensor) -> Tensor | None:
    """Returns the appearance embeddings of the chosen samples' photos, or the mean embedding at evaluation."""
    if field.appearance is None:
        return None
    if not field.training:
        return field.appearance.mean(dim=0)
    assert ray_samples.camera_indices is not None
    return field.appearance(ray_samples.camera_indices[chosen].squeeze(-1))


def is_room(surface: SurfaceConfig, focus: CameraFocus | None) -> bool:
    """Returns whether the cameras stand inside the surface."""
    if surface.inside == "auto":
        return focus is not None and not focus.inwards
    return surface.inside == "room"


def surface_cube(surface: SurfaceConfig, focus: CameraFocus | None, bounds: Tensor | None) -> Cube:
    """Returns the cube of the signed distance: the scene's bounds (2, 3), around the object, or around the cameras."""
    if bounds is not None:
        x, y, z = bounds.mean(0).tolist()
        return Cube((x, y, z), half_side=float((bounds[1] - bounds[0]).max()) / 2.0)
    if focus is not None and focus.half_side is not None:
        return Cube(focus.center, focus.half_side)
    if focus is None or is_room(surface, focus):
        return Cube((0.0, 0.0, 0.0), surface.extent)
    return Cube(focus.center, surface.extent * focus.nearest)


def first_sphere(
    surface: SurfaceConfig, cube: Cube, focus: CameraFocus | None
) -> tuple[tuple[float, float, float], float]:
    """Returns centre and radius of the initial sphere, in the network's coordinates.

    Around an object the sphere is centred at the point that the cameras look at, and small enough to see past it on
    all sides. In a room it is a hollow sphere around the cameras.
    """
    if focus is None or is_room(surface, focus):
        return (0.0, 0.0, 0.0), 0.9 if focus is not None else surface.radius
    x, y, z = ((c - m) / cube.half_side for c, m in zip(focus.center, cube.middle, strict=True))
    center = min(max(x, -0.5), 0.5), min(max(y, -0.5), 0.5), min(max(z, -0.5), 0.5)
    radius = surface.radius * focus.half_view * focus.nearest / cube.half_side
    return center, min(radius, 0.9 - max(map(abs, center)))
