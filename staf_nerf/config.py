"""Configuration: frozen dataclasses whose docstrings are the help texts, and whose defaults live here.

Nothing here imports torch. A preset (`staf_nerf.presets`) lists only what differs from these defaults.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal


def _check_range(config, **bounds: tuple[float, float]) -> None:
    """Raises ValueError for the first named value outside its closed interval, or not a finite number."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and low <= value <= high):
            accepted = f">= {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise ValueError(f"{name} must be {accepted}, got {value}")


def _check_choice(config, **choices: tuple[str, ...]) -> None:
    for name, accepted in choices.items():
        if getattr(config, name) not in accepted:
            raise ValueError(f"{name} must be one of {list(accepted)}, got {getattr(config, name)!r}")


@dataclass(frozen=True)
class FieldConfig:
    """A coordinate network and the encoding before it: the table [field] that all kinds of signals share."""

    encoding: Literal["identity", "fourier", "octaves", "hash"] = "identity"
    """What the network reads: coordinates, random Fourier features, NeRF's positional encoding, or a hash grid."""
    num_levels: int = 8
    """Hash grid: number of grids."""
    features_per_level: int = 2
    """Hash grid: features of a grid point."""
    log2_table_size: int = 15
    """Hash grid: base-2 logarithm of the most rows that a level has."""
    base_resolution: int = 16
    """Hash grid: cells along an axis of the coarsest grid."""
    max_resolution: int = 512
    """Hash grid: cells along an axis of the finest grid."""
    feature_scale: float = 10.0
    """Hash grid: factor on its features. They start near 1e-4, where a network learns slowly."""
    coordinate_scale: float = 0.0
    """Hash grid: factor on the coordinates, which the network then reads beside the features; 0: it does not."""
    encoding_frequencies: int = 10
    """Fourier features: number of frequencies (of octaves on each axis for "octaves")."""
    encoding_scale: float = 10.0
    """Random Fourier features: standard deviation of the frequencies, cycles per unit."""
    activation: Literal["staf", "sine", "finer", "gaussian", "gabor", "sinc", "filter", "relu"] = "staf"
    """Activation of the hidden layers; "gabor" is WIRE, "filter" a multiplicative filter network."""
    hidden_features: int = 64
    """Width of the hidden layers."""
    hidden_layers: int = 1
    """Number of hidden layers."""
    first_omega: float = 30.0
    """Frequency scale of the first layer, radians per unit; for the activations that have one."""
    hidden_omega: float = 30.0
    """Frequency scale of the other hidden layers."""
    num_frequencies: int = 5
    """STAF: number of sinusoids."""
    skip: bool = False
    """Whether a hidden layer after the first adds what its activation reads to what it gives."""
    sharing: Literal["layer", "neuron", "network"] = "layer"
    """STAF: who shares a set of amplitudes, frequencies and phases."""
    initialization: Literal["normalized", "siren", "theorem", "published"] = "normalized"
    """STAF: how amplitudes, frequencies and phases start."""
    gaussian_width: float = 0.05
    """Gaussian: its standard deviation."""
    gabor_scale: float = 10.0
    """Gabor: how narrow its envelope is."""
    first_bias: float = 1.0
    """FINER: the first layer's biases start within plus and minus this."""

    def __post_init__(self) -> None:
        counts = ("num_levels", "features_per_level", "encoding_frequencies", "hidden_features", "num_frequencies")
        _check_range(self, **dict.fromkeys(counts, (1, math.inf)), hidden_layers=(0, math.inf))
        _check_range(self, log2_table_size=(1, 30), base_resolution=(2, self.max_resolution))
        _check_range(self, coordinate_scale=(0, 1e6), feature_scale=(1e-6, 1e6), encoding_scale=(1e-6, 1e6))
        _check_range(self, first_omega=(1e-6, 1e6), hidden_omega=(1e-6, 1e6))
        _check_range(self, gaussian_width=(1e-6, 1e6), gabor_scale=(1e-6, 1e6), first_bias=(0, 1e6))
        _check_choice(
            self,
            encoding=("identity", "fourier", "octaves", "hash"),
            activation=("staf", "sine", "finer", "gaussian", "gabor", "sinc", "filter", "relu"),
            sharing=("layer", "neuron", "network"),
            initialization=("normalized", "siren", "theorem", "published"),
        )


