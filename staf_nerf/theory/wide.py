"""The tangent kernel of wide STAF networks in closed form, layer by layer.

Conventions: f has hidden layers 1 … L of width n; z are pre-activations, h = σ(z). Over draws of the weights, and up to
terms that are 1/√n of their own size, the units of a layer are independent, and with pairs of pre-activations (u, v) =
(z(x), z(y)) of covariance Λ

    E[sin(au + φ) sin(bv + ψ)] = ½ (e⁻ cos(φ - ψ) - e⁺ cos(φ + ψ)),  e^∓ = exp(-½ (a²Λ₁₁ + b²Λ₂₂ ∓ 2abΛ₁₂)),

and the same with cosines and a plus sign for σ'. From layer 2 on (u, v) is Gaussian with Λ = n v_w E[σσ] + v_b. In
layer 1 it is what the first weights make it: with uniform ones e^∓ is the characteristic function of the uniform
distribution, a product of sin(t)/t, at ax ∓ by. Going back, Γ = n E[gg] with g the gradient with respect to h:

    Γᴸ = n v_out,  Bˡ = Γˡ E[σ'σ'],  Γˡ⁻¹ = n v_w Bˡ,  K = Σ Bˡ (n E[σσ]ˡ⁻¹ + 1) + n E[σσ]ᴸ + 1 + Σ Γˡ Pˡ,

with the inputs' inner product instead of n E[σσ]⁰, and P the sinusoids' own part. This is standard parametrisation:
what weights between hidden layers contribute grows with n. Sources: arXiv 1806.07572, 1711.00165; the sums are ours.
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
    """A hidden layer: how its weights are drawn, and its Fourier sum."""

    sinusoids: Sinusoids
    """C, Ω and Φ, (τ,) each."""
    weight_variance: float
    """Of an entry of the linear layer before it."""
    bias_variance: float = 0.0
    """Of an entry of its bias."""

    def __post_init__(self) -> None:
        if any(values.ndim != 1 for values in self.sinusoids):
            raise ValueError(f"sinusoids must have shape (τ,), got {[tuple(v.shape) for v in self.sinusoids]}")
        if min(self.weight_variance, self.bias_variance) < 0.0:
            raise ValueError(f"variances must be >= 0, got {self.weight_variance} and {self.bias_variance}")


@dataclass(frozen=True)
class WideNetwork:
    """What the kernel of a wide network depends on."""

    layers: tuple[WideLayer, ...]
    """The hidden layers, one or more."""
    width: int
    """n, of each of them."""
    output_variance: float
    """Of an entry of the last linear layer's weights."""
    first_law: Literal["uniform", "gaussian"] = "uniform"
    """Of the first layer's weights and biases, whose units read few inputs: no central limit makes them Gaussian."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must be one or more, got none")
        if self.first_law not in ("uniform", "gaussian"):
            raise ValueError(f"first_law must be 'uniform' or 'gaussian', got {self.first_law!r}")


def wide_network(mlp: CoordinateMLP) -> WideNetwork:
    """The distributions from which a network's weights were drawn, as its activations' `initialize_` says.

    C, Ω and Φ are those that it has now. Weights that are trained are not looked at.

    Args:
        mlp: Of `STAF` or `Sine`.

    Raises:
        ValueError: If it has skips, no hidden layer, another activation, or neurons whose sinusoids differ.
    """
    if mlp.skip:
        raise ValueError("mlp must have no skips, got one with skip=True")
    linears, activations = list[Any](mlp.linears), list[Any](mlp.activations)
    layers = []
    for number, (linear, sigma) in enumerate(zip(linears, activations, strict=True)):
        sinusoids = Sinusoids(*(v.double().cpu() for v in sinusoids_of(sigma, number)))
        if sinusoids.amplitude.ndim == 2:
            if any((values != values[:, :1]).any() for values in sinusoids):
                raise ValueError(f"sinusoids must be the same for all neurons of a layer, got others in layer {number}")
            sinusoids = Sinusoids(*(values[:, 0] for values in sinusoids))
        bound = _weight_bound(sigma, linear.in_features, first=number == 0 and mlp.reads_coordinates)
        layers.append(WideLayer(sinusoids, bound**2 / 3.0, 1.0 / (3.0 * linear.in_features)))
    width = mlp.output.in_features
    out = min(math.sqrt(6.0 / width) / activations[-1].omega, 1.0 / math.sqrt(width)) if layers else 0.0
    return WideNetwork(tuple(layers), width, out**2 / 3.0)


def _weight_bound(sigma: Any, inputs: int, *, first: bool) -> float:
    """k of U(-k, k), see `STAF.initialize_` and `initialization.siren_weight_`."""
    if isinstance(sigma, STAF) and sigma.initialization in ("theorem", "published"):
        return 1.0 / math.sqrt(inputs)
    return 1.0 / inputs if first else math.sqrt(6.0 / inputs) / sigma.omega


@overload
def analytic_ntk(
    network: WideNetwork, x: Tensor, y: Tensor | None = None, *, parts: Literal[False] = False
) -> Tensor: ...
@overload
def analytic_ntk(network: WideNetwork, x: Tensor, y: Tensor | None = None, *, parts: Literal[True]) -> KernelParts: ...
def analytic_ntk(
    network: WideNetwork, x: Tensor, y: Tensor | None = None, *, parts: bool = False
) -> Tensor | KernelParts:
    """The tangent kernel, of one output, to which wide networks come near as 1/√width.

    The sinusoids' part is that of sharing by neuron. Those that a layer shares move all its units at once: the last
    layer's part then has this mean over draws, the others' nearly, but at any width it scatters by as much as its size.

    Args:
        network: Its widths, variances and sinusoids.
        x: Points, (n, d).
        y: Points, (m, d); x, if not given.
        parts: Whether the parts of weights, biases, C, Ω and Φ are told apart.

    Returns:
        (n, m), in float64.

    Raises:
        ValueError: If points are not of shape (n, d).
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
    """Expectations over a unit of a layer, for each pair of points."""

    values: Tensor
    """E[σ σ]"""
    slopes: Tensor
    """E[σ' σ']"""
    amplitude: Tensor
    """Σᵢ E[∂σ/∂Cᵢ ∂σ/∂Cᵢ], and likewise for Ω and Φ."""
    frequency: Tensor
    phase: Tensor


