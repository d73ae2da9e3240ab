"""STAF networks as plain sine networks, and back: the Kronecker equivalence of arXiv 2502.00869.

Conventions: a STAF layer of n features and τ sinusoids becomes τ·n sines, unit (i, k) at row i·n + k: the τ blocks of a
Kronecker product. With pre-activations z, its outputs are sin(Ωᵢ z_k + Φᵢ); their weights C belong to the next layer:

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
from staf_nerf.mlp import CoordinateMLP

WELL_CONDITIONED = 0.05
"""A skip is carried by Σ CΩ itself where that is at least this part of Σ |CΩ|: rounding grows by its reciprocal."""


def sine_network(mlp: CoordinateMLP) -> CoordinateMLP:
    """The plain sine network that computes the same function: linear, sin, linear, sin, …, linear.

    A layer of n features and τ sinusoids becomes τ·n sines, of any sharing and with τ of its own: a network of L hidden
    layers, d inputs and k outputs has (d + 1)τn + (L - 1)(τn + 1)τn + (τn + 1)k parameters. Layers that are `Sine`
    count as τ = 1; their ω goes into the weights, and those of the result have ω = 1.

    With `skip` the result has skips too, sin(λ z̄) + z̄, where λ is the ω of its `Sine`: no layer of sines alone hands
    on unchanged what it reads. The sines' arguments carry z along, Σ C z̄ = (Σ CΩ / λ) z + Σ CΦ / λ, which is z and a
    constant for λ = Σ CΩ. Where that sum differs between neurons, or nearly vanishes, two sinusoids
    that cancel, β sin(z) and β sin(z + π), make it 1: such a layer has (τ + 2)·n sines.

    Args:
        mlp: A network whose activations are `STAF` or `Sine`. It is not changed, and shares nothing with the result.

    Returns:
        A network of the same dtype and device, equal up to rounding. Its `hidden` is the sines, not the features.

    Raises:
        ValueError: If an activation is neither `STAF` nor `Sine`.
    """
    linears: list[nn.Linear] = []
    omegas: list[float] = []
    read: Tensor = torch.ones(1)  # the amplitudes of what a layer reads
    constant: Tensor | None = None
    with torch.no_grad():
        for layer, (linear, sigma) in enumerate(_layers(mlp)):
            sinusoids, omega = sinusoids_of(sigma, layer), 1.0
            if mlp.skip and layer:
                sinusoids, omega = _carrying(sinusoids)
            linears.append(_spread(linear, read, constant, sinusoids, omega))
            omegas.append(omega)
            read = sinusoids.amplitude
            constant = -(read * sinusoids.phase).sum(0) / omega if mlp.skip and layer else None
        output = _spread(mlp.output, read, constant, None, 1.0)
    activations = [Sine(linear.out_features, omega=omega) for linear, omega in zip(linears, omegas, strict=True)]
    return _network(linears, activations, output, skip=mlp.skip)


def sinusoids_of(sigma: nn.Module, layer: int = 0) -> Sinusoids:
    """C, Ω and Φ of an activation, (τ,) or (τ, n), detached; of a `Sine`, one sinusoid.

    Raises:
        ValueError: If it is neither `STAF` nor `Sine`.
    """
    if isinstance(sigma, STAF):
        return Sinusoids(sigma.amplitude.detach(), sigma.frequency.detach(), sigma.phase.detach())
    if isinstance(sigma, Sine):
        return Sinusoids(torch.ones(1), torch.tensor([sigma.omega], dtype=torch.float64), torch.zeros(1))
    raise ValueError(f"activations must be STAF or Sine, got {type(sigma).__name__} in layer {layer}")


def _layers(mlp: CoordinateMLP) -> list[tuple[Any, Any]]:
    return list(zip(mlp.linears, mlp.activations, strict=True))


def _columns(values: Tensor, like: Tensor, size: int) -> Tensor:
    """(τ,) or (τ, n) -> (τ, n), in the dtype and on the device of `like`."""
    values = values.to(like)
    return values if values.ndim == 2 else values[:, None].expand(-1, size)


def _spread(
    linear: Any, amplitude: Tensor, constant: Tensor | None, sinusoids: Sinusoids | None, omega: float
) -> nn.Linear:
    """The linear layer that reads sines of those amplitudes and hands on the arguments of the sinusoids, over ω.

    `constant` is what the features hold beside the sines, () or (m,). Without sinusoids it hands on what it computes.
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


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return linear


