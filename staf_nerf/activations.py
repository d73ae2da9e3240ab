"""Activations of coordinate networks: modules that own their parameters.

Conventions: an activation maps pre-activations z (..., n) to (..., n). Frequencies are in radians per unit of z. Its
class also says how the linear map before it is initialised, by its paper, and how it is exported; see
`staf_nerf.layers.Activation`. A baseline is therefore one class here and one name in a preset.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from staf_nerf import initialization as init
from staf_nerf.initialization import Bounds, Initialization, Sinusoids
from staf_nerf.kernels import pointwise, staf
from staf_nerf.kernels.precision import HALF, in_float32
from staf_nerf.layers import Activation, Formula, LinearMap

Sharing = Literal["layer", "neuron", "network"]


class Periodic(Activation):
    """Base class of activations with a frequency scale ω, with SIREN's initialisation (arXiv 2006.09661).

    Args:
        omega: Frequency scale, in radians per unit of z.
    """

    def __init__(self, *, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    @property
    def argument_scale(self) -> float:
        return self.omega

    def bounds(self, fan_in: int, *, first: bool) -> Bounds:
        return init.siren_bounds(fan_in, omega=self.omega, first=first)

    def output_bound(self, fan_in: int) -> float:
        """Returns the bound of a hidden layer's weights, as in SIREN's published code, and at most torch's."""
        return min(init.siren_bounds(fan_in, omega=self.omega, first=False).weight, super().output_bound(fan_in))

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class STAF(Periodic):
    """The trainable Fourier sum σ(z) = Σᵢ Cᵢ sin(Ωᵢ z + Φᵢ), i = 1…τ (arXiv 2502.00869).

    Args:
        num_features: n, the size of the last dimension of z.
        num_frequencies: τ, the number of sinusoids.
        sharing: "layer": the n features share one set of parameters of shape (τ,). "neuron": each feature has its own
            parameters, of shape (τ, n), and the cost grows with τ. "network": like "layer", and `CoordinateMLP` uses
            the same module for all layers.
        omega: Frequency scale, in radians per unit of z.
        initialization: "normalized" (ours, with fixed variance and gain), "siren" (one sine), "staf-theorem" (as in
            the theorem of STAF's paper) or "staf-published" (as in its published code); see
            `staf_nerf.initialization`.
        generator: Random generator for the last two. The other two are deterministic.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_frequencies: int = 5,
        sharing: Sharing = "layer",
        omega: float = 30.0,
        initialization: Initialization = "normalized",
        generator: Generator | None = None,
    ) -> None:
        super().__init__(omega=omega)
        if num_features < 1:
            raise ValueError(f"num_features must be >= 1, got {num_features}")
        if num_frequencies < 1:
            raise ValueError(f"num_frequencies must be >= 1, got {num_frequencies}")
        if sharing not in ("layer", "neuron", "network"):
            raise ValueError(f"sharing must be 'layer', 'neuron' or 'network', got {sharing!r}")
        if not (omega > 0.0 and math.isfinite(omega)):
            raise ValueError(f"omega must be positive and finite, got {omega}")
        if initialization not in init.INITIALIZATIONS:
            raise ValueError(f"initialization must be one of {sorted(init.INITIALIZATIONS)}, got {initialization!r}")
        self.num_features = num_features
        self.num_frequencies = num_frequencies
        self.sharing: Sharing = sharing
        self.initialization: Initialization = initialization
        shape = (num_frequencies, num_features) if sharing == "neuron" else (num_frequencies,)
        sinusoids = init.INITIALIZATIONS[initialization](shape, omega, generator)
        self.amplitude = nn.Parameter(sinusoids.amplitude)
        self.frequency = nn.Parameter(sinusoids.frequency)
        self.phase = nn.Parameter(sinusoids.phase)

    def forward(self, z: Tensor) -> Tensor:
        return staf(z, self.amplitude, self.frequency, self.phase)

    def after(self, linear: LinearMap, *parts: Tensor) -> Tensor:
        """Returns σ(W h + b). On a CPU the kernel adds the bias, which saves a pass over memory in each direction."""
        if self.amplitude.device.type != "cpu" or self.sharing == "neuron":
            return super().after(linear, *parts)
        return staf(linear.product(*parts), self.amplitude, self.frequency, self.phase, linear.bias)

    def of_networks(self, z: Tensor) -> Tensor:
        """Returns σ(z) for z (b, n, features) of b networks, whose features side by side are neurons of one layer."""
        networks, points, features = z.shape
        neurons = networks * features
        wide = z.transpose(0, 1).reshape(points, neurons)
        sinusoids = (_of_neurons(values, features) for values in self.sinusoids())
        return staf(wide, *sinusoids).reshape(points, networks, features).transpose(0, 1)

    def bounds(self, fan_in: int, *, first: bool) -> Bounds:
        if self.initialization in (
            "staf-theorem",
            "staf-published",
        ):  # torch's default, as in the published code of STAF
            return init.torch_bounds(fan_in)
        return super().bounds(fan_in, first=first)

    def sinusoids(self) -> Sinusoids:
        return Sinusoids(self.amplitude, self.frequency, self.phase)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, num_frequencies={self.num_frequencies}, sharing={self.sharing!r}, "
            f"omega={self.omega:g}, initialization={self.initialization!r}"
        )


def _of_neurons(values: Tensor, features: int) -> Tensor:
    """Repeats parameters of networks, (b, τ) or (b, τ, features), for each neuron: (τ, b · features)."""
    values = values[..., None] if values.ndim == 2 else values
    return values.expand(-1, -1, features).transpose(0, 1).flatten(1)


class Sine(Periodic):
    """The activation sin(ω z) of SIREN (arXiv 2006.09661)."""

    def __init__(self, num_features: int, *, omega: float = 30.0) -> None:
        super().__init__(omega=omega)

    def forward(self, z: Tensor) -> Tensor:
        return pointwise("sine", z, self.omega)

    def sinusoids(self) -> Sinusoids:
        return Sinusoids(torch.ones(1), torch.tensor([self.omega], dtype=torch.float64), torch.zeros(1))


class FINER(Periodic):
    """The activation ``sin(ω (|z| + 1) z)`` of FINER, a sine whose frequency grows with abs(z) (arXiv 2312.02434).

    The biases of the first layer are drawn from U(-k, k) with k = `first_bias`. They determine the frequencies that the
    network can use. The derivative is that of the formula. The published code treats the inner factor as a constant.
    """

    def __init__(self, num_features: int, *, omega: float = 30.0, first_bias: float = 1.0) -> None:
        super().__init__(omega=omega)
        self.first_bias = first_bias

    def forward(self, z: Tensor) -> Tensor:
        return pointwise("finer", z, self.omega)

    def bounds(self, fan_in: int, *, first: bool) -> Bounds:
        found = super().bounds(fan_in, first=first)
        return found._replace(bias=self.first_bias) if first else found

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        super().initialize_(linear, first=first, generator=generator)
        if first:  # a second draw, so that a seed gives the network that it always gave
            init.uniform_(linear.bias, self.first_bias, generator)

    def formula(self) -> Formula:
        return Formula("finer", self.omega)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}, first_bias={self.first_bias:g}"


class HSIREN(Periodic):
    """The activation of H-SIREN: sin(ω sinh(2 z)) in the first layer, sin(ω z) in the others (arXiv 2410.04716).

    The slope of sinh grows with abs(z), so the neurons of the first layer have different frequencies. The
    initialisation is SIREN's.
    """

    def __init__(self, num_features: int, *, first: bool = False, omega: float = 30.0) -> None:
        super().__init__(omega=omega)
        self.first = first

    @property
    def argument_scale(self) -> float:
        return 2.0 * self.omega if self.first else self.omega

    def forward(self, z: Tensor) -> Tensor:
        if z.dtype in HALF:
            return in_float32(self.forward, z)
        return pointwise("sine", torch.sinh(2.0 * z) if self.first else z, self.omega)


class Gaussian(Activation):
    """The activation exp(-z² / (2 s²)) with s = `width` (arXiv 2111.15135, which uses 0.05 for images)."""

    def __init__(self, num_features: int, *, width: float = 0.05) -> None:
        super().__init__()
        if not width > 0.0:
            raise ValueError(f"width must be positive, got {width}")
        self.width = width

    @property
    def argument_scale(self) -> float:
        return 1.0 / self.width

    def forward(self, z: Tensor) -> Tensor:
        return pointwise("gaussian", z, self.argument_scale)

    def formula(self) -> Formula:
        return Formula("gaussian", self.argument_scale)

    def extra_repr(self) -> str:
        return f"width={self.width:g}"


class Gabor(Activation):
    """The complex wavelet exp(jωz - abs(s z)²) of WIRE (arXiv 2301.05187), for real or complex z."""

    complex_valued = True

    def __init__(self, num_features: int, *, omega: float = 20.0, scale: float = 10.0) -> None:
        super().__init__()
        self.omega, self.scale = omega, scale

    @property
    def argument_scale(self) -> float:
        return self.omega

    def forward(self, z: Tensor) -> Tensor:
        if z.dtype in (torch.float16, torch.bfloat16):  # complex half precision is not usable
            z = z.float()
        exponent = -((self.scale * z.real) ** 2)
        if z.is_complex():
            exponent = exponent - (self.scale * z.imag) ** 2 - self.omega * z.imag
        vanishing = exponent < 0.5 * math.log(torch.finfo(exponent.dtype).tiny)  # subnormal products are slow
        return torch.polar(exponent.masked_fill(vanishing, -math.inf).exp(), self.omega * z.real)

    def formula(self) -> str:
        return "its values are complex, and the export formats have no complex weights"

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}, scale={self.scale:g}"


class Sinc(Activation):
    """The activation sin(ω z) / (ω z) (arXiv 2402.05427)."""

    def __init__(self, num_features: int, *, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    @property
    def argument_scale(self) -> float:
        return self.omega

    def forward(self, z: Tensor) -> Tensor:
        return torch.sinc(self.omega / math.pi * z)

    def formula(self) -> Formula:
        return Formula("sinc", self.omega)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class FourierFilter(Activation):
    """The filter sin(A x + b) of multiplicative filter networks (MFN; Fathony et al., ICLR 2021), of the input x.

    The first layer is a filter alone. The others multiply: z · sin(A x + b); see `FilterLayer`. A and b are initialised
    alike in all of them: frequencies up to ω along each axis, phases uniform over the circle.
    """

    filters_input = True

    def __init__(self, num_features: int, *, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(z)

    def bounds(self, fan_in: int, *, first: bool) -> Bounds:
        return Bounds(self.omega / fan_in, math.pi)

    def formula(self) -> str:
        return "each of its layers reads the coordinates, which a list of layers cannot represent"

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class ReLU(Activation):
    """The activation max(z, 0), with He's initialisation of weights and zero biases."""

    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, z: Tensor) -> Tensor:
        return torch.relu(z)

    def bounds(self, fan_in: int, *, first: bool) -> Bounds:
        return init.he_bounds(fan_in)

    def formula(self) -> Formula:
        return Formula("relu")


