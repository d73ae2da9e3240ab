"""nerfstudio fields around ours: ray samples in, density and colour out.

Conventions: nerfstudio's scene coordinates. With contraction all of space is mapped into the ball (order 2) or cube
(order ∞) of radius 2, and halved to our [-1, 1]; without, the scene box is mapped to [-1, 1] and nothing is outside.
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
"""At evaluation the colour of a sample that has less weight on its ray is not computed: under half a grey level of 255
even if all samples of a ray were left out."""


class CubeContraction(SpatialDistortion):
    """All of space into the cube of half side 2, as nerfstudio's `SceneContraction(order=inf)`; see `rays.contract`."""

    def forward(self, positions: Tensor) -> Tensor:
        return rays.contract(positions)


class _SpaceField(Field):
    """What both fields need: from a ray sample's position to coordinates in [-1, 1]."""

    aabb: Tensor

    def __init__(self, aabb: Tensor, contraction: SpatialDistortion | None) -> None:
        super().__init__()
        self.register_buffer("aabb", aabb)
        self.contraction = contraction

    def coordinates_of(self, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Coordinates (..., 3) in [-1, 1] of positions (..., 3), and whether they lie in the scene (..., 1).

        The second is None where all do, as with a contraction.
        """
        if self.contraction is not None:
            return 0.5 * self.contraction(positions), None
        coordinates = 2.0 * SceneBox.get_normalized_positions(positions, self.aabb) - 1.0
        inside = (coordinates.abs() < 1.0).all(-1, keepdim=True)
        return coordinates * inside, inside

    def density_fn(self, positions: Tensor, times: Tensor | None = None) -> Tensor:
        """Density (..., 1) at positions (..., 3); nerfstudio's own makes rays of them first, which takes as long."""
        return self.density_of(positions)[0]

    def density_of(self, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Density (..., 1) at positions (..., 3) in the scene, and what a colour network reads, where there is one."""
        raise NotImplementedError

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor | None]:
        return self.density_of(positions_of(ray_samples))


class ProposalField(_SpaceField):
    """A small density field that tells where along a ray it is worth looking."""

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

    At evaluation the embedding is the mean of the training photos'. To put this field into a model of your own, give
    it the scene box, the number of training photos and two configurations.
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
        """Density and colour; at evaluation, colour only where a sample is seen."""
        if self.training or compute_normals:
            return super().forward(ray_samples, compute_normals=compute_normals)
        density, features = self.density_of(positions_of(ray_samples))
        seen = weights_of(ray_samples, density)[..., 0] > UNSEEN_WEIGHT
        seen[..., -1] = True  # the last sample's colour may be the background's
        rgb = features.new_zeros(*seen.shape, 3)
        rgb[seen] = self._color(features[seen], ray_samples.frustums.directions[seen], None)
        return {FieldHeadNames.DENSITY: density, FieldHeadNames.RGB: rgb}

    def surface_color(self, positions: Tensor, directions: Tensor) -> Tensor:
        """Colour (..., 3) at positions (..., 3) seen along unit directions (..., 3), with the mean appearance."""
        _, features = self.density_of(positions)
        return self._color(features, directions, None)

    def _color(self, features: Tensor, directions: Tensor, appearance: Tensor | None) -> Tensor:
        if self.appearance is not None and appearance is None:
            appearance = self.appearance.mean(dim=0)
        return self.field.color(features, directions, appearance)


def make_appearance(num_images: int, color: ColorConfig) -> Embedding | None:
    """The embedding of each training photo's exposure and white balance, where the configuration has one."""
    if not color.appearance_features:
        return None
    appearance = Embedding(num_images, color.appearance_features)
    # A common start, so that the mean at evaluation is a photo's own neighbour.
    torch.nn.init.zeros_(appearance.embedding.weight)
    return appearance


def _once(values: Tensor) -> Tensor:
    """One sample's values (rays, 1, n) of (rays, samples, n), where the samples of a ray share them."""
    shared = values.ndim > 2 and values.stride(-2) == 0
    return values[..., :1, :] if shared else values
