"""Activations of coordinate networks: modules that own their parameters and initialise the linear layer before them.

Conventions: an activation maps pre-activations z (..., n) to (..., n). Frequencies are in radians per unit of z. The
method `initialize_(linear, first=…)` applies the initialisation of the activation's paper to the preceding linear
layer. A baseline is therefore one class here and one name in a preset.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from staf_nerf import initialization as init
from staf_nerf.initialization import Initialization
from staf_nerf.kernels import pointwise, staf

Sharing = Literal["layer", "neuron", "network"]


class Activation(nn.Module):
    """Base class of activations: real values, and torch's default initialisation of the preceding layer."""

    complex_valued = False
    """Whether the outputs are complex, so that the following layers need complex weights."""
    adds_bias = False
    """Whether `forward(z, bias)` adds the bias of the preceding linear layer, which then must not add it."""
    reads_input = False
    """Whether it has a linear map `filter` of the network's input x, and is called as (z, filter(x))."""

    @property
    def argument_scale(self) -> float:
        """The factor on z inside the activation, in radians per unit of z for periodic ones."""
        return getattr(self, "omega", 1.0)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        """Initialises the preceding linear layer in place.

        Args:
            linear: The linear layer before this activation.
            first: Whether that layer reads coordinates.
            generator: Random generator.
        """
        init.torch_weight_(linear.weight, generator)
        init.uniform_(linear.bias, 1.0 / math.sqrt(linear.in_features), generator)


class STAF(Activation):
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
        super().__init__()
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
        self.omega = omega
        self.initialization: Initialization = initialization
        shape = (num_frequencies, num_features) if sharing == "neuron" else (num_frequencies,)
        sinusoids = init.INITIALIZATIONS[initialization](shape, omega, generator)
        self.amplitude = nn.Parameter(sinusoids.amplitude)
        self.frequency = nn.Parameter(sinusoids.frequency)
        self.phase = nn.Parameter(sinusoids.phase)

    @property
    def adds_bias(self) -> bool:
        """True on a CPU, where it saves one pass over memory in each direction."""
        return self.amplitude.device.type == "cpu" and self.sharing != "neuron"

    def forward(self, z: Tensor, bias: Tensor | None = None) -> Tensor:
        """Returns σ(z), or σ(z + bias) with a bias of shape (n,)."""
        return staf(z, self.amplitude, self.frequency, self.phase, bias)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        if self.initialization in (
            "staf-theorem",
            "staf-published",
        ):  # torch's default, as in the published code of STAF
            super().initialize_(linear, first=first, generator=generator)
        else:
            _siren_(linear, omega=self.omega, first=first, generator=generator)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, num_frequencies={self.num_frequencies}, sharing={self.sharing!r}, "
            f"omega={self.omega:g}, initialization={self.initialization!r}"
        )


class Sine(Activation):
    """The activation sin(ω z) of SIREN (arXiv 2006.09661)."""

    def __init__(self, num_features: int, *, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, z: Tensor) -> Tensor:
        return pointwise("sine", z, self.omega)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        _siren_(linear, omega=self.omega, first=first, generator=generator)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class FINER(Activation):
    """The activation ``sin(ω (|z| + 1) z)`` of FINER, a sine whose frequency grows with abs(z) (arXiv 2312.02434).

    The biases of the first layer are drawn from U(-k, k) with k = `first_bias`. They determine the frequencies that the
    network can use. The derivative is that of the formula. The published code treats the inner factor as a constant.
    """

    def __init__(self, num_features: int, *, omega: float = 30.0, first_bias: float = 1.0) -> None:
        super().__init__()
        self.omega, self.first_bias = omega, first_bias

    def forward(self, z: Tensor) -> Tensor:
        return pointwise("finer", z, self.omega)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        _siren_(linear, omega=self.omega, first=first, generator=generator)
        if first:
            init.uniform_(linear.bias, self.first_bias, generator)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}, first_bias={self.first_bias:g}"


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

    def extra_repr(self) -> str:
        return f"width={self.width:g}"


