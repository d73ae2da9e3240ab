"""STAF networks as plain sine networks, and back: the Kronecker equivalence of arXiv 2502.00869.

Conventions: a STAF layer of n features and τ sinusoids becomes τ·n sines, with unit (i, k) at row i·n + k: the τ blocks
of a Kronecker product. With pre-activations z, their outputs are sin(Ωᵢ z_k + Φᵢ). The amplitudes C become part of the
next layer::

    W̄ˡ = (Ωˡ Cˡ⁻¹ᵀ) ⊗ Wˡ,  b̄ˡ = Ωˡ ⊗ bˡ + Φˡ ⊗ 1,  first layer Ω¹ ⊗ W¹,  output Cᵀ ⊗ W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from staf_nerf.activations import STAF, Sine
from staf_nerf.initialization import Sinusoids, gain
from staf_nerf.layers import Activation, Layer, LinearMap
from staf_nerf.mlp import CoordinateMLP

WELL_CONDITIONED = 0.05
"""Σ CΩ itself carries a skip connection if it is at least this fraction of Σ abs(CΩ).
Rounding errors grow by the reciprocal of the ratio."""


def sine_network(mlp: CoordinateMLP) -> CoordinateMLP:
    """Returns the plain sine network that computes the same function: linear, sin, linear, sin, …, linear.

    A layer of n features and τ sinusoids becomes τ·n sines. Any sharing is possible, and τ may differ between layers. A
    network with L hidden layers, d inputs and k outputs has (d + 1)τn + (L - 1)(τn + 1)τn + (τn + 1)k parameters.
    `Sine` layers count as τ = 1. Their ω becomes part of the weights, and the sines of the result have ω = 1.

    With `skip` the result has skip connections too, sin(λ z̄) + z̄, where λ is the ω of its `Sine`, because sines alone
    cannot pass their input on unchanged. The arguments of the sines carry z: Σ C z̄ = (Σ CΩ / λ) z + Σ CΦ / λ, which is
    z plus a constant for λ = Σ CΩ. If this sum differs between neurons or nearly vanishes, two sinusoids that cancel,
    β sin(z) and β sin(z + π), are added to make it 1. Such a layer has (τ + 2)·n sines.

    Args:
        mlp: A network with activations `STAF` or `Sine`. It is not changed and shares no memory with the result.

    Returns:
        A network of the same dtype and device, equal up to rounding. Its `hidden` returns the sines, not the features.

    Raises:
        ValueError: If an activation is neither `STAF` nor `Sine`.
    """
    layers: list[Layer] = []
    read: Tensor = torch.ones(1)  # amplitudes of a layer's inputs
    constant: Tensor | None = None
    with torch.no_grad():
        for number, layer in enumerate(mlp.layers):
            sinusoids, omega = sinusoids_of(layer.activation, number), 1.0
            if layer.skip:
                sinusoids, omega = _carrying(sinusoids)
            linear = _spread(layer.linear, read, constant, sinusoids, omega)
            layers.append(Layer(linear, Sine(linear.out_features, omega=omega), skip=layer.skip))
            read = sinusoids.amplitude
            constant = -(read * sinusoids.phase).sum(0) / omega if layer.skip else None
        output = _spread(mlp.output, read, constant, None, 1.0)
    return _network(layers, output)


def sinusoids_of(sigma: Activation, layer: int = 0) -> Sinusoids:
    """Returns C, Ω and Φ of an activation, (τ,) or (τ, n), detached. A `Sine` has one sinusoid.

    Raises:
        ValueError: If the activation is no sum of sinusoids.
    """
    sinusoids = sigma.sinusoids()
    if sinusoids is None:
        raise ValueError(f"activations must be STAF or Sine, got {type(sigma).__name__} in layer {layer}")
    return Sinusoids(*(values.detach() for values in sinusoids))


def _columns(values: Tensor, like: Tensor, size: int) -> Tensor:
    """Expands (τ,) or (τ, n) to (τ, n), with the dtype and device of `like`."""
    values = values.to(like)
    return values if values.ndim == 2 else values[:, None].expand(-1, size)


def _spread(
    linear: Any, amplitude: Tensor, constant: Tensor | None, sinusoids: Sinusoids | None, omega: float
) -> LinearMap:
    """Returns the linear map from sines with those amplitudes to the arguments of the next sinusoids, divided by ω.

    `constant`, () or (m,), is added to the features. Without sinusoids the layer returns its own result.
    """
    weight, bias = linear.weight, linear.bias
    rows, columns = weight.shape
    if constant is not None:
        bias = bias + weight @ constant.to(weight).expand(columns)
    wide = torch.einsum("km,jm->kjm", weight, _columns(amplitude, weight, columns)).reshape(rows, -1)
    if sinusoids is not None:
        frequency, phase = (_columns(values, weight, rows) / omega for values in sinusoids[1:])
        wide = (frequency[..., None] * wide).reshape(-1, wide.shape[1])
        bias = (frequency * bias + phase).reshape(-1)
    return _linear(wide, bias)


def _linear(weight: Tensor, bias: Tensor) -> LinearMap:
    linear = LinearMap(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return linear


def _carrying(sinusoids: Sinusoids) -> tuple[Sinusoids, float]:
    """Returns an equal sum whose arguments carry z, and its λ = Σ CΩ."""
    terms = sinusoids.amplitude * sinusoids.frequency
    slope = terms.sum(0)
    if slope.ndim == 0 and slope.abs() > WELL_CONDITIONED * terms.abs().sum():
        return sinusoids, float(slope)
    half = 0.5 * (1.0 - slope)
    one, zero = torch.ones_like(half), torch.zeros_like(half)
    added = ([half, half], [one, one], [zero, math.pi * one])
    return Sinusoids(*(torch.cat([old, torch.stack(new)]) for old, new in zip(sinusoids, added, strict=True))), 1.0


def _network(layers: Sequence[Layer], output: LinearMap) -> CoordinateMLP:
    """Returns a coordinate network of those layers, whose widths may differ."""
    inputs = (layers[0].linear if layers else output).in_features
    network = CoordinateMLP(inputs, output.out_features, hidden_layers=0)
    network.layers.extend(layers)
    network.output = output
    return network


# --- the way back ----------------------------------------------------------------------------------------------------


def staf_from_sine(
    network: CoordinateMLP,
    num_frequencies: int | Sequence[int],
    *,
    sharing: Literal["layer", "neuron"] = "layer",
    omega: float = 30.0,
    tolerance: float | None = None,
) -> CoordinateMLP:
    """Returns the STAF network whose Kronecker equivalent is a plain sine network, the inverse of `sine_network`.

    Several parametrisations give the same function. The result is made unique: the gain of each layer is `omega` (see
    `initialization.gain`), Σ C² = 1, the largest C and the largest Ω are positive, and the biases of a layer have mean
    0 if it shares its phases, otherwise they are 0.

    Args:
        network: A plain sine network without skip connections.
        num_frequencies: τ, one for all layers or a list with one for each.
        sharing: Sharing of the parameters of the result.
        omega: Gain of the result's activations, in radians per unit.
        tolerance: Largest deviation from the structure, relative to the largest entry of a matrix or bias. Defaults to
            1e4 times the rounding error of the dtype.

    Raises:
        ValueError: If τ does not divide a layer's width, or the weights or biases do not have the structure.
    """
    counts = _check_network(network, num_frequencies)
    dtype, device = network.output.weight.dtype, network.output.weight.device
    tolerance = 1e4 * torch.finfo(dtype).eps if tolerance is None else tolerance
    weights = [*map(_effective, network.layers), network.output.weight.detach().double()]
    factors = [
        _factor(weight, before, after, sharing == "neuron", tolerance, place)
        for place, (weight, before, after) in enumerate(zip(weights, (1, *counts), (*counts, 1), strict=True))
    ]
    layers = []
    for number, layer in enumerate(network.layers):
        frequency, weight, _ = factors[number]
        amplitude = factors[number + 1][2]
        scale = omega / gain(amplitude, frequency)
        scale = torch.where(scale.isfinite(), scale, torch.ones_like(scale))
        argument = (layer.activation.omega * layer.linear.bias.detach().double()).reshape(counts[number], -1)
        bias, phase = _factor_bias(argument, frequency, tolerance, number, shared=sharing == "layer")
        linear = _linear((weight / scale[:, None]).to(dtype), (bias / scale).to(dtype))
        layers.append(Layer(linear, _staf((amplitude, frequency * scale, phase), sharing, omega, dtype)))
    output = _linear(factors[-1][1].to(dtype), network.output.bias.detach())
    return _network(layers, output).to(device)


def _check_network(network: CoordinateMLP, num_frequencies: int | Sequence[int]) -> list[int]:
    """Checks the arguments and returns τ of each layer."""
    layers = len(network.layers)
    counts = [num_frequencies] * layers if isinstance(num_frequencies, int) else list(num_frequencies)
    if len(counts) != layers or any(count < 1 for count in counts):
        raise ValueError(f"num_frequencies must be a number >= 1 or {layers} of them, got {num_frequencies}")
    if network.skip:
        raise ValueError("network must have no skip connections, got skip=True")
    for number, (layer, count) in enumerate(zip(network.layers, counts, strict=True)):
        sigma, width = layer.activation, layer.linear.out_features
        if not isinstance(sigma, Sine):
            raise ValueError(f"activations must be Sine, got {type(sigma).__name__} in layer {number}")
        if width % count:
            raise ValueError(
                f"num_frequencies must divide the width of its layer, got {count} for {width} sines in layer {number}"
            )
    return counts


def _effective(layer: Any) -> Tensor:
    """Returns the weights of a layer times the ω of its sine, in float64."""
    return layer.activation.omega * layer.linear.weight.detach().double()


def _factor(
    wide: Tensor, before: int, after: int, by_neuron: bool, tolerance: float, place: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors wide[(i, k), (j, l)] = Ω[i, k] W[k, l] C[j, l]: returns Ω (after, n), W (n, m) and C (before, m).

    The columns of Ω and C have unit length.
    """
    blocks = wide.reshape(after, wide.shape[0] // after, before, wide.shape[1] // before)
    frequency = _directions(blocks.permute(1, 0, 2, 3).flatten(2), by_neuron)
    amplitude = _directions(blocks.permute(3, 2, 0, 1).flatten(2), by_neuron)
    weight = torch.einsum("ikjl,ik,jl->kl", blocks, frequency, amplitude)
    residual = (torch.einsum("ik,kl,jl->ikjl", frequency, weight, amplitude) - blocks).abs().max()
    if residual > tolerance * blocks.abs().max():
        raise ValueError(
            f"network must be a Kronecker product of {after} and {before} blocks in linear layer {place}, but deviates "
            f"from the nearest by {residual / blocks.abs().max():.2g} of its largest weight, tolerance {tolerance:.2g}"
        )
    return frequency, weight, amplitude


def _directions(matrices: Tensor, by_neuron: bool) -> Tensor:
    """Returns the unit vectors (τ, n) that the columns of (n, τ, p) are multiples of, one per neuron or one for all."""
    count = len(matrices)
    if not by_neuron:
        matrices = matrices.permute(1, 0, 2).flatten(1)[None]
    vectors = torch.linalg.eigh(matrices @ matrices.mT).eigenvectors[..., -1]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * torch.where(largest < 0, -1.0, 1.0)).expand(count, -1).T


