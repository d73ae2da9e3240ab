"""Configuration as frozen dataclasses: fields hold the defaults, and the docstrings below them are the help texts.

This module does not import torch. A preset (`staf_nerf.presets`) lists only the values that differ from these defaults.
A help text breaks only between sentences: the command line shows each line of a docstring on a line of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from staf_nerf.migrations import migrated


def check_range(config, **bounds: tuple[float, float]) -> None:
    """Raises ValueError for the first named value that is not finite or lies outside its closed interval."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and low <= value <= high):
            accepted = f">= {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise ValueError(f"{name} must be {accepted}, got {value}")


def check_choice(config, **choices: tuple[str, ...]) -> None:
    """Raises ValueError for the first named value that is not among its choices."""
    for name, accepted in choices.items():
        if getattr(config, name) not in accepted:
            raise ValueError(f"{name} must be one of {list(accepted)}, got {getattr(config, name)!r}")


class Stored:
    """Base of the configurations that nerfstudio stores in config.yml as objects. Those of version 0.1 are read too."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = vars(type(self)()) | migrated(type(self).__name__, state)
        if isinstance(table := values.get("encoding"), Mapping):
            values["encoding"] = ENCODINGS[table["name"]](**{key: table[key] for key in table if key != "name"})
        if isinstance(table := values.get("activation"), Mapping):
            values["activation"] = ActivationConfig(**table)
        self.__dict__.update({key: values[key] for key in known_keys(self) if key in values})


@dataclass(frozen=True)
class IdentityConfig:
    """No encoding: the network reads the coordinates."""

    name: str = dataclasses.field(default="identity", init=False)
    """Name in presets and on the command line."""


@dataclass(frozen=True)
class FourierConfig:
    """Random Fourier features."""

    name: str = dataclasses.field(default="fourier", init=False)
    """Name in presets and on the command line."""
    num_frequencies: int = 10
    """Number of frequencies."""
    scale: float = 10.0
    """Standard deviation of the frequencies, in cycles per unit of length."""

    def __post_init__(self) -> None:
        check_range(self, num_frequencies=(1, math.inf), scale=(1e-6, 1e6))


@dataclass(frozen=True)
class OctavesConfig:
    """Frequencies in octaves on each axis, as in NeRF."""

    name: str = dataclasses.field(default="octaves", init=False)
    """Name in presets and on the command line."""
    num_frequencies: int = 10
    """Number of frequencies per axis."""

    def __post_init__(self) -> None:
        check_range(self, num_frequencies=(1, math.inf))


@dataclass(frozen=True)
class HashGridConfig:
    """A hash grid."""

    name: str = dataclasses.field(default="hash", init=False)
    """Name in presets and on the command line."""
    num_levels: int = 8
    """Number of levels."""
    features_per_level: int = 2
    """Number of features at each grid point of a level."""
    log2_table_size: int = 15
    """Base-2 logarithm of the largest number of table rows per level."""
    base_resolution: int = 16
    """Number of cells along each axis of the coarsest level."""
    max_resolution: int = 512
    """Number of cells along each axis of the finest level."""
    feature_scale: float = 10.0
    """Factor on the features. They start near 1e-4, and a network learns slowly from such small inputs."""
    coordinate_scale: float = 0.0
    """The network also reads the coordinates, times this factor. 0: it reads the features alone."""

    def __post_init__(self) -> None:
        check_range(self, num_levels=(1, math.inf), features_per_level=(1, math.inf), log2_table_size=(1, 30))
        check_range(self, base_resolution=(2, self.max_resolution))
        check_range(self, coordinate_scale=(0, 1e6), feature_scale=(1e-6, 1e6))


EncodingConfig = IdentityConfig | FourierConfig | OctavesConfig | HashGridConfig
ENCODINGS: dict[str, type[EncodingConfig]] = {
    kind.name: kind for kind in (IdentityConfig, FourierConfig, OctavesConfig, HashGridConfig)
}


@dataclass(frozen=True)
class ActivationConfig:
    """An activation, by its name in `staf_nerf.activations.ACTIVATIONS`, and its options.

    The options are the arguments of the activation's constructor. An activation with a frequency scale ω has
    `first_omega` (of the first layer) and `hidden_omega` (of the others) in place of `omega`, in radians per unit.
    They are checked when a network is made.
    """

    name: str = "staf"
    """Name of the activation."""
    options: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict, hash=False)
    """Options that differ from the activation's defaults."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", dict(self.options))


