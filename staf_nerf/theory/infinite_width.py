"""The tangent kernel of wide STAF networks in closed form, layer by layer.

Conventions: f has hidden layers 1 … L of width n, with pre-activations z and h = σ(z). Over draws of the weights, and
up to relative terms of 1/√n, the units of a layer are independent. For a pair of pre-activations
(u, v) = (z(x), z(y)) with covariance Λ::

    E[sin(au + φ) sin(bv + ψ)] = ½ (e⁻ cos(φ - ψ) - e⁺ cos(φ + ψ)),  e^∓ = exp(-½ (a²Λ₁₁ + b²Λ₂₂ ∓ 2abΛ₁₂)),

For σ' the same holds with cosines and a plus sign. From layer 2 on (u, v) is Gaussian with Λ = n v_w E[σσ] + v_b. In
layer 1 its distribution is that of the first weights: if they are uniform, e^∓ is the characteristic function of the
uniform distribution, a product of sin(t)/t, at ax ∓ by. In the backward recursion Γ = n E[gg], with the gradient g with
respect to h::

    Γᴸ = n v_out,  Bˡ = Γˡ E[σ'σ'],  Γˡ⁻¹ = n v_w Bˡ,  K = Σ Bˡ (n E[σσ]ˡ⁻¹ + 1) + n E[σσ]ᴸ + 1 + Σ Γˡ Pˡ,

Here n E[σσ]⁰ is the inner product of the inputs, and P is the part of the sinusoids' parameters. This is the standard
parametrisation, in which the part of weights between hidden layers grows with n. Sources: arXiv 1806.07572, 1711.00165.
The sums are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from staf_nerf.activations import STAF
from staf_nerf.initialization import Sinusoids
from staf_nerf.mlp import CoordinateMLP
from staf_nerf.theory.kronecker import sinusoids_of
from staf_nerf.theory.ntk import KernelParts


@dataclass(frozen=True)
class WideLayer:
    """A hidden layer of a wide network: variances of its weights, and its Fourier sum."""

    sinusoids: Sinusoids
    """C, Ω and Φ, each (τ,)."""
    weight_variance: float
    """Variance of the weights of the linear layer before it."""
    bias_variance: float = 0.0
    """Variance of its biases."""

    def __post_init__(self) -> None:
        if any(values.ndim != 1 for values in self.sinusoids):
            raise ValueError(f"sinusoids must have shape (τ,), got {[tuple(v.shape) for v in self.sinusoids]}")
        if min(self.weight_variance, self.bias_variance) < 0.0:
            raise ValueError(f"variances must be >= 0, got {self.weight_variance} and {self.bias_variance}")


@dataclass(frozen=True)
class InfiniteWidthNetwork:
    """The quantities on which the kernel of a wide network depends."""

    layers: tuple[WideLayer, ...]
    """The hidden layers, at least one."""
    width: int
    """Width n of the hidden layers."""
    output_variance: float
    """Variance of the weights of the output layer."""
    first_law: Literal["uniform", "gaussian"] = "uniform"
    """Distribution of the first layer's weights and biases.
    Its units have few inputs, so no central limit theorem makes them Gaussian."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must contain at least one layer, got none")
        if self.first_law not in ("uniform", "gaussian"):
            raise ValueError(f"first_law must be 'uniform' or 'gaussian', got {self.first_law!r}")


def wide_network(mlp: CoordinateMLP) -> InfiniteWidthNetwork:
    """Returns the distributions from which a network's weights are initialised, by its activations' `initialize_`.

    C, Ω and Φ are the present values. The present weights are not used.

    Args:
        mlp: A network with activations `STAF` or `Sine`.

    Raises:
        ValueError: If the network has skip connections, no hidden layer, another activation, or sinusoids that differ
            between neurons.
    """
    if mlp.skip:
        raise ValueError("mlp must have no skip connections, got skip=True")
    linears, activations = list[Any](mlp.linears), list[Any](mlp.activations)
    layers = []
    for number, (linear, sigma) in enumerate(zip(linears, activations, strict=True)):
        sinusoids = Sinusoids(*(v.double().cpu() for v in sinusoids_of(sigma, number)))
        if sinusoids.amplitude.ndim == 2:
            if any((values != values[:, :1]).any() for values in sinusoids):
                raise ValueError(f"sinusoids must be equal for all neurons of a layer, they differ in layer {number}")
            sinusoids = Sinusoids(*(values[:, 0] for values in sinusoids))
        bound = _weight_bound(sigma, linear.in_features, first=number == 0 and mlp.reads_coordinates)
        layers.append(WideLayer(sinusoids, bound**2 / 3.0, 1.0 / (3.0 * linear.in_features)))
    width = mlp.output.in_features
    out = min(math.sqrt(6.0 / width) / activations[-1].omega, 1.0 / math.sqrt(width)) if layers else 0.0
    return InfiniteWidthNetwork(tuple(layers), width, out**2 / 3.0)