@dataclass(frozen=True)
class ColorConfig:
    """The colour network of a radiance field: from the geometry's features, the direction and the appearance."""

    geometry_features: int = 15
    """Features that the density network hands to the colour network."""
    direction_encoding: Literal["harmonics", "identity"] = "harmonics"
    """Spherical harmonics up to degree 3, or the direction's three numbers."""
    hidden_features: int = 64
    """Width of the hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers. Their activation is the field's."""
    first_omega: float = 1.0
    """Frequency scale of the first layer, radians per unit."""
    hidden_omega: float = 1.0
    """Frequency scale of the other hidden layers."""
    appearance_features: int = 32
    """Size of the embedding of each training photo's exposure and white balance; 0: none."""

    def __post_init__(self) -> None:
        _check_range(self, geometry_features=(1, math.inf), hidden_features=(1, math.inf), hidden_layers=(0, math.inf))
        _check_range(self, appearance_features=(0, math.inf), first_omega=(1e-6, 1e6), hidden_omega=(1e-6, 1e6))
        _check_choice(self, direction_encoding=("harmonics", "identity"))


@dataclass(frozen=True)
class SamplingConfig:
    """Where along its ray a colour is computed: proposal networks first, the radiance field then."""

    proposal_samples: tuple[int, ...] = (64, 32)
    """Samples of each round of proposals, along a ray."""
    field_samples: int = 24
    """Samples of the radiance field, along a ray."""
    near: float = 0.05
    """Where a ray starts, in units of the scene (cameras lie in [-1, 1])."""
    far: float = 1000.0
    """Where a ray ends."""
    proposal_warmup: int = 500
    """Steps over which the proposal networks' updates become rarer."""
    proposal_update_every: int = 5
    """After the warm-up, the proposal networks learn every so many steps."""
    interlevel_weight: float = 1.0
    """Weight of the loss that makes the proposals bound the field's weights."""
    distortion_weight: float = 0.002
    """Weight of the loss that draws a ray's weights together."""

    def __post_init__(self) -> None:
        if not self.proposal_samples or min(self.proposal_samples) < 1:
            raise ValueError(f"proposal_samples must be one or more numbers >= 1, got {self.proposal_samples}")
        _check_range(self, field_samples=(1, math.inf), proposal_update_every=(1, math.inf))
        _check_range(self, proposal_warmup=(0, math.inf))
        _check_range(self, interlevel_weight=(0, math.inf), distortion_weight=(0, math.inf))
        _check_range(self, near=(0, math.inf), far=(self.near, math.inf))


@dataclass(frozen=True)
class TrainingConfig:
    """How a radiance field is trained: steps, rays and learning rates."""

    steps: int = 3000
    """Number of training steps."""
    rays_per_step: int = 1024
    """Rays in a step."""
    rays_per_chunk: int = 2048
    """Rays that are rendered at a time when a whole picture is."""
    learning_rate: float = 1e-2
    """Adam's learning rate for the encoding (and for all of a field that has no hash grid)."""
    optimizer: Literal["muon", "adam"] = "muon"
    """What changes the weights of the networks' hidden layers; the rest is Adam's."""
    matrix_learning_rate: float = 5e-2
    """Learning rate for the weights of the networks' hidden layers."""
    network_learning_rate: float = 5e-3
    """Adam's learning rate for what else the networks hold: biases, the last layers' weights, embeddings."""
    activation_learning_rate: float = 1e-2
    """Adam's learning rate for amplitudes, frequencies and phases."""
    final_learning_rate: float = 0.1
    """Learning rates decay exponentially to this part of their start."""
    camera_optimizer: bool = False
    """Corrects the camera poses, late and slowly. In a short run it moves them away from the held-out ones."""
    camera_learning_rate: float = 1e-4
    """Adam's learning rate for the poses."""
    camera_warmup: int = 1000
    """Steps over which the poses' learning rate rises to its full value."""
    train_every: int = 1
    """Only every so manyth of the views to train on is used."""
    max_image_size: int = 480
    """Longest side, in pixels, of the images to train on; larger ones are made smaller by a whole factor."""
    viewer_resolution: int = 164
    """Longest side, in pixels, of the viewer's pictures: a larger one holds up the training longer."""

    def __post_init__(self) -> None:
        _check_range(self, steps=(1, math.inf), rays_per_step=(1, math.inf), rays_per_chunk=(1, math.inf))
        rates = [name for name in known_keys(self) if name.endswith("learning_rate")]
        _check_range(self, **dict.fromkeys(rates, (0.0, 10.0)) | {"final_learning_rate": (1e-6, 1.0)})
        _check_range(self, train_every=(1, math.inf))
        _check_choice(self, optimizer=("muon", "adam"))
        _check_range(self, camera_warmup=(0, math.inf), max_image_size=(16, math.inf), viewer_resolution=(64, 2048))


