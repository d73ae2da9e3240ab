"""Activations of coordinate networks: modules that own parameters and know how the layer before them starts.

Conventions: an activation maps pre-activations z (..., n) to (..., n); frequencies are radians per unit of z. Each has
`initialize_(linear, first=…)`, its paper's initialisation of the linear layer before it, so that a baseline is one
class here and one name in a preset.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from staf_nerf import initialization as init
from staf_nerf.initialization import Initialization
from staf_nerf.kernels import pointwise, staf

Sharing = Literal["layer", "neuron", "network"]


class Activation(nn.Module):
    """What the activations have in common: torch's default for the layer before them, and real values."""

    complex_valued = False
    """Whether the outputs are complex, so that the layers that follow need complex weights."""
    adds_bias = False
    """Whether `forward(z, bias)` adds the bias of the linear layer before it, which then need not."""
    reads_input = False
    """Whether it has a linear map `filter` of what the whole network reads, x, and is called as (z, filter(x))."""

    @property
    def argument_scale(self) -> float:
        """What z is multiplied by: radians per unit of z, where that is a phase."""
        return getattr(self, "omega", 1.0)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        """Initialises the linear layer before this activation, in place; `first`: it reads coordinates."""
        init.torch_weight_(linear.weight, generator)
        init.uniform_(linear.bias, 1.0 / math.sqrt(linear.in_features), generator)


class STAF(Activation):
    """The trainable Fourier sum σ(z) = Σᵢ Cᵢ sin(Ωᵢ z + Φᵢ), i = 1…τ (arXiv 2502.00869).

    Args:
        num_features: n, the size of the last dimension of z.
        num_frequencies: τ, the number of sinusoids.
        sharing: "layer": the n features share one set of parameters, of shape (τ,). "neuron": each feature has its
            own, (τ, n), at a cost that grows with τ. "network": like "layer", and `CoordinateMLP` gives the same module
            to all its layers.
        omega: Scale of the frequencies, radians per unit of z.
        initialization: "normalized" (ours: fixed variance and gain), "siren" (one sine), "theorem" or "published";
            see `staf_nerf.initialization`.
        generator: Source of the draws of "theorem" and "published".

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
        """On a CPU, where that is one pass over memory less in each direction."""
        return self.amplitude.device.type == "cpu" and self.sharing != "neuron"

    def forward(self, z: Tensor, bias: Tensor | None = None) -> Tensor:
        """σ(z), or σ(z + bias) with a bias of shape (n,)."""
        return staf(z, self.amplitude, self.frequency, self.phase, bias)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        if self.initialization in ("theorem", "published"):  # torch's default, as in the published code
            super().initialize_(linear, first=first, generator=generator)
        else:
            _siren_(linear, omega=self.omega, first=first, generator=generator)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, num_frequencies={self.num_frequencies}, sharing={self.sharing!r}, "
            f"omega={self.omega:g}, initialization={self.initialization!r}"
        )


class Sine(Activation):
    """sin(ω z): SIREN (arXiv 2006.09661)."""

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
    """sin(ω (|z| + 1) z): a sine whose frequency grows with |z| (arXiv 2312.02434).

    Its first layer's biases are drawn from U(-k, k) with k = `first_bias`: the set of frequencies that the network can
    use. The derivative is the formula's own; the published code holds |z| + 1 constant in it.
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
    """exp(-z² / (2 s²)) with s = `width` (arXiv 2111.15135; 0.05 is that paper's for images)."""

    def __init__(self, num_features: int, *, width: float = 0.05) -> None:
        super().__init__()
        self.width = width

    @property
    def argument_scale(self) -> float:
        return 1.0 / self.width

    def forward(self, z: Tensor) -> Tensor:
        return pointwise("gaussian", z, self.argument_scale)

    def extra_repr(self) -> str:
        return f"width={self.width:g}"


class Gabor(Activation):
    """The complex wavelet exp(jωz - |s z|²): WIRE (arXiv 2301.05187). Real or complex z, complex output."""

    complex_valued = True

    def __init__(self, num_features: int, *, omega: float = 20.0, scale: float = 10.0) -> None:
        super().__init__()
        self.omega, self.scale = omega, scale

    def forward(self, z: Tensor) -> Tensor:
        if z.dtype in (torch.float16, torch.bfloat16):  # there is no useful complex half
            z = z.float()
        exponent = -((self.scale * z.real) ** 2)
        if z.is_complex():
            exponent = exponent - (self.scale * z.imag) ** 2 - self.omega * z.imag
        vanishing = exponent < 0.5 * math.log(torch.finfo(exponent.dtype).tiny)  # products would be subnormal, and slow
        return torch.polar(exponent.masked_fill(vanishing, -math.inf).exp(), self.omega * z.real)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}, scale={self.scale:g}"


class Sinc(Activation):
    """sin(ω z) / (ω z) (arXiv 2402.05427)."""

    def __init__(self, num_features: int, *, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, z: Tensor) -> Tensor:
        return torch.sinc(self.omega / math.pi * z)

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"


class FourierFilter(Activation):
    """z · sin(A x + b), of what the network reads: a multiplicative filter network (MFN; Fathony et al., ICLR 2021).

    The first layer is a filter alone, sin(z), whose linear layer starts as A does: frequencies up to ω along an axis,
    phases all around.
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
    """max(z, 0), with He's weights and zero biases."""

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

ActivationFactory = Callable[[int], Activation]
"""Makes a new activation for the hidden layer of that index; never hands out one instance twice by accident."""


def activation_factory(
    name: str,
    num_features: int,
    *,
    in_features: int = 1,
    first_omega: float = 30.0,
    hidden_omega: float = 30.0,
    generator: Generator | None = None,
    **options: Any,
) -> ActivationFactory:
    """Returns a factory of the activation called `name`, with `options` for its constructor.

    `first_omega` goes to layer 0 and `hidden_omega` to the others, where the activation has a frequency; but to all
    filters of the network's input goes `first_omega`.

    Raises:
        ValueError: If the name or an option is unknown; the message lists the known ones.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}")
    kind = ACTIVATIONS[name]
    known = set(inspect.signature(kind).parameters) - {"num_features", "first"}
    own = {"omega", "generator", "in_features"}
    if unknown := sorted(set(options) - (known - own)):
        raise ValueError(f"options of {name!r} must be among {sorted(known - own)}, got {', '.join(unknown)}")
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
    # The published code of SIREN leaves torch's default biases: phases of a random offset.
    init.uniform_(linear.bias, 1.0 / math.sqrt(linear.in_features), generator)