class Gabor(Activation):
    """The complex wavelet exp(jωz - abs(s z)²) of WIRE (arXiv 2301.05187), for real or complex z."""

    complex_valued = True

    def __init__(self, num_features: int, *, omega: float = 20.0, scale: float = 10.0) -> None:
        super().__init__()
        self.omega, self.scale = omega, scale

    def forward(self, z: Tensor) -> Tensor:
        if z.dtype in (torch.float16, torch.bfloat16):  # complex half precision is not usable
            z = z.float()
        exponent = -((self.scale * z.real) ** 2)
        if z.is_complex():
            exponent = exponent - (self.scale * z.imag) ** 2 - self.omega * z.imag
        vanishing = exponent < 0.5 * math.log(torch.finfo(exponent.dtype).tiny)  # subnormal products are slow
        return torch.polar(exponent.masked_fill(vanishing, -math.inf).exp(), self.omega * z.real)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}, scale={self.scale:g}"


class Sinc(Activation):
    """The activation sin(ω z) / (ω z) (arXiv 2402.05427)."""

    def __init__(self, num_features: int, *, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, z: Tensor) -> Tensor:
        return torch.sinc(self.omega / math.pi * z)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class FourierFilter(Activation):
    """The activation z · sin(A x + b) of multiplicative filter networks (MFN; Fathony et al., ICLR 2021).

    Here x is the input of the network. The first layer is a filter alone, sin(z), and its linear layer is initialised
    like A and b: frequencies up to ω along each axis, phases uniform over the circle.
    """

    def __init__(self, num_features: int, *, in_features: int, first: bool = False, omega: float = 30.0) -> None:
        super().__init__()
        self.omega, self.reads_input = omega, not first
        if not first:
            self.filter = nn.Linear(in_features, num_features)

    @property
    def argument_scale(self) -> float:
        return 1.0

    def forward(self, z: Tensor, argument: Tensor | None = None) -> Tensor:
        return torch.sin(z) if argument is None else z * torch.sin(argument)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        if self.reads_input:
            super().initialize_(linear, first=first, generator=generator)
        filtered = self.filter if self.reads_input else linear
        init.uniform_(filtered.weight, self.omega / filtered.in_features, generator)
        init.uniform_(filtered.bias, math.pi, generator)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class ReLU(Activation):
    """The activation max(z, 0), with He's initialisation of weights and zero biases."""

    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, z: Tensor) -> Tensor:
        return torch.relu(z)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        init.he_weight_(linear.weight, generator)
        nn.init.zeros_(linear.bias)


ACTIVATIONS: dict[str, type[Activation]] = {
    "staf": STAF,
    "sine": Sine,
    "finer": FINER,
    "gaussian": Gaussian,
    "gabor": Gabor,
    "sinc": Sinc,
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
    if "in_features" in found:
        scales.pop("hidden_omega", None)
    return options | scales


_GIVEN = ("num_features", "first", "in_features", "omega", "generator")
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
    in_features: int = 1,
    first_omega: float = FIRST_OMEGA,
    hidden_omega: float = HIDDEN_OMEGA,
    generator: Generator | None = None,
    **options: Any,
) -> ActivationFactory:
    """Returns a factory for the activation `name`, with `options` for its constructor.

    An activation with a frequency scale gets `first_omega` in layer 0 and `hidden_omega` in the others. The filters of
    "filter" all get `first_omega`, because they all read the network's input.

    Raises:
        ValueError: If the name or an option is unknown. The message lists the known ones.
    """
    options = checked_options(name, options)
    kind = ACTIVATIONS[name]
    known = inspect.signature(kind).parameters
    if "generator" in known:
        options = {**options, "generator": generator}
    if kind is FourierFilter:
        return lambda layer: FourierFilter(num_features, in_features=in_features, first=layer == 0, omega=first_omega)

    def make(layer: int) -> Activation:
        omega = {"omega": first_omega if layer == 0 else hidden_omega} if "omega" in known else {}
        return kind(num_features, **omega, **options)

    if options.get("sharing") != "network":
        return make
    shared = make(0)
    return lambda layer: shared


def _siren_(linear: nn.Linear, *, omega: float, first: bool, generator: Generator | None) -> None:
    init.siren_weight_(linear.weight, omega=omega, first=first, generator=generator)
    # As in SIREN's published code, biases keep torch's default: they are random phases.
    init.uniform_(linear.bias, 1.0 / math.sqrt(linear.in_features), generator)
