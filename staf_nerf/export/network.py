"""A field as a list of layers of numbers, from which every export format is made.

Conventions: weights are (n_out, n_in), as in torch. A layer maps h to::

    s · z + σ(z)  with  z = weight · h + bias

Here s is 1 for the first `straight` outputs and 0 for the others. Skip connections, coordinates in positional encodings
and the output layer have this form. Fourier features are a layer without bias, with cos(z) = sin(z + π/2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from staf_nerf.encodings import Encoding, FourierFeatures, Identity
from staf_nerf.fields import NeuralField, SignedDistanceField
from staf_nerf.mlp import CoordinateMLP

Floats = NDArray[np.float32]
Kind = Literal["fourier", "finer", "gaussian", "sinc", "relu", "none"]

SIGMAS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.float64]]] = {
    "finer": lambda z, w: np.sin(w * (np.abs(z) + 1.0) * z),
    "gaussian": lambda z, w: np.exp(-0.5 * (w * z) ** 2),
    "sinc": lambda z, w: np.sinc(w * z / math.pi),
    "relu": lambda z, w: np.maximum(z, 0.0),
    "none": lambda z, w: np.zeros_like(z),
}
"""Activations without own parameters, in double precision."""
SUPPORTED = "STAF, sine, FINER, Gaussian, sinc and ReLU"
"""Exported activations, for error messages."""


@dataclass(frozen=True)
class Layer:
    """A layer: z = weight · h + bias, then s · z + σ(z)."""

    weight: Floats
    """(n_out, n_in)."""
    bias: Floats
    """(n_out,)."""
    kind: Kind
    """σ: Σᵢ Cᵢ sin(Ωᵢ z + Φᵢ), sin(w (abs(z) + 1) z), exp(-(w z)² / 2), sin(w z) / (w z), max(z, 0), or 0."""
    straight: int = 0
    """Number of first outputs to which z is added."""
    sinusoids: Floats | None = None
    """For "fourier": (3, τ, n_out) or (3, τ, 1), the amplitudes C, the frequencies Ω and the phases Φ."""
    scale: float = 1.0
    """w of the other kinds."""

    @property
    def outputs(self) -> int:
        """n_out."""
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """n_in."""
        return self.weight.shape[1]

    @property
    def numbers(self) -> int:
        """Number of parameters."""
        return self.weight.size + self.bias.size + (0 if self.sinusoids is None else self.sinusoids.size)

    def values(self, h: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluates the layer, (n, n_in) -> (n, n_out)."""
        z = h @ self.weight.T.astype(np.float64) + self.bias
        found = self._sigma(z)
        found[:, : self.straight] += z[:, : self.straight]
        return found

    def _sigma(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.sinusoids is not None:
            total = np.zeros_like(z)
            for amplitude, frequency, phase in self.sinusoids.transpose(1, 0, 2).astype(np.float64):
                total += amplitude * np.sin(frequency * z + phase)
            return total
        return SIGMAS[self.kind](z, self.scale)


@dataclass(frozen=True)
class Sphere:
    """The sphere added to the network of a signed distance: sign · (√(‖x - center‖² + r²/4) - √(r² + r²/4))."""

    center: tuple[float, float, float]
    radius: float
    sign: float

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the distance (n, 1) of points (n, 3)."""
        rounding = (0.5 * self.radius) ** 2
        squared = ((points - np.array(self.center)) ** 2).sum(1, keepdims=True)
        return self.sign * (np.sqrt(squared + rounding) - math.sqrt(self.radius**2 + rounding))


@dataclass(frozen=True)
class Network:
    """The layers of a field, and the sphere that is added to their result, if any."""

    layers: tuple[Layer, ...]
    sphere: Sphere | None = None

    @property
    def inputs(self) -> int:
        """Number of coordinates."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Number of values."""
        return self.layers[-1].outputs

    @property
    def width(self) -> int:
        """Width of the widest layer."""
        return max(layer.outputs for layer in self.layers)

    @property
    def sinusoids(self) -> int:
        """Largest number of sinusoids of an activation."""
        return max(0 if layer.sinusoids is None else layer.sinusoids.shape[1] for layer in self.layers)

    @property
    def numbers(self) -> int:
        """Number of parameters: weights, biases and sinusoids."""
        return sum(layer.numbers for layer in self.layers)

    def values(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Evaluates the network at points (n, inputs) in double precision and returns values (n, outputs)."""
        h = x = points.astype(np.float64)
        for layer in self.layers:
            h = layer.values(h)
        return h if self.sphere is None else h + self.sphere.distance(x)


def network_of(field: nn.Module) -> Network:
    """Returns the layers of a fitted field, as copies.

    Raises:
        ValueError: If the encoding or an activation cannot be exported. The message gives the reason.
    """
    sphere = None
    if isinstance(field, SignedDistanceField):
        *center, radius, sign = field.sphere.tolist()
        sphere = Sphere((center[0], center[1], center[2]), radius, sign) if sign else None
        field = field.geometry
    if not isinstance(field, NeuralField):
        raise ValueError(f"field must be a NeuralField or a SignedDistanceField, got {type(field).__name__}")
    encoded = encoding_layer(field.encoding)
    return Network((*encoded, *mlp_layers(field.mlp)), sphere)


def encoding_layer(encoding: Encoding) -> tuple[Layer, ...]:
    """Returns Fourier features as a layer of sines, and no layer for coordinates without encoding.

    Raises:
        ValueError: If the encoding is a hash grid.
    """
    if isinstance(encoding, Identity):
        return ()
    if not isinstance(encoding, FourierFeatures):
        raise ValueError(
            f"export needs an encoding without trainable features, got {type(encoding).__name__}, which is a table and "
            "not a list of layers; fit with --encoding identity, fourier or octaves"
        )
    frequencies = _numbers(encoding.frequencies)
    count, inputs = frequencies.shape
    first = inputs if encoding.include_input else 0
    weight = np.concatenate([np.eye(inputs, dtype=np.float32)[:first], frequencies, frequencies])
    amplitude = np.repeat(np.array([0.0, 1.0], np.float32), [first, 2 * count])
    phase = np.repeat(np.array([0.0, math.pi / 2.0], np.float32), [first + count, count])
    sinusoids = np.stack([amplitude, np.ones_like(phase), phase])[:, None]
    return (Layer(weight, np.zeros(len(weight), np.float32), "fourier", first, sinusoids),)


def mlp_layers(mlp: CoordinateMLP) -> tuple[Layer, ...]:
    """Returns the layers of a coordinate network.

    Raises:
        ValueError: If an activation cannot be exported.
    """
    if mlp.networks is not None:
        raise ValueError(f"export needs a single network, got {mlp.networks} networks as one")
    layers = [_layer(layer, index) for index, layer in enumerate(mlp.layers)]
    weight, bias = _numbers(mlp.output.weight), _numbers(mlp.output.bias)
    return (*layers, Layer(weight, bias, "none", len(bias)))


def _layer(layer: Any, index: int) -> Layer:
    weight, bias = _numbers(layer.linear.weight), _numbers(layer.linear.bias)
    straight = len(bias) if layer.skip else 0
    sinusoids = layer.activation.sinusoids()
    if sinusoids is not None:
        parts = [_numbers(values) for values in sinusoids]
        columns = np.stack([part if part.ndim == 2 else part[:, None] for part in parts])
        return Layer(weight, bias, "fourier", straight, columns)
    formula = layer.activation.formula()
    if isinstance(formula, str):
        name = type(layer.activation).__name__
        raise ValueError(f"activation must be one of {SUPPORTED}, got {name} in layer {index}: {formula}")
    return Layer(weight, bias, cast(Kind, formula.name), straight, scale=formula.scale)


def _numbers(tensor: torch.Tensor) -> Floats:
    return tensor.detach().cpu().float().numpy().copy()
