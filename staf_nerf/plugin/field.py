"""nerfstudio fields that wrap ours: they map ray samples to density and colour.

Conventions: positions are in nerfstudio's scene coordinates. With contraction all of space is mapped into the ball
(order 2) or cube (order ∞) of radius 2, and then halved to [-1, 1]. Without contraction the scene box is mapped to
[-1, 1], and the density outside is zero.
"""

from __future__ import annotations

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.embedding import Embedding
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.fields.base_field import Field
from torch import Tensor

from staf_nerf.config import ColorConfig, FieldConfig
from staf_nerf.encodings import Implementation
from staf_nerf.fields import NeuralField, RadianceField, truncated_exp
from staf_nerf.kernels import rays
from staf_nerf.plugin.sampling import positions_of, weights_of

UNSEEN_WEIGHT = 1e-4
"""At evaluation, colours are not computed for samples with less weight than this.
The error is below half of 1/255, even if all samples of a ray were skipped."""


class CubeContraction(SpatialDistortion):
    """Contraction of all of space to [-2, 2]³, as nerfstudio's `SceneContraction(order=inf)`; see `rays.contract`."""

    def forward(self, positions: Tensor) -> Tensor:
        return rays.contract(positions)


class _SpaceField(Field):
    """Base class: maps positions to coordinates in [-1, 1] and evaluates the density there."""

    aabb: Tensor

    def __init__(self, aabb: Tensor, contraction: SpatialDistortion | None) -> None:
        super().__init__()
        self.register_buffer("aabb", aabb)
        self.contraction = contraction

    def coordinates_of(self, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns coordinates (..., 3) in [-1, 1] for positions (..., 3), and whether they lie in the scene (..., 1).

        With a contraction all positions do, and the second value is None.
        """
        if self.contraction is not None:
            return 0.5 * self.contraction(positions), None
        coordinates = 2.0 * SceneBox.get_normalized_positions(positions, self.aabb) - 1.0
        inside = (coordinates.abs() < 1.0).all(-1, keepdim=True)
        return coordinates * inside, inside

    def density_fn(self, positions: Tensor, times: Tensor | None = None) -> Tensor:
        """Returns the density (..., 1) at positions (..., 3), without the ray samples that nerfstudio's own creates."""
        return self.density_of(positions)[0]

    def density_of(self, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the density (..., 1) at positions (..., 3), and features for the colour network, if there is one."""
        raise NotImplementedError

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor | None]:
        return self.density_of(positions_of(ray_samples))


class ProposalField(_SpaceField):
    """A small density field for proposal sampling."""

    def __init__(
        self,
        aabb: Tensor,
        contraction: SpatialDistortion | None,
        config: FieldConfig,
        *,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(aabb, contraction)
        self.field = NeuralField(3, 1, config, implementation=implementation)

    def density_of(self, positions: Tensor) -> tuple[Tensor, None]:
        coordinates, inside = self.coordinates_of(positions)
        density = truncated_exp(self.field(coordinates))
        return density if inside is None else density * inside, None

    def get_outputs(self, ray_samples: RaySamples, density_embedding: Tensor | None = None) -> dict:
        return {}


class StafField(_SpaceField):
    """A `RadianceField` for nerfstudio's renderers, with an appearance embedding for each training photo.

    At evaluation the mean embedding is used. The field can be used in other nerfstudio models: it needs the scene box,
    the number of training photos and two configurations.
    """

    def __init__(
        self,
        aabb: Tensor,
        num_images: int,
        config: FieldConfig,
        color: ColorConfig,
        *,
        contraction: SpatialDistortion | None = None,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(aabb, contraction)
        self.field = RadianceField(config, color, implementation=implementation)
        self.appearance = make_appearance(num_images, color)

    def density_of(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        coordinates, inside = self.coordinates_of(positions)
        density, features = self.field.density(coordinates)
        return density if inside is None else density * inside, features

    def get_outputs(
        self, ray_samples: RaySamples, density_embedding: Tensor | None = None
    ) -> dict[FieldHeadNames, Tensor]:
        assert density_embedding is not None
        directions = _once(ray_samples.frustums.directions)
        appearance = None
        if self.appearance is not None and self.training:
            assert ray_samples.camera_indices is not None
            appearance = self.appearance(_once(ray_samples.camera_indices).squeeze(-1))
        return {FieldHeadNames.RGB: self._color(density_embedding, directions, appearance)}

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> dict[FieldHeadNames, Tensor]:
        """Returns density and colour. At evaluation colours are computed only for samples with weight."""
        if self.training or compute_normals:
            return super().forward(ray_samples, compute_normals=compute_normals)
        density, features = self.density_of(positions_of(ray_samples))
        seen = weights_of(ray_samples, density)[..., 0] > UNSEEN_WEIGHT
        seen[..., -1] = True  # the last sample's colour may serve as background
        rgb = features.new_zeros(*seen.shape, 3)
        rgb[seen] = self._color(features[seen], ray_samples.frustums.directions[seen], None)
        return {FieldHeadNames.DENSITY: density, FieldHeadNames.RGB: rgb}

    def surface_color(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Returns colours (..., 3) at positions (..., 3) for unit directions (..., 3), with the mean appearance."""
        _, features = self.density_of(positions)
        return self._color(features, directions, None)

    def _color(self, features: Tensor, directions: Tensor, appearance: Tensor | None) -> Tensor:
        if self.appearance is not None and appearance is None:
            appearance = self.appearance.mean(dim=0)
        return self.field.color(features, directions, appearance)


def make_appearance(num_images: int, color: ColorConfig) -> Embedding | None:
    """Returns the appearance embedding (exposure and white balance of each training photo), if it is configured."""
    if not color.appearance_features:
        return None
    appearance = Embedding(num_images, color.appearance_features)
    # All embeddings start equal, so that the mean used at evaluation stays close to each of them.
    torch.nn.init.zeros_(appearance.embedding.weight)
    return appearance


def _once(values: Tensor) -> Tensor:
    """Returns (rays, 1, n) of values (rays, samples, n) that all samples of a ray share, else the values."""
    shared = values.ndim > 2 and values.stride(-2) == 0
    return values[..., :1, :] if shared else values
