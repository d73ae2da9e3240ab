"""The coordinate network: linear layers, each hidden one followed by its own activation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from staf_nerf import initialization as init
from staf_nerf.activations import FINER, STAF, Activation, ActivationFactory, Sine, activation_factory
from staf_nerf.kernels.linear import linear as linear_map


class CoordinateMLP(nn.Module):
    """A coordinate network linear, σ, linear, σ, …, linear: (..., in_features) -> (..., out_features).

    An activation with complex values (Gabor) gets complex weights after it. The output is then the real part.

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's last dimension.
        hidden_features: Number of features of each hidden layer.
        hidden_layers: Number of hidden layers, each a linear map followed by the activation. 0 gives a linear map.
        activation: A name in `staf_nerf.activations.ACTIVATIONS`, or a factory `layer_index -> Activation`.
        first_omega: Frequency scale of layer 0, in radians per unit, for a named activation that has one.
        hidden_omega: Frequency scale of the other layers, in radians per unit.
        skip: Whether each hidden layer but the first returns σ(z) + z, as in the published code of STAF for images.
        reads_coordinates: Whether the input is coordinates. A periodic first layer then gets the initialisation of a
            first layer. Otherwise (features of an encoding or another network) it gets that of a hidden layer.
        generator: Random generator for the initial weights.
        **options: Options of a named activation, such as `num_frequencies` or `sharing`.

    Raises:
        ValueError: If an argument is out of range or unknown.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        activation: str | ActivationFactory = "staf",
        first_omega: float = 30.0,
        hidden_omega: float = 30.0,
        reads_coordinates: bool = True,
        skip: bool = False,
        generator: Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("in_features", in_features, 1),
            ("out_features", out_features, 1),
            ("hidden_features", hidden_features, 1),
            ("hidden_layers", hidden_layers, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if isinstance(activation, str):
            activation = activation_factory(
                activation,
                hidden_features,
                in_features=in_features,
                first_omega=first_omega,
                hidden_omega=hidden_omega,
                generator=generator,
                **options,
            )
        elif options:
            raise ValueError(f"options are for a named activation, got {', '.join(sorted(options))} with a factory")
        self.in_features, self.out_features, self.skip = in_features, out_features, skip
        self.reads_coordinates = reads_coordinates
        self.linears = nn.ModuleList()
        self.activations = nn.ModuleList()
        width, dtype, last = in_features, torch.get_default_dtype(), None
        for layer in range(hidden_layers):
            sigma = activation(layer)
            linear = nn.Linear(width, hidden_features, dtype=dtype)
            sigma.initialize_(linear, first=layer == 0 and reads_coordinates, generator=generator)
            self.linears.append(linear)
            self.activations.append(sigma)
            width, last = hidden_features, sigma
            if sigma.complex_valued:
                dtype = torch.complex64 if torch.get_default_dtype() == torch.float32 else torch.complex128
        self.output = nn.Linear(width, out_features, dtype=dtype)
        _initialize_output_(self.output, last, generator)

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps (..., in_features) to (..., out_features).

        Args:
            *parts: The input, or several tensors to be concatenated along the last dimension, whose sizes add up to
                `in_features`. Their other dimensions broadcast: values that many points share are multiplied only
                once, and nothing is actually concatenated.
        """
        x = _linear(self.output, (self.hidden(*parts),) if len(self.linears) else parts)
        return x.real if x.is_complex() else x

    def hidden(self, *parts: Tensor) -> Tensor:
        """Returns the output of the last hidden layer, (..., hidden_features). The arguments are those of `forward`."""
        read = parts
        for linear, sigma in zip(self.linears, self.activations, strict=True):
            parts = (_layer(linear, sigma, parts, read, skip=self.skip and parts is not read),)
        return parts[0]


def _layer(
    linear: Any, sigma: Any, parts: tuple[Tensor, ...], read: tuple[Tensor, ...], *, skip: bool = False
) -> Tensor:
    """Returns σ(z), plus z if `skip`, for the linear map z of the concatenated parts. `read` is the network's input."""
    if skip:
        z = _linear(linear, parts)
        return z + (sigma(z, _linear(sigma.filter, read)) if sigma.reads_input else sigma(z))
    if sigma.adds_bias:
        return sigma(_linear(linear, parts, biased=False), linear.bias)
    if sigma.reads_input:
        return sigma(_linear(linear, parts), _linear(sigma.filter, read))
    return sigma(_linear(linear, parts))


def _linear(linear: Any, parts: tuple[Tensor, ...], *, biased: bool = True) -> Tensor:
    """Returns the linear map of the concatenated parts, with or without its bias."""
    bias = linear.bias if biased else None
    if len(parts) == 1:
        return linear_map(parts[0], linear.weight, bias)
    first, *others = linear.weight.split([part.shape[-1] for part in parts], dim=1)
    rest = [linear_map(part, weight) for part, weight in zip(parts[1:], others, strict=True)]
    return sum(rest, linear_map(parts[0], first, bias))


def _initialize_output_(linear: nn.Linear, last: Activation | None, generator: Generator | None) -> None:
    """Initialises the output layer: weights like a hidden layer's (as in SIREN's published code), zero biases."""
    if isinstance(last, STAF | Sine | FINER):
        bound = math.sqrt(6.0 / linear.in_features) / last.omega
        init.uniform_(linear.weight, min(bound, 1.0 / math.sqrt(linear.in_features)), generator)
    else:
        init.torch_weight_(linear.weight, generator)
    init.uniform_(linear.bias, 0.0)