ACTIVATIONS: dict[str, type[Activation]] = {
    "staf": STAF,
    "sine": Sine,
    "finer": FINER,
    "gaussian": Gaussian,
    "gabor": Gabor,
    "sinc": Sinc,
    "hsiren": HSIREN,
    "filter": FourierFilter,
    "relu": ReLU,
}

FIRST_OMEGA = HIDDEN_OMEGA = 30.0
"""Frequency scales of the layers if none are given, in radians per unit: SIREN's value."""


def activation_options(name: str) -> dict[str, Any]:
    """Returns the options of an activation with their defaults: the arguments of its constructor.

    An activation with a frequency scale has `first_omega` and `hidden_omega` in place of `omega`. The filters of
    "filter" have `first_omega` alone, because they all read the network's input.

    Raises:
        ValueError: If the name is unknown. The message lists the known ones.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    found = {key: item.default for key, item in inspect.signature(ACTIVATIONS[name]).parameters.items()}
    options = {key: value for key, value in found.items() if key not in _GIVEN}
    scales = {"first_omega": FIRST_OMEGA, "hidden_omega": HIDDEN_OMEGA} if "omega" in found else {}
    if ACTIVATIONS[name].filters_input:
        scales.pop("hidden_omega", None)
    return options | scales


_GIVEN = ("num_features", "first", "omega", "generator")
"""Arguments of constructors that a network gives, and not the user."""


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of an activation, with whole numbers as floats where the activation has a float.

    Raises:
        ValueError: If the name or an option is unknown, or a value is of another kind or not a finite number >= 0.
    """
    known = activation_options(name)
    if unknown := sorted(set(options) - set(known)):
        accepted = f"must be among {', '.join(known)}" if known else "do not exist"
        raise ValueError(f"options of the activation {name!r} {accepted}, got {', '.join(unknown)}")
    return {key: _checked(f"{key} of {name!r}", value, known[key]) for key, value in options.items()}


