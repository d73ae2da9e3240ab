"""Initialisations of the trainable Fourier sum and of the linear layer before it.

Conventions: a sum has τ sinusoids with amplitude C, frequency Ω (radians per unit) and phase Φ (radians). `shape` is
(τ,) or (τ, n). The stated variance is that of σ(z) if the arguments Ωᵢ z + Φᵢ are independent and uniform over the
circle. The gain is the root mean square of σ'(z) divided by that of σ(z).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

Initialization = Literal["normalized", "siren", "staf-theorem", "staf-published"]

HARMONICS = (1.0, 2.0, 0.5, 3.0, 1.5)
"""Ω / ω of the first five sinusoids: the carrier, its octaves, and frequencies between them. Then follow 4, 5, 6, …"""

SIDE_AMPLITUDE = 0.05
"""Amplitude of the other sinusoids relative to the carrier: large enough for gradients from the first step."""


class Sinusoids(NamedTuple):
    """The parameters of a Fourier sum, each of shape (τ,) or (τ, n)."""

    amplitude: Tensor
    frequency: Tensor
    phase: Tensor


def normalized(shape: tuple[int, ...], omega: float, generator: Generator | None = None) -> Sinusoids:
    """Returns our default: a carrier at ω with weak harmonics, with variance 1/2 and gain ω.

    ΣC² = 1 gives the variance of one sine, and ΣC²Ω² = ω²ΣC² gives its gain, for every τ. Nothing is random, so this
    holds in every layer of every network. SIREN's initialisation of weights therefore applies, and τ = 1 is `Sine`.
    """
    ratios = (*HARMONICS, *(float(i - 1) for i in range(len(HARMONICS), shape[0])))[: shape[0]]
    frequency = torch.tensor(ratios)
    amplitude = torch.full((shape[0],), SIDE_AMPLITUDE)
    amplitude[0] = 1.0
    amplitude = amplitude / amplitude.square().sum().sqrt()
    frequency = omega * frequency / (amplitude.square() * frequency.square()).sum().sqrt()
    return _repeat(Sinusoids(amplitude, frequency, torch.zeros(shape[0])), shape)


def siren(shape: tuple[int, ...], omega: float, generator: Generator | None = None) -> Sinusoids:
    """Returns one sine of amplitude 1 at ω and others of amplitude 0: variance 1/2, gain ω (arXiv 2006.09661)."""
    amplitude = torch.zeros(shape[0])
    amplitude[0] = 1.0
    frequency = normalized((shape[0],), omega).frequency
    return _repeat(Sinusoids(amplitude, frequency * (omega / frequency[0]), torch.zeros(shape[0])), shape)


def staf_theorem(shape: tuple[int, ...], omega: float, generator: Generator | None = None) -> Sinusoids:
    """Returns draws as in the paper's theorem: σ(z) is exactly N(0, 1) over draws of (C, Φ), for every z, Ω and τ.

    The magnitude of C is Rayleigh distributed with E[C²] = 2/τ, as sign(X) √abs(X) with X ~ Laplace(0, 2/τ), and
    Φ ~ U(-π, π). Each term is then exactly Gaussian with variance 1/τ, without a central limit. The theorem is about
    draws: if a whole layer shares one draw, the variance within one network differs from draw to draw. Ω ~ U(0, ω) as
    in the published code.
    """
    return _laplace(shape, omega, 2.0 / shape[0], generator)


def staf_published(shape: tuple[int, ...], omega: float, generator: Generator | None = None) -> Sinusoids:
    """Returns draws as in the published code: X ~ Laplace(0, 1/(2τ)), hence E[C²] = 1/(2τ) and a variance of 1/4."""
    return _laplace(shape, omega, 0.5 / shape[0], generator)


INITIALIZATIONS: dict[str, Callable[..., Sinusoids]] = {
    "normalized": normalized,
    "siren": siren,
    "staf-theorem": staf_theorem,
    "staf-published": staf_published,
}


def variance(amplitude: Tensor) -> Tensor:
    """Returns the variance ½ Σᵢ Cᵢ² of a Fourier sum with uniform arguments, (τ, …) -> (…)."""
    return 0.5 * amplitude.square().sum(0)


def gain(amplitude: Tensor, frequency: Tensor) -> Tensor:
    """Returns the gain √(ΣC²Ω² / ΣC²), the RMS slope over the RMS value, (τ, …) -> (…), in radians per unit."""
    return ((amplitude * frequency).square().sum(0) / amplitude.square().sum(0)).sqrt()


def _repeat(sinusoids: Sinusoids, shape: tuple[int, ...]) -> Sinusoids:
    if len(shape) == 1:
        return sinusoids
    return Sinusoids(*(values[:, None].repeat(1, shape[1]) for values in sinusoids))


def _laplace(shape: tuple[int, ...], omega: float, scale: float, generator: Generator | None) -> Sinusoids:
    uniform = 1.0 - torch.rand(shape, generator=generator, dtype=torch.float64)  # in (0, 1]: the log is finite
    sign = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0
    amplitude = sign * (-scale * uniform.log()).sqrt()
    frequency = omega * torch.rand(shape, generator=generator)
    phase = math.pi * (2.0 * torch.rand(shape, generator=generator) - 1.0)
    return Sinusoids(amplitude.to(frequency.dtype), frequency, phase)


# --- linear layers ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def uniform_(tensor: Tensor, bound: float, generator: Generator | None = None) -> Tensor:
    """Fills a tensor in place from U(-bound, bound), which has variance bound²/3, and returns it."""
    if tensor.is_complex():
        torch.view_as_real(tensor).uniform_(-bound, bound, generator=generator)
        return tensor
    return tensor.uniform_(-bound, bound, generator=generator)


class Bounds(NamedTuple):
    """The bounds k of the uniform distributions U(-k, k) from which a linear map is initialised."""

    weight: float
    bias: float


def torch_bounds(fan_in: int) -> Bounds:
    """Returns torch's default for linear layers: U(±1/√n_in), variance 1/(3 n_in), for weights and biases."""
    return Bounds(1.0 / math.sqrt(fan_in), 1.0 / math.sqrt(fan_in))


def siren_bounds(fan_in: int, *, omega: float, first: bool) -> Bounds:
    """Returns the bounds of SIREN: weights U(±1/n_in) in the first layer, U(±√(6/n_in)/ω) in the others.

    With inputs of variance 1/2, as sines give, the arguments ω z of a hidden layer have variance 1 (arXiv 2006.09661,
    section 3.2 and appendix 1.5). As in the published code biases keep torch's default: they are random phases.
    """
    return Bounds(1.0 / fan_in if first else math.sqrt(6.0 / fan_in) / omega, 1.0 / math.sqrt(fan_in))


def he_bounds(fan_in: int) -> Bounds:
    """Returns the bounds of He for ReLU: weights U(±√(6/n_in)), variance 2/n_in, biases 0 (arXiv 1502.01852)."""
    return Bounds(math.sqrt(6.0 / fan_in), 0.0)