def _weight_bound(sigma: Any, inputs: int, *, first: bool) -> float:
    """Returns k of the distribution U(-k, k); see `STAF.initialize_` and `initialization.siren_weight_`."""
    if isinstance(sigma, STAF) and sigma.initialization in ("staf-theorem", "staf-published"):
        return 1.0 / math.sqrt(inputs)
    return 1.0 / inputs if first else math.sqrt(6.0 / inputs) / sigma.omega


@overload
def analytic_ntk(
    network: InfiniteWidthNetwork, x: Tensor, y: Tensor | None = None, *, parts: Literal[False] = False
) -> Tensor: ...
@overload
def analytic_ntk(
    network: InfiniteWidthNetwork, x: Tensor, y: Tensor | None = None, *, parts: Literal[True]
) -> KernelParts: ...
def analytic_ntk(
    network: InfiniteWidthNetwork, x: Tensor, y: Tensor | None = None, *, parts: bool = False
) -> Tensor | KernelParts:
    """Returns the tangent kernel of one output in the limit of wide networks. The relative error is of order 1/√width.

    The part of the sinusoids holds for sharing by neuron. Sinusoids that a layer shares affect all of its units at
    once. The mean over draws is then this part exactly for the last layer and nearly for the others, but at every width
    it varies from draw to draw by as much as its size.

    Args:
        network: Width, variances and sinusoids.
        x: Points, (n, d).
        y: Points, (m, d). Defaults to x.
        parts: Whether to return the parts of weights, biases, C, Ω and Φ separately.

    Returns:
        The kernel (n, m) in float64, or its parts.

    Raises:
        ValueError: If points do not have shape (n, d).
    """
    for name, points in (("x", x), ("y", x if y is None else y)):
        if points.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d), got {tuple(points.shape)}")
    x = x.double()
    y = x if y is None else y.double()
    moments = _forward(network, x, y)
    found = _backward(network, moments, x @ y.T)
    return found if parts else found.total


class _Moments(NamedTuple):
    """Expectations for a unit of a layer, for each pair of points."""

    values: Tensor
    """E[σ σ]"""
    slopes: Tensor
    """E[σ' σ']"""
    amplitude: Tensor
    """Σᵢ E[∂σ/∂Cᵢ ∂σ/∂Cᵢ], and likewise for Ω and Φ."""
    frequency: Tensor
    phase: Tensor


def _forward(network: InfiniteWidthNetwork, x: Tensor, y: Tensor) -> list[_Moments]:
    """Returns the moments of each layer."""
    found = []
    laws = [_first_law(network, *pair) for pair in ((x[:, None], y[None]), (x, x), (y, y))]
    for number, layer in enumerate(network.layers):
        found.append(_moments(laws[0], layer.sinusoids))
        if number + 1 < len(network.layers):
            values = [found[-1].values, *(_moments(law, layer.sinusoids, values_only=True).values for law in laws[1:])]
            after = network.layers[number + 1]
            both, of_x, of_y = (network.width * after.weight_variance * v + after.bias_variance for v in values)
            laws = [_Gaussian(of_x[:, None], of_y, both), _Gaussian(of_x, of_x, of_x), _Gaussian(of_y, of_y, of_y)]
    return found


def _backward(network: InfiniteWidthNetwork, moments: list[_Moments], inner: Tensor) -> KernelParts:
    """Returns the parts of the kernel, computed from the last layer to the first."""
    n = network.width
    weights, biases = n * moments[-1].values, torch.ones_like(inner)
    sinusoids = [torch.zeros_like(inner) for _ in range(3)]
    arriving = torch.full_like(inner, n * network.output_variance)  # Γ
    for number in reversed(range(len(moments))):
        moment = moments[number]
        sinusoids = [total + arriving * own for total, own in zip(sinusoids, moment[2:], strict=True)]
        passing = arriving * moment.slopes  # B
        weights = weights + passing * (n * moments[number - 1].values if number else inner)
        biases = biases + passing
        arriving = n * network.layers[number].weight_variance * passing
    return KernelParts(weights, biases, *sinusoids)


