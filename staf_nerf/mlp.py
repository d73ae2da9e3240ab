"""The coordinate network: linear layers with an activation of their own between them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from staf_nerf import initialization as init
from staf_nerf.activations import FINER, STAF, Activation, ActivationFactory, Sine, activation_factory
from staf_nerf.kernels.linear import linear as linear_map


class CoordinateMLP(nn.Module):
    """Linear, σ, linear, σ, …, linear: (..., in_features) -> (..., out_features).

    Args:
        in_features: Size of the input's last dimension.
        out_features: Size of the output's last dimension.
        hidden_features: Width of the hidden layers.
        hidden_layers: Number of hidden layers, each a linear map followed by the activation. 0 gives a linear map.
        activation: A name in `staf_nerf.activations.ACTIVATIONS`, or a factory `layer_index -> Activation`.
        first_omega: Frequency scale of layer 0, for a named activation that has one.
        hidden_omega: Frequency scale of the other layers.
        skip: Whether each hidden layer but the first adds z to σ(z), as the published code of STAF does for images.
        reads_coordinates: Whether the input is coordinates, for which a periodic first layer starts with weights of its
            own. Features, of an encoding or another network, get those of the hidden layers.
        generator: Source of the initial weights.
        **options: Options of a named activation, such as `num_frequencies` or `sharing`.

    An activation whose values are complex (Gabor) gets complex weights after it; the output is the real part.

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
            *parts: The input; or several tensors whose last dimensions add up to `in_features` and whose other ones
                broadcast. What is the same for many points is then multiplied once, and nothing is concatenated.
        """
        x = _linear(self.output, (self.hidden(*parts),) if len(self.linears) else parts)
        return x.real if x.is_complex() else x

    def hidden(self, *parts: Tensor) -> Tensor:
        """What the last hidden layer hands on, (..., hidden_features). The arguments are those of `forward`."""
        read = parts
        for linear, sigma in zip(self.linears, self.activations, strict=True):
            parts = (_layer(linear, sigma, parts, read, skip=self.skip and parts is not read),)
        return parts[0]


def _layer(
    linear: Any, sigma: Any, parts: tuple[Tensor, ...], read: tuple[Tensor, ...], *, skip: bool = False
) -> Tensor:
    """σ of the linear map of the parts' concatenation, in a network that reads others; `skip`: and that map itself."""
    if skip:
        z = _linear(linear, parts)
        return z + (sigma(z, _linear(sigma.filter, read)) if sigma.reads_input else sigma(z))
    if sigma.adds_bias:
        return sigma(_linear(linear, parts, biased=False), linear.bias)
    if sigma.reads_input:
        return sigma(_linear(linear, parts), _linear(sigma.filter, read))
    return sigma(_linear(linear, parts))


def _linear(linear: Any, parts: tuple[Tensor, ...], *, biased: bool = True) -> Tensor:
    """The linear map of the parts' concatenation, with or without its bias."""
    bias = linear.bias if biased else None
    if len(parts) == 1:
        return linear_map(parts[0], linear.weight, bias)
    first, *others = linear.weight.split([part.shape[-1] for part in parts], dim=1)
    rest = [linear_map(part, weight) for part, weight in zip(parts[1:], others, strict=True)]
    return sum(rest, linear_map(parts[0], first, bias))


def _initialize_output_(linear: nn.Linear, last: Activation | None, generator: Generator | None) -> None:
    """The linear layer at the end continues the hidden ones' scale (as in SIREN's published code), with zero biases."""
    if isinstance(last, STAF | Sine | FINER):
        bound = math.sqrt(6.0 / linear.in_features) / last.omega
        init.uniform_(linear.weight, min(bound, 1.0 / math.sqrt(linear.in_features)), generator)
    else:
        init.torch_weight_(linear.weight, generator)
    init.uniform_(linear.bias, 0.0)