@dataclass(frozen=True)
class SurfaceConfig:
    """What a radiance field of a surface needs beside others: its start and its loss."""

    extent: float = 0.75
    """Half the side of the cube in which the surface lies, where the capture has no bounds: around an object in parts
    of the distance from the nearest camera to the point that all look at, in a room as the cameras, in [-1, 1]."""
    inside: Literal["auto", "object", "room"] = "auto"
    """Whether the cameras stand around the surface ("object") or within it ("room"); "auto": as they look."""
    radius: float = 0.5
    """Radius of the first sphere around an object, in parts of half a view's width there: a ball that fills the views
    hides what is behind it, and becomes a wall before each camera. Where nothing says where cameras look: of the
    cube's half side."""
    sharpness: float = 20.0
    """What NeuS calls 1/s, where it starts as a sphere: how quickly opacity changes across it, per unit of length."""
    density_steps: int = 1500
    """Steps of a radiance field before there is a surface, which then starts as what that shows (at most a quarter of
    all steps); 0: it starts as a sphere."""
    anchor_steps: int = 4000
    """Steps over which such a surface is let go of what it was made of."""
    anchor_weight: float = 0.1
    """Weight of the loss that holds it, at first."""
    anneal_steps: int = 500
    """Steps over which rays stop to see surfaces from behind."""
    eikonal_weight: float = 0.01
    """Weight of the loss that makes the distance's gradient one long. At ten times that a surface stays taut."""

    def __post_init__(self) -> None:
        _check_range(self, extent=(1e-3, 1e3), radius=(0.01, 1), sharpness=(1e-3, 1e6))
        _check_range(self, density_steps=(0, math.inf), anchor_steps=(0, math.inf), anchor_weight=(0, math.inf))
        _check_range(self, anneal_steps=(0, math.inf), eikonal_weight=(0, math.inf))
        _check_choice(self, inside=("auto", "object", "room"))