def _factor_bias(
    argument: Tensor, frequency: Tensor, tolerance: float, layer: int, *, shared: bool
) -> tuple[Tensor, Tensor]:
    """Returns b (n,) and Φ (τ, n) with argument[i, k] = Ω[i, k] b[k] + Φ[i, k]."""
    if not shared:  # any biases have this structure
        return torch.zeros_like(argument[0]), argument
    phase = argument.mean(1, keepdim=True)
    bias = (frequency * (argument - phase)).sum(0)  # the columns of Ω have unit length
    residual = (frequency * bias + phase - argument).abs().max()
    if residual > tolerance * argument.abs().max():
        raise ValueError(
            f"network must have biases Ω ⊗ b + Φ ⊗ 1 in linear layer {layer}, but deviates from the nearest by "
            f"{residual / argument.abs().max():.2g} of its largest bias, tolerance {tolerance:.2g}"
        )
    return bias, phase.expand_as(argument)


def _staf(values: tuple[Tensor, ...], sharing: Literal["layer", "neuron"], omega: float, dtype: torch.dtype) -> STAF:
    """Returns an activation with those amplitudes, frequencies and phases, each (τ, n)."""
    count, width = values[0].shape
    sigma = STAF(width, num_frequencies=count, sharing=sharing, omega=omega)
    names = ("amplitude", "frequency", "phase")
    for name, value in zip(names, values, strict=True):
        kept = value if sharing == "neuron" else value[:, 0]
        setattr(sigma, name, nn.Parameter(kept.to(dtype).clone()))
    return sigma
