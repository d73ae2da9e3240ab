"""A layer of a coordinate network: a linear map and the activation after it.

Conventions: a layer maps h to σ(z), or to σ(z) + z with a skip connection, where z = W h + b. Weights are
(n_out, n_in), as in torch. Several networks of one architecture can be one: every parameter then has a leading
dimension b, and inputs and outputs are (b, n, features).

`Activation` is what all activations have in common. `staf_nerf.activations` has the classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from staf_nerf import initialization as init
from staf_nerf.initialization import Bounds, Sinusoids
from staf_nerf.kernels.linear import linear as linear_map


class LinearMap(nn.Linear):
    """The linear map W h + b: (..., n_in) -> (..., n_out).

    With weights (b, n_out, n_in) it is that of each of b networks: (b, n, n_in) -> (b, n, n_out).
    The input may come in parts, to be concatenated along the last dimension. Their other dimensions broadcast: values
    that many points share are multiplied only once, and nothing is actually concatenated.
    """

    def forward(self, *parts: Tensor) -> Tensor:
        return self._map(parts, self.bias)

    def product(self, *parts: Tensor) -> Tensor:
        """Returns W h, without the bias."""
        return self._map(parts, None)

    def _map(self, parts: tuple[Tensor, ...], bias: Tensor | None) -> Tensor:
        apply = linear_map if self.weight.ndim == 2 else _map_each
        if len(parts) == 1:
            return apply(parts[0], self.weight, bias)
        first, *others = self.weight.split([part.shape[-1] for part in parts], dim=-1)
        rest = [apply(part, weight, None) for part, weight in zip(parts[1:], others, strict=True)]
        return sum(rest, apply(parts[0], first, bias))


def _map_each(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns W h + b for each of b networks: (b, n, n_in), (b, n_out, n_in), (b, n_out) -> (b, n, n_out)."""
    b = len(weight)
    if h.ndim != 3 or len(h) != b:
        raise ValueError(f"inputs of {b} networks must have shape ({b}, n, d), got {tuple(h.shape)}")
    return torch.bmm(h, weight.mT) if bias is None else torch.baddbmm(bias[:, None], h, weight.mT)


class Formula(NamedTuple):
    """A formula that export formats know; see `staf_nerf.export.network.SIGMAS`."""

    name: str
    scale: float = 1.0
    """The factor on z."""


class Activation(nn.Module):
    """Base class of activations σ. A class must have `forward(z)`: (..., n) -> (..., n). All else has a default.

    The defaults are: real values, torch's initialisation of the linear map before it, and no export.
    """

    complex_valued = False
    """Whether the outputs are complex, so that the following layers need complex weights."""
    filters_input = False
    """Whether the hidden layers after the first are `FilterLayer`."""

    @property
    def argument_scale(self) -> float:
        """The factor on z inside the activation, in radians per unit of z for periodic ones.

        The learning rate of weights that read coordinates is divided by it.
        """
        return 1.0

    def after(self, linear: LinearMap, *parts: Tensor) -> Tensor:
        """Returns σ(W h + b) for the input h of that map, in parts. A class that adds the bias itself overrides it."""
        return self(linear(*parts))

    def of_networks(self, z: Tensor) -> Tensor:
        """Returns σ(z) for z (b, n, n_out) of b networks, where each parameter has a leading dimension b."""
        parameters = dict(self.named_parameters())
        if not parameters:
            return self(z)
        return torch.vmap(lambda own, z: functional_call(self, own, (z,)))(parameters, z)

    def bounds(self, fan_in: int, *, first: bool) -> Bounds:
        """Returns the bounds of the uniform initialisation of the linear map before it.

        Args:
            fan_in: Number of inputs of the map.
            first: Whether the map reads coordinates.
        """
        return init.torch_bounds(fan_in)

    def output_bound(self, fan_in: int) -> float:
        """Returns the bound of the weights of an output layer that reads this activation."""
        return 1.0 / math.sqrt(fan_in)

    def initialize_(self, linear: nn.Linear, *, first: bool, generator: Generator | None = None) -> None:
        """Initialises the linear map before it in place, from `bounds`.

        Args:
            linear: The linear map.
            first: Whether it reads coordinates.
            generator: Random generator.
        """
        bounds = self.bounds(linear.in_features, first=first)
        init.uniform_(linear.weight, bounds.weight, generator)
        if bounds.bias:
            init.uniform_(linear.bias, bounds.bias, generator)
        else:
            nn.init.zeros_(linear.bias)

    def sinusoids(self) -> Sinusoids | None:
        """Returns C, Ω and Φ, (τ,) or (τ, n), if σ is a sum of sinusoids. Otherwise returns None."""
        return None

    def formula(self) -> Formula | str:
        """Returns the formula of an activation that is no sum of sinusoids, or the reason why it cannot be exported."""
        return "the export formats do not have its formula"


