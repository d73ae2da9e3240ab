"""Fields: functions of space made of an encoding and a network, with heads for density, colour and signed distance.

Conventions: coordinates (..., d) lie in [-1, 1]. Density is per unit of length, in the units of the ray distances. rgb
lies in [0, 1]. Directions are unit vectors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from staf_nerf.activations import activation_options, checked_options
from staf_nerf.config import (
    AS_THE_FIELD,
    ActivationConfig,
    ColorConfig,
    FieldConfig,
    FourierConfig,
    HashGridConfig,
    IdentityConfig,
    OctavesConfig,
)
from staf_nerf.encodings import Encoding, FourierFeatures, HashGrid, Identity, Implementation, SphericalHarmonics
from staf_nerf.mlp import CoordinateMLP, names_if_alike

MAX_LOG_DENSITY = 15.0
"""Upper limit of the log-density. Its exponential is far from overflow."""


class NeuralField(nn.Module):
    """An encoding followed by a coordinate network: (..., in_features) -> (..., out_features).

    Args:
        in_features: Number of coordinates.
        out_features: Number of values.
        config: The encoding and the network.
        implementation: Implementation of a hash grid; see `HashGrid`.
        generator: Random generator for the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        config: FieldConfig,
        *,
        implementation: Implementation = "torch",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoding = make_encoding(in_features, config, implementation=implementation, generator=generator)
        self.mlp = make_mlp(
            self.encoding.out_features,
            out_features,
            config,
            reads_coordinates=isinstance(config.encoding, IdentityConfig),
            generator=generator,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.encoding(x))


class FieldStack(nn.Module):
    """Several fields of one architecture, each with its own points: (b, n, in_features) -> (b, n, out_features).

    Each field is evaluated as it is alone, with the same rounding. One batched matrix product per layer, as in
    `CoordinateMLP.stack`, rounds differently.

    Args:
        fields: The b fields.

    Raises:
        ValueError: If there are no fields, or their parameters have different shapes.
    """

    def __init__(self, fields: Sequence[NeuralField]) -> None:
        super().__init__()
        names_if_alike("fields", fields)
        self.fields = nn.ModuleList(fields)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([field(points) for field, points in zip(self.fields, x, strict=True)])