def _moments(law: _Law, sinusoids: Sinusoids, *, values_only: bool = False) -> _Moments:
    rows = list(zip(*(v.tolist() for v in sinusoids), strict=True))
    values, slopes, amplitude, frequency, phase = (torch.zeros_like(law.cosine(0.0, 0.0)) for _ in range(5))
    for i, (c, a, p) in enumerate(rows):
        for j, (e, b, q) in enumerate(rows):
            apart = 0.5 * math.cos(p - q) * law.cosine(a, -b)
            together = 0.5 * math.cos(p + q) * law.cosine(a, b)
            values += c * e * (apart - together)
            slopes += c * a * e * b * (apart + together)
            if i == j and not values_only:
                amplitude += apart - together
                phase += c**2 * (apart + together)
                frequency += 0.5 * c**2 * (law.weighted(a, -a) + math.cos(2.0 * p) * law.weighted(a, a))
    return _Moments(values, slopes, amplitude, frequency, phase)


# --- laws of a pair of pre-activations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gaussian:
    """A Gaussian pair (u, v) with mean 0 and these covariances, which broadcast."""

    uu: Tensor
    vv: Tensor
    uv: Tensor

    def cosine(self, a: float, b: float) -> Tensor:
        """Returns E[cos(au + bv)]."""
        return torch.exp(-0.5 * (a**2 * self.uu + 2.0 * a * b * self.uv + b**2 * self.vv))

    def weighted(self, a: float, b: float) -> Tensor:
        """Returns E[uv cos(au + bv)]."""
        left, right = a * self.uu + b * self.uv, a * self.uv + b * self.vv
        return (self.uv - left * right) * self.cosine(a, b)


@dataclass(frozen=True)
class _Uniform:
    """The pair u = w·x and v = w·y with w uniform in a box. The bias is the weight of a constant input 1."""

    x: Tensor
    """(…, p)"""
    y: Tensor
    bounds: Tensor
    """(p,): half the side lengths of the box."""

    def cosine(self, a: float, b: float) -> Tensor:
        """Returns E[cos(au + bv)], the characteristic function at ax + by."""
        return _sinc(self.bounds * (a * self.x + b * self.y))[0].prod(-1)

    def weighted(self, a: float, b: float) -> Tensor:
        """Returns E[uv cos(au + bv)], minus the second derivative of the characteristic function along x and y."""
        flat, first, second = _sinc(self.bounds * (a * self.x + b * self.y))
        x, y = (torch.broadcast_to(points, flat.shape) * self.bounds for points in (self.x, self.y))
        total = torch.zeros_like(flat[..., 0])
        for j in range(flat.shape[-1]):
            for k in range(flat.shape[-1]):
                parts = flat.clone()
                parts[..., j] = second[..., j] if j == k else first[..., j]
                if j != k:
                    parts[..., k] = first[..., k]
                total -= x[..., j] * y[..., k] * parts.prod(-1)
        return total


_Law = _Gaussian | _Uniform


def _first_law(network: InfiniteWidthNetwork, x: Tensor, y: Tensor) -> _Law:
    layer = network.layers[0]
    if network.first_law == "gaussian":
        return _Gaussian(
            *(layer.weight_variance * (a * b).sum(-1) + layer.bias_variance for a, b in ((x, x), (y, y), (x, y)))
        )
    x, y = (torch.cat([points, torch.ones_like(points[..., :1])], -1) for points in (x, y))
    sides = torch.full((x.shape[-1],), math.sqrt(3.0 * layer.weight_variance)).to(x)
    sides[-1] = math.sqrt(3.0 * layer.bias_variance)
    return _Uniform(x, y, sides)


def _sinc(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns sin(t)/t and its first two derivatives, by their series where the quotients would lose precision."""
    near = t.abs() < 0.5
    far = torch.where(near, torch.ones_like(t), t)
    value = far.sin() / far
    first = (far.cos() - value) / far
    second = -value - 2.0 * first / far
    # Σ (-1)^k t^2k / (2k + 1)!: at t = 0.5 the omitted terms are below 1e-19.
    series = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(9)]
    small = torch.where(near, t, torch.zeros_like(t))
    close = [
        sum(c * small ** (2 * k) for k, c in enumerate(series)),
        sum(2 * k * c * small ** (2 * k - 1) for k, c in enumerate(series) if k),
        sum(2 * k * (2 * k - 1) * c * small ** (2 * k - 2) for k, c in enumerate(series) if k),
    ]
    value, first, second = (torch.where(near, a, b) for a, b in zip(close, (value, first, second), strict=True))
    return value, first, second
