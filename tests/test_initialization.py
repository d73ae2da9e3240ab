import math

import pytest
import torch
from scipy import stats

from staf_nerf import STAF, CoordinateMLP
from staf_nerf import initialization as init
from staf_nerf.activations import Gaussian, ReLU
from staf_nerf.kernels import staf

DRAWS = 20_000


def outputs(function, num_frequencies, generator, z=0.7):
    """σ(z) at one z, over draws of (C, Φ): a sum a neuron, each with its own draw."""
    sinusoids = function((num_frequencies, DRAWS), 30.0, generator)
    return staf(torch.full((1, DRAWS), z), *sinusoids)[0]


@pytest.mark.parametrize("num_frequencies", [1, 2, 5, 32])
def test_theorem_gives_a_standard_normal_for_every_number_of_sinusoids(num_frequencies, generator):
    values = outputs(init.staf_theorem, num_frequencies, generator)
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("num_frequencies", [1, 5])
def test_the_published_scale_is_rejected_as_standard_normal_and_has_variance_a_quarter(num_frequencies, generator):
    values = outputs(init.staf_published, num_frequencies, generator)
    assert stats.kstest(values.numpy(), "norm").pvalue < 1e-12
    assert stats.kstest(2.0 * values.numpy(), "norm").pvalue > 1e-3
    # The deviation of a variance estimate is √(2/n) of it: 1 %; five of them.
    assert values.var() == pytest.approx(0.25, rel=5 * math.sqrt(2 / DRAWS))


@pytest.mark.parametrize("function", [init.staf_theorem, init.staf_published])
def test_stated_second_moments_of_the_amplitudes(function, generator):
    stated = {init.staf_theorem: 2.0, init.staf_published: 0.5}[function]
    for num_frequencies in (1, 5):
        amplitude = function((num_frequencies, DRAWS), 30.0, generator).amplitude
        # C² is exponential: the deviation of its mean is 1/√n of it; five of them.
        tolerance = 5 / math.sqrt(num_frequencies * DRAWS)
        assert amplitude.square().mean() == pytest.approx(stated / num_frequencies, rel=tolerance)


@pytest.mark.parametrize("function", [init.normalized, init.siren])
@pytest.mark.parametrize("num_frequencies", [1, 2, 5, 9])
@pytest.mark.parametrize("omega", [0.5, 30.0])
def test_fixed_initialisations_have_variance_one_half_and_gain_omega(function, num_frequencies, omega):
    sinusoids = function((num_frequencies,), omega)
    assert init.variance(sinusoids.amplitude) == pytest.approx(0.5, rel=1e-6)
    assert init.gain(sinusoids.amplitude, sinusoids.frequency) == pytest.approx(omega, rel=1e-6)
    z = torch.linspace(-2000.0, 2000.0, 400_001) / omega * math.pi
    values = staf(z[:, None], *sinusoids)
    # Arguments that cover many periods evenly: what is left is the last, broken period.
    assert values.var() == pytest.approx(0.5, rel=2e-3)


def test_normalised_networks_keep_their_variance_from_layer_to_layer(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=512, hidden_layers=6, generator=generator)
    x = 2 * torch.rand(4096, 2, generator=generator) - 1
    for index, layer in enumerate(mlp.layers):
        z = layer.linear(x)
        if index > 0:  # SIREN's weights: variance 2 E[x²] of the arguments, and ω²/(3n) from the biases
            expected = 2.0 * x.square().mean().item() + 30.0**2 / (3 * 512)
            assert (30.0 * z).square().mean().item() == pytest.approx(expected, rel=0.15)
        x = layer.activation(z)
        # A plane fills few periods of the first layer: not quite even.
        assert x.square().mean().item() == pytest.approx(0.5, rel=0.2)


def test_equal_generators_give_equal_draws_and_the_neuron_shape_repeats_a_fixed_one():
    first, second = (init.staf_theorem((4, 3), 1.0, torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    repeated = init.normalized((5, 3), 30.0)
    assert repeated.amplitude.shape == (5, 3)
    assert torch.equal(repeated.amplitude[:, 0], init.normalized((5,), 30.0).amplitude)


def test_linear_bounds_are_those_of_the_papers(generator):
    linear = torch.nn.Linear(300, 400)
    STAF(400, omega=20.0).initialize_(linear, first=False, generator=generator)
    assert linear.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 300) / 20.0, rel=1e-3)
    STAF(400, omega=20.0).initialize_(linear, first=True, generator=generator)
    assert linear.weight.abs().max().item() == pytest.approx(1 / 300, rel=1e-3)
    ReLU(400).initialize_(linear, first=False, generator=generator)
    assert linear.weight.var().item() == pytest.approx(2 / 300, rel=0.02)
    assert not linear.bias.any()
    Gaussian(400).initialize_(linear, first=False, generator=generator)
    assert linear.weight.var().item() == pytest.approx(1 / (3 * 300), rel=0.02)