def _checked(name: str, value: Any, default: Any) -> Any:
    """Returns the value of an option of the kind that its default has."""
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ValueError(f"{name} must be of type {type(default).__name__}, got {value!r}")
    if isinstance(value, float):
        low = 1e-6 if "omega" in name else 0.0
        if not low <= value <= 1e6:
            raise ValueError(f"{name} must be between {low:g} and 1e+06, got {value}")
    return value


ActivationFactory = Callable[[int], Activation]
"""Returns the activation for the hidden layer of that index, a new instance for each layer unless layers share it."""


def activation_factory(
    name: str,
    num_features: int,
    *,
    first_omega: float = FIRST_OMEGA,
    hidden_omega: float = HIDDEN_OMEGA,
    generator: Generator | None = None,
    **options: Any,
) -> ActivationFactory:
    """Returns a factory for the activation `name`, with `options` for its constructor.

    An activation with a frequency scale gets `first_omega` in layer 0 and `hidden_omega` in the others. The filters of
    "filter" all get `first_omega`, because they all read the network's input. A constructor with the argument `first`
    is told whether the layer is layer 0.

    Raises:
        ValueError: If the name or an option is unknown. The message lists the known ones.
    """
    options = checked_options(name, options)
    kind = ACTIVATIONS[name]
    arguments = set(inspect.signature(kind).parameters)
    if "generator" in arguments:
        options = {**options, "generator": generator}

    def make(layer: int) -> Activation:
        omega = first_omega if layer == 0 or kind.filters_input else hidden_omega
        of_layer = {"omega": omega, "first": layer == 0}
        return kind(num_features, **{name: of_layer[name] for name in of_layer if name in arguments}, **options)

    if options.get("sharing") != "network":
        return make
    shared = make(0)
    return lambda layer: shared