@dataclass(frozen=True)
class RadianceConfig:
    """All of a radiance-field method: what a preset in `method_configs/` sets."""

    task: Literal["radiance"] = "radiance"
    """What the preset is for."""
    description: str = ""
    """One line for `ns-train --help`."""
    geometry: Literal["density", "signed-distance"] = "density"
    """What the field says about space: a density, or the distance to a surface."""
    background_color: Literal["auto", "random", "last_sample", "black", "white"] = "auto"
    """Colour behind the scene. "auto": random where the photos have transparency, else the last sample's."""
    surface: SurfaceConfig = dataclasses.field(default_factory=SurfaceConfig)
    """For a signed distance: how it starts and learns."""
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """The density network and its encoding."""
    background: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """For a signed distance: the network and encoding of the density that there is first, and behind the surface."""
    color: ColorConfig = dataclasses.field(default_factory=ColorConfig)
    """The colour network."""
    proposal: FieldConfig = dataclasses.field(
        default_factory=lambda: FieldConfig(
            encoding="hash",
            num_levels=5,
            log2_table_size=13,
            max_resolution=128,
            activation="relu",
            hidden_features=16,
        )
    )
    """The first proposal network; the finest grid of each further one has twice the resolution."""
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    """Samples along rays."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """Steps, rays and learning rates."""

    def __post_init__(self) -> None:
        _check_choice(self, task=("radiance",), geometry=("density", "signed-distance"))
        _check_choice(self, background_color=("auto", "random", "last_sample", "black", "white"))


@dataclass(frozen=True)
class FitConfig:
    """How a signal is fitted: how long, how many points a step, and learning rates."""

    minutes: float = 5.0
    """Minutes of training; 0: until `steps` are done."""
    steps: int = 0
    """Steps of training, if they are done before the minutes are over; 0: as many as fit."""
    passes: int = 0
    """Steps as passes over an image's pixels or a sound's samples, in each of which every one comes once; 0: points are
    drawn from all of them in each step."""
    points: int = 16384
    """Points a step; 0: all that an image or a sound has."""
    optimizer: Literal["muon", "adam"] = "muon"
    """What changes the weights of the network's hidden layers; the rest is Adam's."""
    matrix_learning_rate: float = 3e-3
    """Learning rate for the weights of the network's hidden layers."""
    matrix_momentum: float = 0.95
    """Muon's momentum for those. With less of it a higher rate is stable."""
    matrix_iterations: int = 5
    """Muon's iterations, which take the singular values of a change towards 1: with fewer, small ones stay smaller."""
    first_learning_rate: float = 3e-4
    """Adam's learning rate for the weights of a layer that reads coordinates, in radians per unit of them: it is
    divided by the frequency scale of the layer's activation, if that has one."""
    network_learning_rate: float = 1e-3
    """Adam's learning rate for the biases and the last layer's weights."""
    activation_learning_rate: float = 3e-3
    """Adam's learning rate for amplitudes, frequencies and phases."""
    activation_delay: float = 0.0
    """Part of the fit that is over before those begin to learn."""
    encoding_learning_rate: float = 1e-2
    """Adam's learning rate for the table of a hash grid."""
    final_learning_rate: float = 0.01
    """Learning rates decay exponentially to this part of their start."""

    def __post_init__(self) -> None:
        _check_range(self, minutes=(0, math.inf), steps=(0, math.inf), points=(0, math.inf), passes=(0, math.inf))
        _check_choice(self, optimizer=("muon", "adam"))
        if not (self.minutes or self.steps or self.passes):
            raise ValueError("minutes or steps must be positive, got 0 for both")
        rates = [name for name in known_keys(self) if name.endswith("learning_rate")]
        _check_range(self, **dict.fromkeys(rates, (0.0, 10.0)) | {"final_learning_rate": (1e-6, 1.0)})
        _check_range(self, activation_delay=(0, 1), matrix_momentum=(0, 0.999), matrix_iterations=(1, 20))


@dataclass(frozen=True)
class ShapeConfig:
    """A shape fitted from a mesh or a cloud of points: what the preset `shape` sets."""

    task: Literal["shape"] = "shape"
    """What the preset is for."""
    description: str = ""
    """One line."""
    quantity: Literal["signed-distance", "occupancy"] = "signed-distance"
    """What the network learns: the distance to the surface, negative inside, or 1 inside and 0 outside."""
    field: FieldConfig = dataclasses.field(default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=4))
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(
        default_factory=lambda: FitConfig(matrix_learning_rate=4e-3, matrix_momentum=0.9)
    )
    """Duration and learning rates."""
    surface_part: float = 0.2
    """Share of the points that lie on the surface."""
    near_part: float = 0.6
    """Share of the points near the surface, half at each distance of `near`; the rest is spread over the box."""
    near: tuple[float, float] = (0.002, 0.02)
    """Standard deviations of the points near the surface from it, in parts of the box's diagonal."""
    grid: int = 0
    """Points that are spread over the box are the middles of so many cells along its longest side; 0: any points."""
    cached_points: int = 2**22
    """Points whose distances are computed once, for all steps to draw from (16 bytes each); 0: new ones a step."""
    softness: float = 0.01
    """Signed distance d is learned by |error| / (|d| + softness), in units of the network's coordinates."""
    eikonal_weight: float = 0.0
    """Weight of the loss that makes the distance's gradient one long; it costs a second derivative in each step."""

    def __post_init__(self) -> None:
        _check_choice(self, task=("shape",), quantity=("signed-distance", "occupancy"))
        _check_range(self, surface_part=(0, 1), near_part=(0, 1 - self.surface_part + 1e-9), softness=(1e-6, 1e6))
        _check_range(self, cached_points=(0, 2**31), eikonal_weight=(0, math.inf), grid=(0, 2**16))
        if self.fit.points < 2 or self.fit.passes:
            raise ValueError(f"fit.points must be >= 2 and fit.passes 0 for a shape, got {self.fit}")
        if len(self.near) != 2 or min(self.near) <= 0:
            raise ValueError(f"near must be two positive numbers, got {self.near}")