def _forward(network: WideNetwork, x: Tensor, y: Tensor) -> list[_Moments]:
    """The moments of each layer."""
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


def _backward(network: WideNetwork, moments: list[_Moments], inner: Tensor) -> KernelParts:
    """The parts of the kernel from the last layer to the first."""
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
    """(u, v) of mean 0 with these covariances, which broadcast."""

    uu: Tensor
    vv: Tensor
    uv: Tensor

    def cosine(self, a: float, b: float) -> Tensor:
        """E[cos(au + bv)]."""
        return torch.exp(-0.5 * (a**2 * self.uu + 2.0 * a * b * self.uv + b**2 * self.vv))

    def weighted(self, a: float, b: float) -> Tensor:
        """E[uv cos(au + bv)]."""
        left, right = a * self.uu + b * self.uv, a * self.uv + b * self.vv
        return (self.uv - left * right) * self.cosine(a, b)


@dataclass(frozen=True)
class _Uniform:
    """u = w·x and v = w·y with w uniform in a box; the bias is the weight of an input that is 1."""

    x: Tensor
    """(…, p)"""
    y: Tensor
    bounds: Tensor
    """(p,): half the box's sides."""

    def cosine(self, a: float, b: float) -> Tensor:
        """E[cos(au + bv)], the characteristic function at ax + by."""
        return _sinc(self.bounds * (a * self.x + b * self.y))[0].prod(-1)

    def weighted(self, a: float, b: float) -> Tensor:
        """E[uv cos(au + bv)]: minus its second derivative along x and y."""
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


def _first_law(network: WideNetwork, x: Tensor, y: Tensor) -> _Law:
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
    """sin(t)/t and its first two derivatives; by their series where the quotients would cancel."""
    near = t.abs() < 0.5
    far = torch.where(near, torch.ones_like(t), t)
    value = far.sin() / far
    first = (far.cos() - value) / far
    second = -value - 2.0 * first / far
    # Σ (-1)^k t^2k / (2k + 1)!: at t = 0.5 the terms that are left out are below 1e-19.
    series = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(9)]
    small = torch.where(near, t, torch.zeros_like(t))
    close = [
        sum(c * small ** (2 * k) for k, c in enumerate(series)),
        sum(2 * k * c * small ** (2 * k - 1) for k, c in enumerate(series) if k),
        sum(2 * k * (2 * k - 1) * c * small ** (2 * k - 2) for k, c in enumerate(series) if k),
    ]
    value, first, second = (torch.where(near, a, b) for a, b in zip(close, (value, first, second), strict=True))
    return value, first, second