AS_THE_FIELD = "field"
"""Name of the colour network's activation that stands for the field's."""


@dataclass(frozen=True)
class Choice:
    """What a command line says of an encoding or an activation: "hash", or with options "hash:num_levels=16".

    `staf_nerf.presets.resolved` turns it into a configuration: the options change those of a preset.
    """

    text: str


def text_of(value: EncodingConfig | ActivationConfig | Choice) -> str:
    """Returns an encoding or an activation as a text, with the options that differ from the defaults."""
    if isinstance(value, Choice):
        return value.text
    if isinstance(value, ActivationConfig):
        options = value.options
    else:
        found, usual = dataclasses.asdict(value), dataclasses.asdict(type(value)())
        options = {key: found[key] for key in found if found[key] != usual[key]}
    texts = (f"{key}={json.dumps(x) if isinstance(x, bool) else x}" for key, x in options.items())
    return ":".join(filter(None, (value.name, ",".join(texts))))


def one_flag() -> object:
    """Returns what tells tyro that an encoding or an activation is one text. tyro calls it: this module needs none."""
    from tyro.constructors import PrimitiveConstructorSpec

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME[:OPTION=VALUE,...]",
        instance_from_str=lambda texts: Choice(texts[0]),
        is_instance=lambda value: isinstance(value, EncodingConfig | ActivationConfig | Choice),
        str_from_instance=lambda value: [text_of(value)],
    )


@dataclass(frozen=True)
class FieldConfig(Stored):
    """The network and its encoding: the table [field] of a preset, the same for every kind of signal."""

    encoding: Annotated[EncodingConfig, one_flag()] = dataclasses.field(default_factory=IdentityConfig)
    """Encoding of the coordinates, such as hash:num_levels=16,max_resolution=512.
    "identity" is none. "fourier": num_frequencies=10, scale=10.0.
    "octaves" (NeRF): num_frequencies=10.
    "hash" (hash grid): num_levels=8, features_per_level=2, log2_table_size=15.
    Also base_resolution=16, max_resolution=512, feature_scale=10.0.
    Also coordinate_scale=0.0."""
    activation: Annotated[ActivationConfig, one_flag()] = dataclasses.field(default_factory=ActivationConfig)
    """Activation of the hidden layers, such as gaussian:width=0.05.
    "staf": num_frequencies=5, sharing=layer, initialization=normalized.
    "finer": first_bias=1.0. "gaussian": width=0.05. "gabor" (WIRE): scale=10.0.
    "sine" (SIREN), "hsiren" (H-SIREN), "sinc", "filter" (MFN), "relu".
    All but "gaussian" and "relu": first_omega=30.0.
    All but these and "filter": hidden_omega=30.0."""
    hidden_features: int = 64
    """Number of features of each hidden layer."""
    hidden_layers: int = 1
    """Number of hidden layers."""
    skip: bool = False
    """Add the pre-activation to the output of every hidden layer but the first (a skip connection)."""

    def __post_init__(self) -> None:
        check_range(self, hidden_features=(1, math.inf), hidden_layers=(0, math.inf))
        for name, kind in (("encoding", EncodingConfig), ("activation", ActivationConfig)):
            if not isinstance(value := getattr(self, name), kind | Choice):
                raise ValueError(f"{name} must be one of the classes {kind}, got {value!r}")


@dataclass(frozen=True)
class ColorConfig(Stored):
    """The colour network of a radiance field. It reads geometry features, the viewing direction and the appearance."""

    geometry_features: int = 15
    """Number of features that the colour network receives from the geometry network."""
    direction_encoding: Literal["harmonics", "identity"] = "harmonics"
    """Encoding of the viewing direction: spherical harmonics up to degree 3, or none."""
    hidden_features: int = 64
    """Number of features of each hidden layer."""
    hidden_layers: int = 2
    """Number of hidden layers."""
    activation: Annotated[ActivationConfig, one_flag()] = dataclasses.field(
        default_factory=lambda: ActivationConfig(AS_THE_FIELD)
    )
    """Activation of the hidden layers, written as that of the field.
    "field": that of the field with its options, but with frequency scales of 1. Options change the field's."""
    appearance_features: int = 32
    """Size of the appearance embedding, which models each photo's exposure and white balance. 0: no embedding."""

    def __post_init__(self) -> None:
        check_range(self, geometry_features=(1, math.inf), hidden_features=(1, math.inf), hidden_layers=(0, math.inf))
        check_range(self, appearance_features=(0, math.inf))
        check_choice(self, direction_encoding=("harmonics", "identity"))