class SignedDistanceField(nn.Module):
    """The signed distance to a surface (negative inside), with features for a colour network. It starts as a sphere.

    The distance is the sum of a smooth sphere, √(‖x - c‖² + ε²) - √(r² + ε²), and the output of the network, whose last
    layer starts with zero weights. The initial surface is therefore exactly the sphere, for every activation and
    frequency, and the network learns the difference. With ε = r / 2 the distance is smooth at the centre, and its
    gradient has length 0.9 on the sphere and nearly 1 outside.

    Args:
        config: The network and its encoding.
        geometry_features: Number of features in addition to the distance.
        radius: Radius of the initial sphere. None: no sphere, the distance starts as the random network.
        center: Centre of the initial sphere.
        hollow: Whether inside and outside of the initial sphere are exchanged.
        implementation: Implementation of a hash grid; see `HashGrid`.
        generator: Random generator for the initial weights.
    """

    sphere: Tensor

    def __init__(
        self,
        config: FieldConfig,
        *,
        geometry_features: int = 0,
        radius: float | None = 0.5,
        center: tuple[float, float, float] = (0.0, 0.0, 0.0),
        hollow: bool = False,
        implementation: Implementation = "torch",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.geometry = NeuralField(
            3, 1 + geometry_features, config, implementation=implementation, generator=generator
        )
        sign = 0.0 if radius is None else -1.0 if hollow else 1.0
        self.register_buffer("sphere", torch.tensor([*center, 1.0 if radius is None else radius, sign]))
        if radius is not None:
            with torch.no_grad():
                self.geometry.mlp.output.weight[0] = 0.0
                self.geometry.mlp.output.bias[0] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Returns the signed distance (..., 1) at x (..., 3)."""
        return self.distance(x)[0]

    def distance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the signed distance (..., 1) and features (..., g) at x (..., 3)."""
        raw = self.geometry(x)
        departure, features = raw.split([1, raw.shape[-1] - 1], dim=-1)
        return departure + self.first_distance(x), features

    def first_distance(self, x: Tensor) -> Tensor:
        """Returns the signed distance (..., 1) of the initial sphere at x (..., 3)."""
        center, radius, sign = self.sphere.split([3, 1, 1])
        rounding = (0.5 * radius).square()
        squared = (x - center).square().sum(-1, keepdim=True)
        return sign * ((squared + rounding).sqrt() - (radius.square() + rounding).sqrt())


class _ColorField(nn.Module):
    """Base class of fields with colour: a network from geometry features and a view direction to rgb."""

    color_mlp: CoordinateMLP

    def _make_color(
        self, config: FieldConfig, color: ColorConfig, generator: Generator | None, *, normals: bool = False
    ) -> None:
        self.appearance_features = color.appearance_features
        self.direction_encoding = SphericalHarmonics() if color.direction_encoding == "harmonics" else Identity(3)
        head = FieldConfig(
            activation=color_activation(config.activation, color.activation),
            hidden_features=color.hidden_features,
            hidden_layers=color.hidden_layers,
        )
        width = color.geometry_features + self.direction_encoding.out_features + color.appearance_features
        self.color_mlp = make_mlp(width + 3 * normals, 3, head, reads_coordinates=False, generator=generator)

    def color(
        self, features: Tensor, directions: Tensor, appearance: Tensor | None = None, normals: Tensor | None = None
    ) -> Tensor:
        """Returns the colour (..., 3) in [0, 1].

        Leading dimensions broadcast: with directions of shape (rays, 1, 3) and features of shape (rays, samples, g),
        terms that depend on directions alone are computed once per ray.

        Args:
            features: Geometry features, (..., g).
            directions: View directions of unit length, (..., 3).
            appearance: Appearance embedding of the photo, (..., a), if the field has one.
            normals: Surface normals, (..., 3), for fields that use them.

        Raises:
            ValueError: If the field has an appearance embedding and `appearance` is None.
        """
        if self.appearance_features and appearance is None:
            raise ValueError(f"appearance must be a tensor of {self.appearance_features} features, got None")
        parts = [features, self.direction_encoding(directions)]
        if normals is not None:
            parts.append(normals)
        if self.appearance_features and appearance is not None:
            parts.append(appearance)
        return torch.sigmoid(self.color_mlp(*parts))


class RadianceField(_ColorField):
    """A radiance field: density, and colour that depends on the view direction.

    Args:
        config: The density network and its encoding.
        color: The colour network. Its activation is that of `config`.
        average_density: Density where the density network returns 0, which is nearly everywhere at initialisation.
        implementation: Implementation of a hash grid; see `HashGrid`.
        generator: Random generator for the initial weights.
    """

    def __init__(
        self,
        config: FieldConfig,
        color: ColorConfig,
        *,
        average_density: float = 1.0,
        implementation: Implementation = "torch",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.average_density = average_density
        self.geometry = NeuralField(
            3, 1 + color.geometry_features, config, implementation=implementation, generator=generator
        )
        self._make_color(config, color, generator)

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the density (..., 1) at positions (..., 3), and the geometry features (..., g) for `color`."""
        raw = self.geometry(positions)
        logarithm, features = raw.split([1, raw.shape[-1] - 1], dim=-1)
        return self.average_density * truncated_exp(logarithm), features

    def forward(self, positions: Tensor, directions: Tensor, appearance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns density (..., 1) and colour (..., 3)."""
        density, features = self.density(positions)
        return density, self.color(features, directions, appearance)


class SurfaceField(_ColorField):
    """A surface field: signed distance, and colour that depends on the view direction and the normal.

    Args:
        config: The distance network and its encoding.
        color: The colour network. Its activation is that of `config`.
        radius: Radius of the initial sphere.
        center: Centre of the initial sphere.
        hollow: Whether inside and outside of the initial sphere are exchanged, for cameras inside a room.
        implementation: Implementation of a hash grid; see `HashGrid`.
        generator: Random generator for the initial weights.
    """

    def __init__(
        self,
        config: FieldConfig,
        color: ColorConfig,
        *,
        radius: float = 0.5,
        center: tuple[float, float, float] = (0.0, 0.0, 0.0),
        hollow: bool = False,
        implementation: Implementation = "torch",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.distance = SignedDistanceField(
            config,
            geometry_features=color.geometry_features,
            radius=radius,
            center=center,
            hollow=hollow,
            implementation=implementation,
            generator=generator,
        )
        self._make_color(config, color, generator, normals=True)

    def surface(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns signed distance (N, 1), its gradient (N, 3), differentiable in training mode, and features (N, g)."""
        with torch.enable_grad():
            positions = positions.detach().requires_grad_() if not positions.requires_grad else positions
            distance, features = self.distance.distance(positions)
            gradient = torch.autograd.grad(distance.sum(), positions, create_graph=self.training)[0]
        return distance, gradient, features


def truncated_exp(x: Tensor) -> Tensor:
    """Returns exp(min(x, 15)). The gradient does not vanish above 15, so that opaque space can become free again."""
    held = x.clamp(max=MAX_LOG_DENSITY)
    return torch.exp(x + (held - x).detach())


def make_encoding(
    in_features: int,
    config: FieldConfig,
    *,
    implementation: Implementation = "torch",
    generator: Generator | None = None,
) -> Encoding:
    """Returns the encoding of a configuration, with `in_features` and `out_features`."""
    match config.encoding:
        case IdentityConfig():
            return Identity(in_features)
        case FourierConfig(num_frequencies=count, scale=scale):
            return FourierFeatures(in_features, num_frequencies=count, scale=scale, generator=generator)
        case OctavesConfig(num_frequencies=count):
            return FourierFeatures(in_features, num_frequencies=count, kind="octaves", include_input=True)
        case HashGridConfig():
            options = dataclasses.asdict(config.encoding)
            del options["name"]
            return HashGrid(in_features, **options, implementation=implementation, generator=generator)
    raise ValueError(f"encoding must be a configuration of an encoding, got {config.encoding!r}")


def make_mlp(
    in_features: int,
    out_features: int,
    config: FieldConfig,
    *,
    reads_coordinates: bool = True,
    generator: Generator | None = None,
) -> CoordinateMLP:
    """Returns the coordinate network of a configuration; see `CoordinateMLP` for `reads_coordinates`.

    Raises:
        ValueError: If the activation or one of its options is unknown, or a value is not accepted.
    """
    activation = config.activation
    return CoordinateMLP(
        in_features,
        out_features,
        hidden_features=config.hidden_features,
        hidden_layers=config.hidden_layers,
        activation=activation.name,
        reads_coordinates=reads_coordinates,
        skip=config.skip,
        generator=generator,
        **checked_options(activation.name, activation.options),
    )


def color_activation(field: ActivationConfig, color: ActivationConfig) -> ActivationConfig:
    """Returns the activation of a colour network. "field" stands for that of the field, with frequency scales of 1."""
    if color.name != AS_THE_FIELD:
        return color
    scales = {key: 1.0 for key in activation_options(field.name) if key in ("first_omega", "hidden_omega")}
    return ActivationConfig(field.name, {**field.options, **scales, **color.options})


def count_parameters(module: nn.Module) -> int:
    """Returns the number of parameters. A complex parameter counts as two."""
    return sum((1 + p.is_complex()) * p.numel() for p in module.parameters())
