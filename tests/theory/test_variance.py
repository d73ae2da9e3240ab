"""The initialisation's theorem on draws, and what is left of it within one network."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from staf_nerf import STAF, CoordinateMLP
from staf_nerf.theory.variance import kolmogorov_smirnov, layer_outputs, outputs_over_draws, variances_within

DRAWS = 20_000

INPUTS = {
    "a point": lambda n, generator: torch.full((n,), 0.7),
    "uniform": lambda n, generator: 2.0 * torch.rand(n, generator=generator) - 1.0,
    "two values": lambda n, generator: torch.randint(0, 2, (n,), generator=generator) * 3.0 - 1.0,
    "heavy tails": lambda n, generator: torch.tan(math.pi * (torch.rand(n, generator=generator) - 0.5)),
    "zero": lambda n, generator: torch.zeros(n),
}


@pytest.mark.parametrize("inputs", sorted(INPUTS))
@pytest.mark.parametrize("num_frequencies", [1, 2, 5, 32])
def test_over_draws_values_are_standard_normal_for_every_tau_and_every_input(num_frequencies, inputs, generator):
    z = INPUTS[inputs](DRAWS, generator).double()
    values = outputs_over_draws("staf-theorem", num_frequencies, z, generator)
    assert kolmogorov_smirnov(values).p_value > 1e-3


@pytest.mark.parametrize("num_frequencies", [1, 2, 5, 32])
def test_the_same_test_rejects_the_published_scale_which_is_half_as_wide(num_frequencies, generator):
    z = INPUTS["uniform"](DRAWS, generator).double()
    values = outputs_over_draws("staf-published", num_frequencies, z, generator)
    found = kolmogorov_smirnov(values)
    assert found.p_value < 1e-12
    # N(0, 1/4) against N(0, 1): their distribution functions are 0.161 apart at most; a 1 % deviation of 20,000 draws.
    assert found.distance == pytest.approx(0.161, abs=0.01)
    assert kolmogorov_smirnov(2.0 * values).p_value > 1e-3


def test_it_takes_few_draws_to_reject_the_published_scale(generator):
    z = INPUTS["uniform"](300, generator).double()
    assert kolmogorov_smirnov(outputs_over_draws("staf-published", 5, z, generator)).p_value < 1e-4
    assert kolmogorov_smirnov(outputs_over_draws("staf-theorem", 5, z, generator)).p_value > 1e-3


@pytest.mark.parametrize("initialization", ["normalized", "siren"])
def test_fixed_sums_are_no_normal_draws_and_do_not_claim_to_be(initialization, generator):
    z = INPUTS["uniform"](DRAWS, generator).double()
    assert kolmogorov_smirnov(outputs_over_draws(initialization, 5, z, generator)).p_value < 1e-12


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.02, 0.1])
def test_the_comparison_is_that_of_scipy(shift, generator):
    values = shift + torch.randn(5000, generator=generator, dtype=torch.float64)
    found, expected = kolmogorov_smirnov(values), stats.kstest(values.numpy(), "norm")
    assert found.distance == pytest.approx(expected.statistic, abs=1e-14)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.05, abs=1e-3)  # ours is the limit, scipy's is exact
    with pytest.raises(ValueError, match=r"values must have shape \(n,\) with n >= 1, got \(0,\)"):
        kolmogorov_smirnov(values[:0])


@pytest.mark.parametrize("num_frequencies", [1, 5])
def test_within_one_network_the_first_layers_variance_scatters_as_one_over_the_root_of_tau(num_frequencies):
    # ½ Σ C² is a mean of τ exponential variables of mean 1, where arguments are spread evenly: coordinates times 300.
    found = variances_within(
        "staf-theorem", seeds=200, points=256, hidden_features=64, hidden_layers=1, num_frequencies=num_frequencies,
        first_omega=3000.0,
    )[:, 0]  # fmt: skip
    # 200 seeds: the mean to 4 deviations, the deviation to 25 % (an exponential one's fourth moments are large).
    assert found.mean().item() == pytest.approx(1.0, abs=4.0 / math.sqrt(200 * num_frequencies))
    assert found.std().item() == pytest.approx(1.0 / math.sqrt(num_frequencies), rel=0.25)


def test_within_one_network_our_default_has_the_same_variance_in_every_seed():
    width = 256
    found = variances_within("normalized", seeds=20, hidden_features=width, hidden_layers=4)
    # A half in the first layer. Later arguments are normal and not spread evenly, so that the sinusoids, whose phases
    # are all 0, add up: 0.59, the mean of σ² over N(0, v) with v = 2 E[x²] / ω² + 1 / (3 width).
    sigma = STAF(1)
    nodes, weights = (torch.tensor(values) for values in np.polynomial.hermite_e.hermegauss(80))
    expected, size = [0.5], 0.5
    for _ in range(3):
        z = math.sqrt(2.0 * size / 30.0**2 + 1.0 / (3 * width)) * nodes
        size = float((weights * sigma.double()(z[:, None])[:, 0].detach().square()).sum() / math.sqrt(2.0 * math.pi))
        expected.append(size)
    assert expected[-1] == pytest.approx(0.59, abs=0.01)
    # Widths and points are finite: 256 and 1024.
    torch.testing.assert_close(found.double(), torch.tensor([expected] * 20, dtype=torch.float64), atol=0.04, rtol=0.0)
    assert found.std(0).max() < 0.01
    assert variances_within("staf-theorem", seeds=20, hidden_features=width, hidden_layers=4).std(0).min() > 0.2


@pytest.mark.parametrize("activation", ["staf", "filter"])
@pytest.mark.parametrize("skip", [False, True])
def test_layer_outputs_end_with_what_the_last_linear_map_reads(activation, skip, generator):
    mlp = CoordinateMLP(2, 1, hidden_features=8, activation=activation, skip=skip, generator=generator)
    x = torch.rand(5, 2, generator=generator)
    found = layer_outputs(mlp, x)
    assert [values.shape for values in found] == [(5, 8)] * 3
    torch.testing.assert_close(found[-1], mlp.hidden(x))