@dataclass(frozen=True)
class SamplingConfig(Stored):
    """Samples along each ray: first those of the proposal networks, then those of the radiance field."""

    proposal_samples: tuple[int, ...] = (64, 32)
    """Number of samples per ray in each round of proposal sampling."""
    field_samples: int = 24
    """Number of samples per ray of the field itself."""
    near: float = 0.05
    """Distance at which rays start, in scene units (the cameras lie in [-1, 1])."""
    far: float = 1000.0
    """Distance at which rays end, in scene units."""
    proposal_warmup: int = 500
    """Number of steps over which the updates of the proposal networks become less frequent."""
    proposal_update_every: int = 5
    """Number of steps between updates of the proposal networks after the warm-up."""
    interlevel_weight: float = 1.0
    """Weight of the interlevel loss (mip-NeRF 360), which trains the proposal networks."""
    distortion_weight: float = 0.002
    """Weight of the distortion loss (mip-NeRF 360), which makes the weights along a ray compact."""

    def __post_init__(self) -> None:
        if not self.proposal_samples or min(self.proposal_samples) < 1:
            raise ValueError(f"proposal_samples must be one or more numbers >= 1, got {self.proposal_samples}")
        check_range(self, field_samples=(1, math.inf), proposal_update_every=(1, math.inf))
        check_range(self, proposal_warmup=(0, math.inf))
        check_range(self, interlevel_weight=(0, math.inf), distortion_weight=(0, math.inf))
        check_range(self, near=(0, math.inf), far=(self.near, math.inf))


@dataclass(frozen=True)
class OptimizationConfig:
    """Optimisers and learning rates, of signals and radiance fields; see `staf_nerf.fitting.optimizers`."""

    optimizer: Literal["muon", "adam"] = "muon"
    """Optimizer for the weight matrices of the hidden layers. Adam trains all other parameters."""
    hidden_learning_rate: float = 3e-3
    """Learning rate for the weight matrices of the hidden layers."""
    muon_momentum: float = 0.95
    """Muon's momentum, between 0 and 0.999. Less momentum allows a higher learning rate."""
    muon_ns_steps: int = 5
    """Number of Newton-Schulz iterations of Muon. Fewer iterations leave small singular values of an update smaller."""
    first_layer_learning_rate: float = 3e-4
    """Adam's learning rate for the weights of a first layer that reads coordinates, in radians per unit.
    It is divided by the frequency scale of the layer's activation, if there is one."""
    activation_learning_rate: float = 3e-3
    """Adam's learning rate for the amplitudes, frequencies and phases of STAF."""
    encoding_learning_rate: float = 1e-2
    """Adam's learning rate for the tables of hash grids."""
    network_learning_rate: float = 1e-3
    """Adam's learning rate for all other parameters, such as biases and the output layer."""
    learning_rate_decay: float = 0.01
    """Learning rates decay exponentially to this fraction of their initial value."""

    def __post_init__(self) -> None:
        rates = [name for name in known_keys(self) if name.endswith("learning_rate")]
        check_range(self, **dict.fromkeys(rates, (0.0, 10.0)), learning_rate_decay=(1e-6, 1.0))
        check_range(self, muon_momentum=(0, 0.999), muon_ns_steps=(1, 20))
        check_choice(self, optimizer=("muon", "adam"))