class Trace(NamedTuple):
    """What a layer computed on the way from its input to its output."""

    maps: tuple[tuple[Tensor, Tensor], ...]
    """Input and output of each linear map, that of `linear` first."""
    values: Tensor
    """σ, of the last map's output."""
    output: Tensor
    """The output of the layer."""


class Layer(nn.Module):
    """A linear map and its activation: h -> σ(z), or σ(z) + z with a skip connection, with z = W h + b.

    Args:
        linear: The map from h to z.
        activation: σ.
        skip: Whether z is added.
    """

    def __init__(self, linear: LinearMap, activation: Activation, *, skip: bool = False) -> None:
        super().__init__()
        self.linear, self.activation, self.skip = linear, activation, skip

    def forward(self, *parts: Tensor, read: tuple[Tensor, ...] = ()) -> Tensor:
        """Returns the output of the layer.

        Args:
            *parts: The input, in parts.
            read: The input of the whole network, in parts. Only a `FilterLayer` needs it.
        """
        if not self.skip and self.linear.weight.ndim == 2:
            return self.activation.after(self.linear, *parts)
        z = self.linear(*parts)
        return z + self._sigma(z) if self.skip else self._sigma(z)

    def trace(self, h: Tensor, x: Tensor) -> Trace:
        """Returns what the layer computes from its input h, in a network with the input x."""
        z = self.linear(h)
        values = self._sigma(z)
        return Trace(((h, z),), values, values + z if self.skip else values)

    def initialize_(self, *, first: bool, generator: Generator | None = None) -> None:
        """Initialises the linear map as the activation wants it. `first`: whether the layer reads coordinates."""
        self.activation.initialize_(self.linear, first=first, generator=generator)

    def _sigma(self, z: Tensor) -> Tensor:
        return self.activation(z) if self.linear.weight.ndim == 2 else self.activation.of_networks(z)

    def extra_repr(self) -> str:
        return f"skip={self.skip}"


class FilterLayer(Layer):
    """A layer of a multiplicative filter network: h -> z · σ(A x + a), plus z with a skip connection.

    Here x is the input of the network (MFN; Fathony et al., ICLR 2021).

    Args:
        linear: The map from h to z.
        filter: The map from x to A x + a.
        activation: σ.
        skip: Whether z is added.
    """

    def __init__(self, linear: LinearMap, filter: LinearMap, activation: Activation, *, skip: bool = False) -> None:
        super().__init__(linear, activation, skip=skip)
        self.filter = filter

    def forward(self, *parts: Tensor, read: tuple[Tensor, ...] = ()) -> Tensor:
        z = self.linear(*parts)
        value = z * self._sigma(self.filter(*read))
        return z + value if self.skip else value

    def trace(self, h: Tensor, x: Tensor) -> Trace:
        z, argument = self.linear(h), self.filter(x)
        values = self._sigma(argument)
        return Trace(((h, z), (x, argument)), values, z * values + z if self.skip else z * values)

    def initialize_(self, *, first: bool, generator: Generator | None = None) -> None:
        """Initialises the filter as the activation wants it, and the other map as torch does."""
        Activation().initialize_(self.linear, first=False, generator=generator)
        self.activation.initialize_(self.filter, first=True, generator=generator)