def _carrying(sinusoids: Sinusoids) -> tuple[Sinusoids, float]:
    """The same sum with λ = Σ CΩ, so that its arguments over λ carry z along; λ."""
    terms = sinusoids.amplitude * sinusoids.frequency
    slope = terms.sum(0)
    if slope.ndim == 0 and slope.abs() > WELL_CONDITIONED * terms.abs().sum():
        return sinusoids, float(slope)
    half = 0.5 * (1.0 - slope)
    one, zero = torch.ones_like(half), torch.zeros_like(half)
    added = ([half, half], [one, one], [zero, math.pi * one])
    return Sinusoids(*(torch.cat([old, torch.stack(new)]) for old, new in zip(sinusoids, added, strict=True))), 1.0


def _network(
    linears: Sequence[nn.Linear], activations: Sequence[nn.Module], output: nn.Linear, *, skip: bool = False
) -> CoordinateMLP:
    """A coordinate network of those layers, whose widths may differ."""
    inputs = (linears[0] if linears else output).in_features
    network = CoordinateMLP(inputs, output.out_features, hidden_layers=0, skip=skip)
    network.linears.extend(linears)
    network.activations.extend(activations)
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
    """The STAF network of which a plain sine network is the Kronecker equivalent, as `sine_network` orders its units.

    Three freedoms change no function, and are fixed: the scale between Ω and W (each layer's gain is `omega`, see
    `initialization.gain`), that between C and the weights that read it (Σ C² = 1, the largest C positive), and a shift
    between phases and biases (the biases of a layer that shares its phases have mean 0; else all are 0). Signs of Ω and
    W are one freedom more: the largest Ω is positive.

    Args:
        network: Plain sines, without skips.
        num_frequencies: τ, of all layers or of each.
        sharing: Of the parameters that are looked for.
        omega: Gain of the result's activations, radians per unit.
        tolerance: The largest departure from the structure, relative to a matrix's or bias's largest entry; 1e4 times
            the rounding of the dtype, if not given.

    Raises:
        ValueError: If τ does not divide a layer's width, or the weights or biases have no such structure.
    """
    counts = _check_network(network, num_frequencies)
    dtype, device = network.output.weight.dtype, network.output.weight.device
    tolerance = 1e4 * torch.finfo(dtype).eps if tolerance is None else tolerance
    weights = [*map(_effective, network.linears, network.activations), network.output.weight.detach().double()]
    factors = [
        _factor(weight, before, after, sharing == "neuron", tolerance, place)
        for place, (weight, before, after) in enumerate(zip(weights, (1, *counts), (*counts, 1), strict=True))
    ]
    linears, found = [], []
    for layer, (linear, sigma) in enumerate(_layers(network)):
        frequency, weight, _ = factors[layer]
        amplitude = factors[layer + 1][2]
        scale = omega / gain(amplitude, frequency)
        scale = torch.where(scale.isfinite(), scale, torch.ones_like(scale))
        argument = (sigma.omega * linear.bias.detach().double()).reshape(counts[layer], -1)
        bias, phase = _factor_bias(argument, frequency, tolerance, layer, shared=sharing == "layer")
        linears.append(_linear((weight / scale[:, None]).to(dtype), (bias / scale).to(dtype)))
        found.append((amplitude, frequency * scale, phase))
    activations = [_staf(values, sharing, omega, dtype) for values in found]
    output = _linear(factors[-1][1].to(dtype), network.output.bias.detach())
    return _network(linears, activations, output).to(device)


