"""The closed form against quadrature, Monte Carlo, SIREN's own kernel, and networks of growing width; in float64."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from staf_nerf import CoordinateMLP, analytic_ntk, empirical_ntk
from staf_nerf.initialization import Sinusoids, staf_theorem
from staf_nerf.theory.infinite_width import InfiniteWidthNetwork, WideLayer, _Gaussian, _moments, _Uniform, wide_network
from staf_nerf.theory.ntk import NAMES


def points(count, generator, inputs=2):
    return 2.0 * torch.rand(count, inputs, generator=generator, dtype=torch.float64) - 1.0


def sum_of(generator, count=3, omega=2.0):
    return Sinusoids(*(v.double() for v in staf_theorem((count,), omega, generator)))


def integrands(sinusoids, u, v):
    """What `_moments` gives the means of, at samples u and v, term by term from the definition."""
    c, w, p = (values[:, None] for values in sinusoids)
    sigma = [(c * torch.sin(w * z + p)).sum(0) for z in (u, v)]
    slope = [(c * w * torch.cos(w * z + p)).sum(0) for z in (u, v)]
    sine = torch.sin(w * u + p) * torch.sin(w * v + p)
    cosine = c**2 * torch.cos(w * u + p) * torch.cos(w * v + p)
    return sigma[0] * sigma[1], slope[0] * slope[1], sine.sum(0), (u * v * cosine).sum(0), cosine.sum(0)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.4, 1.0])
def test_gaussian_moments_are_those_of_gauss_hermite_quadrature(correlation, generator):
    sinusoids, (uu, vv) = sum_of(generator), (0.8, 1.3)
    uv = correlation * math.sqrt(uu * vv)
    nodes, weights = (torch.tensor(values) for values in np.polynomial.hermite_e.hermegauss(60))
    first, second = (axis.reshape(-1) for axis in torch.meshgrid(nodes, nodes, indexing="ij"))
    u = math.sqrt(uu) * first
    v = math.sqrt(vv) * (correlation * first + math.sqrt(1.0 - correlation**2) * second)
    mass = torch.outer(weights, weights).reshape(-1) / (2.0 * math.pi)
    found = _moments(_Gaussian(*(torch.tensor(value, dtype=torch.float64) for value in (uu, vv, uv))), sinusoids)
    for moment, integrand in zip(found, integrands(sinusoids, u, v), strict=True):
        # 60 nodes integrate sines of frequency 2 to rounding.
        assert moment.item() == pytest.approx((mass * integrand).sum().item(), abs=1e-11)


@pytest.mark.parametrize("near", [False, True])
def test_uniform_moments_are_those_of_gauss_legendre_quadrature(near, generator):
    sinusoids = sum_of(generator, omega=4.0)
    x, y = torch.tensor([[0.7, -0.3, 1.0], [0.2, 0.9, 1.0]], dtype=torch.float64)
    y = x if near else y  # where sin(t)/t is taken at 0
    sides = torch.tensor([1.2, 1.2, 0.4], dtype=torch.float64)
    nodes, weights = (torch.tensor(values) for values in np.polynomial.legendre.leggauss(40))
    grid = torch.cartesian_prod(nodes, nodes, nodes) * sides
    mass = torch.cartesian_prod(weights, weights, weights).prod(1) / 8.0
    found = _moments(_Uniform(x, y, sides), sinusoids)
    for moment, integrand in zip(found, integrands(sinusoids, grid @ x, grid @ y), strict=True):
        assert moment.item() == pytest.approx((mass * integrand).sum().item(), abs=1e-11)


def test_one_sinusoid_gives_sirens_kernel(generator):
    # SIREN's recursion with its own functions: E[sin(ωu) sin(ωv)] = exp(-ω²(Λ₁₁ + Λ₂₂)/2) sinh(ω²Λ₁₂), cos: cosh.
    omega, n, variance = 3.0, 100, 2.0 / (100 * 9.0)
    one = Sinusoids(*(torch.tensor([v], dtype=torch.float64) for v in (1.0, omega, 0.0)))
    layers = (WideLayer(one, 0.2, 0.1), WideLayer(one, variance, 0.03), WideLayer(one, variance, 0.02))
    x, y = points(5, generator), points(4, generator)
    z = torch.cat([x, y])
    covariance, values, slopes, inner = 0.2 * z @ z.T + 0.1, [], [], z @ z.T
    for bias in (0.03, 0.02, None):
        scale = torch.exp(-0.5 * omega**2 * (covariance.diagonal()[:, None] + covariance.diagonal()))
        values.append(scale * torch.sinh(omega**2 * covariance))
        slopes.append(omega**2 * scale * torch.cosh(omega**2 * covariance))
        covariance = n * variance * values[-1] + bias if bias is not None else covariance
    weights, biases = inner, torch.ones_like(inner)  # the usual recursion forwards: Θ' = Θ v_w n Σ' + n Σ + 1
    for value, slope in zip(values[:-1], slopes[:-1], strict=True):
        weights = weights * n * variance * slope + n * value
        biases = biases * n * variance * slope + 1.0
    weights = weights * n * variance * slopes[-1] + n * values[-1]
    biases = biases * n * variance * slopes[-1] + 1.0
    found = analytic_ntk(InfiniteWidthNetwork(layers, n, variance, "gaussian"), x, y, parts=True)
    torch.testing.assert_close(found.weights, weights[:5, 5:])
    torch.testing.assert_close(found.biases, biases[:5, 5:])


def test_the_sinusoids_part_is_that_of_monte_carlo_over_networks(generator):
    def make():
        return CoordinateMLP(
            2, 1, hidden_features=64, hidden_layers=2, num_frequencies=2, sharing="neuron", first_omega=6.0,
            hidden_omega=2.0, generator=generator,
        ).double()  # fmt: skip

    x = points(4, generator)
    draws = [empirical_ntk(make(), x, parts=True) for _ in range(200)]
    expected = analytic_ntk(wide_network(make()), x, parts=True)
    for name in NAMES:
        found = torch.stack([getattr(draw, name) for draw in draws])
        deviation = found.std(0) / math.sqrt(len(draws))
        # Five deviations of the mean, and 1/width of the size for what is finite about it.
        bound = 5.0 * deviation + getattr(expected, name).abs().max() * 2.0 / 64
        assert ((found.mean(0) - getattr(expected, name)).abs() <= bound).all()


def error(found, expected):
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


def _own(mlp):
    return [p for layer in mlp.layers for p in layer.activation.parameters()]


def networks(width, count, generator, sinusoids=(), **options):
    """Draws of a network with two hidden layers, of one choice of Fourier sums."""
    for _ in range(count):
        mlp = CoordinateMLP(
            2, 1, hidden_features=width, hidden_layers=2, num_frequencies=3, first_omega=6.0, hidden_omega=3.0,
            generator=generator, **options,
        ).double()  # fmt: skip
        with torch.no_grad():
            for parameter, values in zip(_own(mlp), sinusoids, strict=False):
                parameter.copy_(values)
        yield mlp


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("linear", {}),
        ("linear", {"initialization": "staf-theorem"}),
        ("weights", {"initialization": "siren"}),
        ("sinusoids", {"sharing": "neuron"}),
    ],
)
def test_wide_networks_come_near_as_one_over_the_root_of_the_width(part, options, generator):
    x, errors = points(16, generator), []
    widths = (64, 256, 1024, 4096) if part == "linear" and not options else (64, 256, 1024)
    (first,) = networks(8, 1, generator, **options)
    fixed = [] if "sharing" in options else [p.detach().clone() for p in _own(first)]
    for width in widths:
        squares = []
        for mlp in networks(width, {4096: 4, 1024: 12}.get(width, 40), generator, fixed, **options):
            expected = analytic_ntk(wide_network(mlp), x, parts=True)
            found = empirical_ntk(mlp, x, parts=True)
            squares.append(error(getattr(found, part), getattr(expected, part)) ** 2)
        errors.append(math.sqrt(np.mean(squares)))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    print(dict(zip(widths, errors, strict=True)), slope)
    assert slope == pytest.approx(-0.5, abs=0.1)  # 40 draws a width, 4 of the widest: errors known to 10 %
    assert errors[-1] < 0.1


def test_uniform_first_weights_are_told_from_gaussian_ones(generator):
    x = points(16, generator)
    (mlp,) = networks(4096, 1, generator)
    network = wide_network(mlp)
    found = empirical_ntk(mlp, x)
    assert error(found, analytic_ntk(network, x)) < 0.06
    assert error(found, analytic_ntk(dataclasses.replace(network, first_law="gaussian"), x)) > 0.12


def test_the_part_of_sinusoids_that_a_layer_shares_does_not_settle_with_width(generator):
    x = points(8, generator)
    scatter = {}
    for width in (64, 1024):
        draws = torch.stack([empirical_ntk(m, x, parts=True).sinusoids for m in networks(width, 30, generator)])
        (mlp,) = networks(width, 1, generator)
        expected = analytic_ntk(wide_network(mlp), x, parts=True).sinusoids
        scatter[width] = (draws.std(0).square().mean() / expected.square().mean()).sqrt().item()
    # As wide as it is large at any width, where the part of the weights has come to 6 %.
    assert min(scatter.values()) > 0.5


@pytest.mark.parametrize(
    "options", [{"activation": "sine"}, {"initialization": "staf-theorem"}, {"sharing": "neuron"}, {}]
)
def test_the_variances_that_are_read_are_those_of_the_weights(options, generator):
    mlp = CoordinateMLP(3, 1, hidden_features=600, hidden_layers=2, generator=generator, **options)
    network = wide_network(mlp)
    read = [*((layer.weight_variance, layer.bias_variance) for layer in network.layers), (network.output_variance, 0.0)]
    for linear, (weight, bias) in zip([*(layer.linear for layer in mlp.layers), mlp.output], read, strict=True):
        # The deviation of the mean of N squares of uniform numbers is 0.9 / √N of it: 600 of them, 4 deviations.
        assert linear.weight.square().mean().item() == pytest.approx(weight, rel=0.15)
        assert linear.bias.square().mean().item() == pytest.approx(bias, rel=0.15)


def test_the_kernel_of_points_and_others_is_a_block_of_that_of_all(generator):
    network = wide_network(CoordinateMLP(2, 1, generator=generator))
    x, y = points(3, generator), points(4, generator)
    whole = analytic_ntk(network, torch.cat([x, y]))
    torch.testing.assert_close(analytic_ntk(network, x, y), whole[:3, 3:])
    assert torch.linalg.eigvalsh(whole).min() > -1e-9 * whole.max()
    assert analytic_ntk(network, x[:0], y).shape == (0, 4)


def test_what_has_no_closed_form_is_refused(generator):
    with pytest.raises(ValueError, match="mlp must have no skip connections"):
        wide_network(CoordinateMLP(2, 1, skip=True))
    with pytest.raises(ValueError, match="activations must be STAF or Sine, got ReLU in layer 0"):
        wide_network(CoordinateMLP(2, 1, activation="relu"))
    with pytest.raises(ValueError, match="layers must contain at least one layer"):
        wide_network(CoordinateMLP(2, 1, hidden_layers=0))
    with pytest.raises(ValueError, match="sinusoids must be equal for all neurons of a layer"):
        wide_network(CoordinateMLP(2, 1, sharing="neuron", initialization="staf-theorem", generator=generator))
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\)"):
        analytic_ntk(wide_network(CoordinateMLP(2, 1)), torch.zeros(2))
    with pytest.raises(ValueError, match=r"sinusoids must have shape \(τ,\)"):
        WideLayer(Sinusoids(*(torch.zeros(2, 3) for _ in range(3))), 1.0)
    with pytest.raises(ValueError, match="variances must be >= 0"):
        WideLayer(sum_of(generator), -1.0)
    with pytest.raises(ValueError, match="first_law must be"):
        InfiniteWidthNetwork((WideLayer(sum_of(generator), 1.0),), 8, 1.0, "cauchy")  # pyright: ignore
