"""The coordinate network: a chain of layers, each with its own activation, and an output layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from staf_nerf import initialization as init
from staf_nerf.activations import ActivationFactory, activation_factory
from staf_nerf.layers import Activation, FilterLayer, Layer, LinearMap, Trace
from staf_nerf.migrations import parameter_name


class CoordinateMLP(nn.Module):
    """A coordinate network linear, σ, linear, σ, …, linear: (..., in_features) -> (..., out_features).

    An activation with complex values (Gabor) gets complex weights after it. The output is then the real part.
    `CoordinateMLP.stack` makes one network of several.

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
                first_omega=first_omega,
                hidden_omega=hidden_omega,
                generator=generator,
                **options,
            )
        elif options:
            raise ValueError(f"options are for a named activation, got {', '.join(sorted(options))} with a factory")
        self.in_features, self.out_features = in_features, out_features
        self.reads_coordinates = reads_coordinates
        self.layers: Any = nn.ModuleList()  # of `Layer`
        width, dtype = in_features, torch.get_default_dtype()
        for index in range(hidden_layers):
            sigma = activation(index)
            filters = sigma.filters_input and index > 0
            filter = LinearMap(in_features, hidden_features) if filters else None
            linear = LinearMap(width, hidden_features, dtype=dtype)
            layer = make_layer(linear, sigma, filter, skip=skip and index > 0)
            layer.initialize_(first=index == 0 and reads_coordinates, generator=generator)
            self.layers.append(layer)
            width = hidden_features
            if sigma.complex_valued:
                dtype = torch.complex64 if torch.get_default_dtype() == torch.float32 else torch.complex128
        self.output = LinearMap(width, out_features, dtype=dtype)
        last = self.layers[-1].activation if hidden_layers else Activation()
        init.uniform_(self.output.weight, last.output_bound(width), generator)
        init.uniform_(self.output.bias, 0.0)
        self.register_load_state_dict_pre_hook(_rename)

    @classmethod
    def stack(cls, networks: Sequence[CoordinateMLP]) -> CoordinateMLP:
        """Returns b networks of one architecture as one: (b, n, in_features) -> (b, n, out_features).

        Its parameters are those of the networks, copied, with a leading dimension b. Each layer is one batched product.

        Raises:
            ValueError: If there are no networks, or their parameters have different shapes.
        """
        names = names_if_alike("networks", networks)
        found = copy.deepcopy(networks[0])
        own = [dict(network.named_parameters()) for network in networks]
        for name in names:
            owner, _, last = name.rpartition(".")
            values = torch.stack([parameters[name].detach() for parameters in own])
            setattr(found.get_submodule(owner), last, nn.Parameter(values))
        return found

    @property
    def networks(self) -> int | None:
        """The number b of networks that it consists of. None for a plain network, without a leading dimension."""
        return len(self.output.weight) if self.output.weight.ndim == 3 else None

    @property
    def skip(self) -> bool:
        """Whether a layer has a skip connection."""
        return any(layer.skip for layer in self.layers)

    def forward(self, *parts: Tensor) -> Tensor:
        """Maps (..., in_features) to (..., out_features).

        Args:
            *parts: The input, or several tensors to be concatenated along the last dimension, whose sizes add up to
                `in_features`; see `LinearMap`.
        """
        x = self.output(*(self._through(parts)))
        return x.real if x.is_complex() else x

    def hidden(self, *parts: Tensor) -> Tensor:
        """Returns the output of the last hidden layer, (..., hidden_features). The arguments are those of `forward`."""
        return self._through(parts)[0]

    def _through(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns what the output layer reads, in parts."""
        read = parts
        for layer in self.layers:
            parts = (layer(*parts, read=read),)
        return parts

    def trace(self, x: Tensor) -> tuple[list[Trace], Tensor]:
        """Returns what each hidden layer computes for the input x, and the values, complex if the weights are."""
        found, h = [], x
        for layer in self.layers:
            found.append(layer.trace(h, x))
            h = found[-1].output
        return found, self.output(h)


def names_if_alike(argument: str, modules: Sequence[nn.Module]) -> list[str]:
    """Returns the names of the parameters that each of some modules has.

    Raises:
        ValueError: If there are no modules, or their parameters have different shapes. `argument` is their name.
    """
    shapes = [{name: tuple(p.shape) for name, p in module.named_parameters()} for module in modules]
    if not shapes or any(other != shapes[0] for other in shapes):
        raise ValueError(f"{argument} must have parameters of the same shapes, got {shapes}")
    return list(shapes[0])


def make_layer(linear: LinearMap, activation: Activation, filter: LinearMap | None = None, *, skip: bool) -> Layer:
    """Returns a layer, a `FilterLayer` if there is a filter."""
    if filter is None:
        return Layer(linear, activation, skip=skip)
    return FilterLayer(linear, filter, activation, skip=skip)


def _rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Gives the parameters of a network from an earlier version the names that they have now."""
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + parameter_name(name.removeprefix(prefix))] = state.pop(name)