@dataclass(frozen=True)
class ImageConfig:
    """An image fitted as it is, from a smaller one, or from a noisy one: presets `image`, `superres`, `denoise`."""

    task: Literal["image", "superres", "denoise"] = "image"
    """What the preset is for."""
    description: str = ""
    """One line."""
    field: FieldConfig = dataclasses.field(default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=4))
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(
        default_factory=lambda: FitConfig(
            minutes=1.0,
            points=2048,
            matrix_learning_rate=2.8e-3,
            matrix_momentum=0.8,
            matrix_iterations=3,
            activation_delay=0.5,
        )
    )
    """Duration and learning rates."""
    band: float = 0.1
    """The first layer's frequencies start up to this part of the highest that the pixels hold (half a cycle a pixel),
    whatever the image's size; 0: `field.first_omega` is taken as it is."""
    factor: int = 1
    """Super-resolution: the network sees averages over so many by so many pixels."""
    pixel_samples: int = 1
    """A pixel's value is the mean of the field at this many squared points in it; 1: the field at its middle."""
    photons: float = 0.0
    """Denoising: mean number of photons of a white pixel, whose noise is added to the image first; 0: none is."""
    readout: float = 0.0
    """Denoising: standard deviation of the sensor's readout noise, in photons."""
    held_out: float = 0.0
    """Share of the (noisy) pixels that are not learned: the weights that predict them best are kept."""
    corners: bool = False
    """Whether the outermost pixels lie at -1 and 1 on both axes, as in published code; or the longer side's edges."""
    zero_to_one: bool = False
    """Whether the field's values span [0, 1], as in published code, or [-1, 1]."""

    def __post_init__(self) -> None:
        _check_choice(self, task=("image", "superres", "denoise"))
        _check_range(self, band=(0, 100), photons=(0, math.inf), readout=(0, math.inf), held_out=(0, 0.9))
        _check_range(self, factor=(1, 1024), pixel_samples=(1, 64))


@dataclass(frozen=True)
class AudioConfig:
    """A sound, all of its channels: what the preset `audio` sets."""

    task: Literal["audio"] = "audio"
    """What the preset is for."""
    description: str = ""
    """One line."""
    field: FieldConfig = dataclasses.field(
        default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=4, num_frequencies=10)
    )
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(
        default_factory=lambda: FitConfig(
            minutes=1.0, points=4096, matrix_learning_rate=1e-3, activation_learning_rate=5e-3
        )
    )
    """Duration and learning rates."""
    band: float = 0.006
    """The first layer's frequencies start up to this part of half the sampling rate; 0: `field.first_omega` is taken
    as it is. 0.006 are 3000 radians per unit for seven seconds at 44.1 kHz, SIREN's number for such a clip."""

    def __post_init__(self) -> None:
        _check_choice(self, task=("audio",))
        _check_range(self, band=(0, 100))


def known_keys(config) -> list[str]:
    """The names that a table for this dataclass may set."""
    return [item.name for item in dataclasses.fields(config)]