@dataclass(frozen=True)
class TrainingConfig(OptimizationConfig):
    """Training of a radiance field: steps, rays and learning rates."""

    encoding_learning_rate: float = 1e-2
    """Adam's learning rate for the tables of hash grids, and for proposal networks."""
    hidden_learning_rate: float = 5e-2
    """Learning rate for the weight matrices of the hidden layers."""
    network_learning_rate: float = 5e-3
    """Adam's learning rate for all other parameters: biases, output layers, appearance embeddings."""
    activation_learning_rate: float = 1e-2
    """Adam's learning rate for the amplitudes, frequencies and phases of STAF."""
    learning_rate_decay: float = 0.1
    """Learning rates decay exponentially to this fraction of their initial value."""

    steps: int = 3000
    """Number of training steps."""
    rays_per_step: int = 1024
    """Number of rays per training step."""
    rays_per_chunk: int = 2048
    """Number of rays that are rendered at a time at evaluation. It limits the memory use."""
    camera_optimizer: bool = False
    """Optimise the camera poses during training.
    In a short run this moves the training poses away from the held-out ones."""
    camera_learning_rate: float = 1e-4
    """Adam's learning rate for the camera poses."""
    camera_warmup: int = 1000
    """Number of steps over which the learning rate of the camera poses rises to its full value."""
    train_every: int = 1
    """Use only every n-th training view. 1: use all of them."""
    max_image_size: int = 480
    """Longest side of the training images in pixels. Larger images are reduced by an integer factor."""
    viewer_resolution: int = 164
    """Longest side of the viewer's images in pixels (64 to 2048). Larger ones slow down training more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, steps=(1, math.inf), rays_per_step=(1, math.inf), rays_per_chunk=(1, math.inf))
        check_range(self, train_every=(1, math.inf))
        check_range(self, camera_warmup=(0, math.inf), max_image_size=(16, math.inf), viewer_resolution=(64, 2048))


@dataclass(frozen=True)
class SurfaceConfig(Stored):
    """Settings of the signed distance field: its start and its losses."""

    extent: float = 0.75
    """Half the side length of the cube that contains the surface, for captures without bounds or sparse points.
    Around an object: relative to the distance from the nearest camera to the point that all cameras look at.
    In a room: in scene units (the cameras lie in [-1, 1])."""
    inside: Literal["auto", "object", "room"] = "auto"
    """Whether the cameras stand around the surface ("object") or inside it ("room").
    "auto" decides by the viewing directions of the cameras."""
    radius: float = 0.5
    """Radius of the initial sphere around an object, relative to half the width of the view at the object.
    A sphere that fills the views hides everything behind it and turns into a wall in front of each camera.
    Without camera directions the radius is relative to half the side length of the cube."""
    sharpness: float = 20.0
    """Initial sharpness of the surface (1/s in NeuS), per scene unit, for a start as a sphere.
    A larger value makes the opacity rise over a shorter distance."""
    density_steps: int = 1500
    """Number of steps of density training before the surface is initialised from the density.
    At most a quarter of all steps. 0: the surface starts as a sphere."""
    prior_steps: int = 4000
    """Number of steps over which the prior loss fades out. It keeps the surface near its initialisation."""
    prior_weight: float = 0.1
    """Initial weight of the prior loss."""
    anneal_steps: int = 500
    """Number of steps over which back-facing surfaces fade out of the rendering (cosine annealing in NeuS)."""
    eikonal_weight: float = 0.01
    """Weight of the eikonal loss, which keeps the gradient of the signed distance at unit length.
    A weight ten times as large keeps the surface from bending into details."""

    def __post_init__(self) -> None:
        check_range(self, extent=(1e-3, 1e3), radius=(0.01, 1), sharpness=(1e-3, 1e6))
        check_range(self, density_steps=(0, math.inf), prior_steps=(0, math.inf), prior_weight=(0, math.inf))
        check_range(self, anneal_steps=(0, math.inf), eikonal_weight=(0, math.inf))
        check_choice(self, inside=("auto", "object", "room"))


@dataclass(frozen=True)
class RadianceConfig:
    """A radiance field method: everything that its preset in `method_configs/` can set."""

    task: ClassVar[str] = "radiance"
    """Kind of signal."""
    description: str = ""
    """One-line description, shown by `ns-train --help`."""
    geometry: Literal["density", "signed-distance"] = "density"
    """Quantity that the field learns: a density, or the signed distance to a surface (negative inside)."""
    background_color: Literal["auto", "random", "last_sample", "black", "white"] = "auto"
    """Background colour. "auto": random if the photos have transparency, otherwise the colour of the last sample."""
    surface: SurfaceConfig = dataclasses.field(default_factory=SurfaceConfig)
    """Settings of the signed distance field."""
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """The geometry network and its encoding."""
    background: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """Signed distance only: the density network that is trained first and then models what lies behind the surface."""
    color: ColorConfig = dataclasses.field(default_factory=ColorConfig)
    """The colour network."""
    proposal: FieldConfig = dataclasses.field(
        default_factory=lambda: FieldConfig(
            encoding=HashGridConfig(num_levels=5, log2_table_size=13, max_resolution=128),
            activation=ActivationConfig("relu"),
            hidden_features=16,
        )
    )
    """The first proposal network. Each further one doubles the resolution of the finest hash grid level."""
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    """Samples along rays."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """Steps, rays and learning rates."""

    def __post_init__(self) -> None:
        check_choice(self, task=("radiance",), geometry=("density", "signed-distance"))
        check_choice(self, background_color=("auto", "random", "last_sample", "black", "white"))


BUDGETS = ("minutes", "steps", "epochs")
"""Ways to say how long a fit lasts. Exactly one of them counts."""
DEFAULT_MINUTES = 5.0
"""Duration of a fit if no budget is given."""


@dataclass(frozen=True)
class Budget:
    """How long a fit lasts, in minutes, steps or epochs, and the size of its batches."""

    minutes: float | None = None
    """Training time in minutes. A fit lasts for minutes, steps or epochs."""
    steps: int | None = None
    """Number of training steps."""
    epochs: int | None = None
    """Number of epochs, in each of which every pixel or sample is drawn once."""
    points: int = 16384
    """Batch size: number of points per training step. 0: all pixels or samples in every step."""


@dataclass(frozen=True)
class FitConfig(OptimizationConfig, Budget):
    """Training of a fit: duration, batch size and learning rates.

    One of `minutes`, `steps` and `epochs` says how long it lasts. Without any of them it lasts for five minutes.
    Without `epochs` every batch is drawn from all pixels or samples with replacement.
    """

    activation_delay: float = 0.0
    """Fraction of the training after which the amplitudes, frequencies and phases start to train."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if not given:
            object.__setattr__(self, "minutes", DEFAULT_MINUTES)
        if len(given) > 1:
            raise ValueError(f"only one of minutes, steps and epochs can be given, got {' and '.join(given)}")
        for name in given:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        check_range(self, points=(0, math.inf))
        check_range(self, activation_delay=(0, 1))

    def lasting(
        self, *, minutes: float | None = None, steps: int | None = None, epochs: int | None = None
    ) -> FitConfig:
        """Returns these settings with another budget. Without one it is the default of five minutes."""
        return dataclasses.replace(self, minutes=minutes, steps=steps, epochs=epochs)