def _check_network(network: CoordinateMLP, num_frequencies: int | Sequence[int]) -> list[int]:
    """τ of each layer."""
    layers = len(network.linears)
    counts = [num_frequencies] * layers if isinstance(num_frequencies, int) else list(num_frequencies)
    if len(counts) != layers or any(count < 1 for count in counts):
        raise ValueError(f"num_frequencies must be a number >= 1 or {layers} of them, got {num_frequencies}")
    if network.skip:
        raise ValueError("network must have no skips, got one with skip=True")
    for layer, ((linear, sigma), count) in enumerate(zip(_layers(network), counts, strict=True)):
        if not isinstance(sigma, Sine):
            raise ValueError(f"activations must be Sine, got {type(sigma).__name__} in layer {layer}")
        if linear.out_features % count:
            raise ValueError(
                f"num_frequencies must divide the width of its layer, got {count} for {linear.out_features} "
                f"sines in layer {layer}"
            )
    return counts


def _effective(linear: Any, sigma: Any) -> Tensor:
    """The weights with the ω of the sine that follows, in float64."""
    return sigma.omega * linear.weight.detach().double()


def _factor(
    wide: Tensor, before: int, after: int, by_neuron: bool, tolerance: float, place: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Ω (after, n), W (n, m) and C (before, m) with wide[(i, k), (j, l)] = Ω[i, k] W[k, l] C[j, l], of unit columns."""
    blocks = wide.reshape(after, wide.shape[0] // after, before, wide.shape[1] // before)
    frequency = _directions(blocks.permute(1, 0, 2, 3).flatten(2), by_neuron)
    amplitude = _directions(blocks.permute(3, 2, 0, 1).flatten(2), by_neuron)
    weight = torch.einsum("ikjl,ik,jl->kl", blocks, frequency, amplitude)
    residual = (torch.einsum("ik,kl,jl->ikjl", frequency, weight, amplitude) - blocks).abs().max()
    if residual > tolerance * blocks.abs().max():
        raise ValueError(
            f"network must be a Kronecker product of {after} and {before} blocks in linear layer {place}, but departs "
            f"from the nearest by {residual / blocks.abs().max():.2g} of its largest weight, tolerance {tolerance:.2g}"
        )
    return frequency, weight, amplitude


def _directions(matrices: Tensor, by_neuron: bool) -> Tensor:
    """The unit vectors that the columns of (n, τ, p) are multiples of, one for all n or each its own: (τ, n)."""
    count = len(matrices)
    if not by_neuron:
        matrices = matrices.permute(1, 0, 2).flatten(1)[None]
    vectors = torch.linalg.eigh(matrices @ matrices.mT).eigenvectors[..., -1]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * torch.where(largest < 0, -1.0, 1.0)).expand(count, -1).T


def _factor_bias(
    argument: Tensor, frequency: Tensor, tolerance: float, layer: int, *, shared: bool
) -> tuple[Tensor, Tensor]:
    """b (n,) and Φ (τ, n) with argument[i, k] = Ω[i, k] b[k] + Φ[i, k]."""
    if not shared:  # any biases have this structure
        return torch.zeros_like(argument[0]), argument
    phase = argument.mean(1, keepdim=True)
    bias = (frequency * (argument - phase)).sum(0)  # the columns of Ω have length 1
    residual = (frequency * bias + phase - argument).abs().max()
    if residual > tolerance * argument.abs().max():
        raise ValueError(
            f"network must have biases Ω ⊗ b + Φ ⊗ 1 in linear layer {layer}, but departs from the nearest by "
            f"{residual / argument.abs().max():.2g} of its largest bias, tolerance {tolerance:.2g}"
        )
    return bias, phase.expand_as(argument)


def _staf(values: tuple[Tensor, ...], sharing: Literal["layer", "neuron"], omega: float, dtype: torch.dtype) -> STAF:
    """An activation of those amplitudes, frequencies and phases, each (τ, n)."""
    count, width = values[0].shape
    sigma = STAF(width, num_frequencies=count, sharing=sharing, omega=omega)
    names = ("amplitude", "frequency", "phase")
    for name, value in zip(names, values, strict=True):
        kept = value if sharing == "neuron" else value[:, 0]
        setattr(sigma, name, nn.Parameter(kept.to(dtype).clone()))
    return sigma