@dataclass(frozen=True)
class ShapeConfig:
    """A fit of a shape to a mesh or a point cloud: everything that the preset `shape` can set."""

    task: ClassVar[str] = "shape"
    """Kind of signal."""
    quantity: Literal["signed-distance", "occupancy"] = "signed-distance"
    """Quantity that the network learns: signed distance (negative inside) or occupancy (1 inside, 0 outside)."""
    field: FieldConfig = dataclasses.field(default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=4))
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(default_factory=lambda: FitConfig(hidden_learning_rate=4e-3, muon_momentum=0.9))
    """Duration and learning rates."""
    surface_part: float = 0.2
    """Fraction of the training points that lie on the surface."""
    near_part: float = 0.6
    """Fraction of the training points near the surface, half of them at each distance of `near`.
    The remaining points are spread over the space around the shape."""
    near: tuple[float, float] = (0.002, 0.02)
    """The two standard deviations of the distance of near points, relative to the bounding box's diagonal."""
    grid: int = 0
    """Draw the spread points from cell centres of a grid with this many cells along its longest side. 0: no grid."""
    cached_points: int = 2**22
    """Number of points whose distances are computed once and reused (16 bytes each). 0: new points in every step."""
    softness: float = 0.01
    """Softness s of the loss abs(error) / (abs(d) + s) for a signed distance d, in the network's coordinates."""
    eikonal_weight: float = 0.0
    """Weight of the eikonal loss, which keeps the gradient of the signed distance at unit length.
    0: no eikonal loss. With it every step needs a second derivative."""

    def __post_init__(self) -> None:
        check_choice(self, quantity=("signed-distance", "occupancy"))
        check_range(self, surface_part=(0, 1), near_part=(0, 1 - self.surface_part + 1e-9), softness=(1e-6, 1e6))
        check_range(self, cached_points=(0, 2**31), eikonal_weight=(0, math.inf), grid=(0, 2**16))
        if self.fit.points < 2 or self.fit.epochs:
            found = f"{self.fit.points} and {self.fit.epochs}"
            raise ValueError(f"fit.points must be >= 2 and fit.epochs must not be given for a shape, got {found}")
        if len(self.near) != 2 or min(self.near) <= 0:
            raise ValueError(f"near must be two positive numbers, got {self.near}")


@dataclass(frozen=True)
class ImageConfig:
    """A fit of an image: everything that the preset `image` can set."""

    task: ClassVar[str] = "image"
    """Kind of signal."""
    field: FieldConfig = dataclasses.field(default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=4))
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(
        default_factory=lambda: FitConfig(
            minutes=1.0,
            points=2048,
            hidden_learning_rate=2.8e-3,
            muon_momentum=0.8,
            muon_ns_steps=3,
            activation_delay=0.5,
        )
    )
    """Duration and learning rates."""
    bandwidth: float = 0.1
    """Initial bandwidth of the first layer, as a fraction of the Nyquist frequency (half a cycle per pixel).
    It replaces the activation's first_omega and suits any image size. 0: use that."""
    pixel_samples: int = 1
    """A pixel is the mean over n x n samples of the field. 1: one sample at the pixel centre."""
    held_out: float = 0.0
    """Fraction of the pixels held out for validation. 0: none.
    The weights with the lowest validation error are kept."""
    align_corners: bool = False
    """Put the outermost pixel centres at -1 and 1 on both axes, as in published code.
    Otherwise the edges of the longer side lie at -1 and 1, and pixels are square."""
    zero_to_one: bool = False
    """Map the image to field values in [0, 1], as in published code, and not to [-1, 1]."""

    def __post_init__(self) -> None:
        check_range(self, bandwidth=(0, 100), held_out=(0, 0.9), pixel_samples=(1, 64))


@dataclass(frozen=True)
class SuperResolutionConfig(ImageConfig):
    """Super-resolution of an image: everything that the preset `superres` can set."""

    task: ClassVar[str] = "superres"
    """Kind of signal."""
    factor: int = 1
    """Factor by which the image is reduced along each axis before the fit, by averaging."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, factor=(1, 1024))


@dataclass(frozen=True)
class DenoisingConfig(ImageConfig):
    """Denoising of an image: everything that the preset `denoise` can set."""

    task: ClassVar[str] = "denoise"
    """Kind of signal."""
    photon_count: float = 0.0
    """Mean photon count of a white pixel, for the noise that is added to the image. 0: add no noise."""
    read_noise: float = 0.0
    """Standard deviation of the read noise that is added, in photons."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, photon_count=(0, math.inf), read_noise=(0, math.inf))


@dataclass(frozen=True)
class AudioConfig:
    """A fit of a sound with all of its channels: everything that the preset `audio` can set."""

    task: ClassVar[str] = "audio"
    """Kind of signal."""
    field: FieldConfig = dataclasses.field(
        default_factory=lambda: FieldConfig(
            hidden_features=256, hidden_layers=4, activation=ActivationConfig("staf", {"num_frequencies": 10})
        )
    )
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(
        default_factory=lambda: FitConfig(
            minutes=1.0, points=4096, hidden_learning_rate=1e-3, activation_learning_rate=5e-3
        )
    )
    """Duration and learning rates."""
    bandwidth: float = 0.006
    """Initial bandwidth of the first layer, as a fraction of the Nyquist frequency (half the sampling rate).
    It replaces the activation's first_omega. 0: use that.
    For seven seconds at 44.1 kHz the default is 3000 radians per unit, SIREN's value for such a clip."""

    def __post_init__(self) -> None:
        check_range(self, bandwidth=(0, 100))


def known_keys(config) -> list[str]:
    """Returns the names of the keys that a preset may set for this dataclass."""
    return [item.name for item in dataclasses.fields(config)]
