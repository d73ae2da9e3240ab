"""STAF networks and their plain sine equivalents. Functions are compared in float64: what differs is rounding."""

import pytest
import torch

from staf_nerf import STAF, CoordinateMLP, Sine, sine_network, staf_from_sine
from staf_nerf.activations import Gaussian

ROUNDING = {"atol": 1e-11, "rtol": 1e-11}
"""Arguments up to 100 rounded at 1e-14, a few layers that stretch what differs by ten each, sums of up to 60 terms."""


def network(generator, *, layers=3, width=6, inputs=2, sharing="layer", initialization="staf-theorem", **options):
    """A network of random sinusoids, with biases everywhere, in float64."""
    mlp = CoordinateMLP(
        inputs, 2, hidden_features=width, hidden_layers=layers, sharing=sharing, initialization=initialization,
        first_omega=6.0, hidden_omega=4.0, generator=generator, **options,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in mlp.parameters():  # shared draws become a neuron's own, and the last bias is not 0
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return mlp


def of_several_counts(generator, *, skip=False):
    """τ = 3, 1 and 2, between them a plain sine."""
    made = [STAF(6, num_frequencies=3, omega=5.0), Sine(6, omega=4.0), STAF(6, num_frequencies=2, sharing="neuron")]
    mlp = CoordinateMLP(3, 2, hidden_features=6, activation=lambda layer: made[layer], skip=skip, generator=generator)
    return mlp.double()


def coordinates(generator, inputs=2):
    return (2.0 * torch.rand(50, inputs, generator=generator, dtype=torch.float64) - 1.0).requires_grad_()


def assert_same_function(first, second, x):
    """Equal values, and equal gradients with respect to the input."""
    found, expected = first(x), second(x)
    torch.testing.assert_close(found, expected, **ROUNDING)
    for output in range(expected.shape[-1]):
        slopes = [torch.autograd.grad(y[:, output].sum(), x, retain_graph=True)[0] for y in (found, expected)]
        torch.testing.assert_close(*slopes, atol=1e-9, rtol=1e-9)  # slopes are some hundred times the values


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("sharing", ["layer", "neuron", "network"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_the_sine_network_is_the_same_function(layers, sharing, skip, generator):
    mlp = network(generator, layers=layers, sharing=sharing, skip=skip)
    assert_same_function(sine_network(mlp), mlp, coordinates(generator))


@pytest.mark.parametrize("skip", [False, True])
def test_each_layer_may_have_its_own_number_of_sinusoids_and_plain_sines_count_as_one(skip, generator):
    mlp = of_several_counts(generator, skip=skip)
    plain = sine_network(mlp)
    assert [layer.linear.out_features for layer in plain.layers] == [18, 6, 24 if skip else 12]
    assert_same_function(plain, mlp, coordinates(generator, 3))


def test_a_skip_whose_slopes_vanish_is_carried_by_two_sinusoids_that_cancel(generator):
    mlp = network(generator, skip=True)
    with torch.no_grad():
        for sigma in [layer.activation for layer in mlp.layers]:
            sigma.frequency -= (
                (sigma.amplitude * sigma.frequency).sum() / sigma.amplitude.square().sum() * (sigma.amplitude)
            )
    plain = sine_network(mlp)
    assert [layer.linear.out_features // 6 for layer in plain.layers] == [5, 7, 7]
    assert_same_function(plain, mlp, coordinates(generator))


def test_a_trained_network_is_the_same_function(generator):
    mlp = CoordinateMLP(2, 2, hidden_features=16, hidden_layers=2, generator=generator).double()
    x = coordinates(generator)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=3e-3)
    for _ in range(50):
        optimizer.zero_grad()
        (mlp(x) - x.detach().sign()).square().mean().backward()
        optimizer.step()
    assert_same_function(sine_network(mlp), mlp, x)


def test_its_weights_are_the_papers_kronecker_products(generator):
    mlp = network(generator, layers=2)
    plain = sine_network(mlp)
    (c1, w1, p1), (c2, w2, p2) = (layer.activation.sinusoids() for layer in mlp.layers)
    first, second = (layer.linear for layer in mlp.layers)
    one = torch.ones(6, dtype=torch.float64)
    expected = [
        (torch.kron(w1[:, None], first.weight), torch.kron(w1, first.bias) + torch.kron(p1, one)),
        (torch.kron(torch.outer(w2, c1), second.weight), torch.kron(w2, second.bias) + torch.kron(p2, one)),
        (torch.kron(c2[None], mlp.output.weight), mlp.output.bias),
    ]
    for linear, (weight, bias) in zip([*(layer.linear for layer in plain.layers), plain.output], expected, strict=True):
        torch.testing.assert_close(linear.weight, weight)
        torch.testing.assert_close(linear.bias, bias)


def test_it_has_the_stated_number_of_parameters_and_shares_none(generator):
    d, k, n, count, layers = 2, 2, 6, 5, 3
    mlp = network(generator)
    plain = sine_network(mlp)
    wide = count * n
    expected = (d + 1) * wide + (layers - 1) * (wide + 1) * wide + (wide + 1) * k
    assert sum(p.numel() for p in plain.parameters()) == expected
    assert all(isinstance(sigma, Sine) and sigma.omega == 1.0 for sigma in (layer.activation for layer in plain.layers))
    with torch.no_grad():
        plain.output.bias += 1.0
    assert mlp.output.bias.data_ptr() != plain.output.bias.data_ptr()


def test_a_network_in_float32_gives_one_in_float32_that_is_equal_to_its_rounding(generator):
    mlp = network(generator).float()
    x = coordinates(generator).float()
    plain = sine_network(mlp)
    assert plain.output.weight.dtype == torch.float32
    # Arguments up to 100 rounded at 6e-6, stretched tenfold by each of two layers.
    torch.testing.assert_close(plain(x), mlp(x), atol=1e-3, rtol=1e-3)


def test_other_activations_are_refused():
    mlp = CoordinateMLP(2, 1, hidden_features=4, hidden_layers=1, activation=lambda layer: Gaussian(4))
    with pytest.raises(ValueError, match="activations must be STAF or Sine, got Gaussian in layer 0"):
        sine_network(mlp)


@pytest.mark.parametrize("sharing", ["layer", "neuron", "network"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_way_back_finds_a_staf_network_of_the_same_function(layers, sharing, generator):
    mlp = network(generator, layers=layers, sharing=sharing)
    plain = sine_network(mlp)
    found = staf_from_sine(plain, 5, sharing="neuron" if sharing == "neuron" else "layer")
    assert all(
        isinstance(sigma, STAF) and sigma.num_frequencies == 5 for sigma in (layer.activation for layer in found.layers)
    )
    assert_same_function(found, mlp, coordinates(generator))
    assert_same_function(sine_network(found), plain, coordinates(generator))


def test_the_way_back_takes_one_number_of_sinusoids_a_layer(generator):
    mlp = of_several_counts(generator)
    found = staf_from_sine(sine_network(mlp), [3, 1, 2], sharing="neuron")
    assert [layer.activation.num_frequencies for layer in found.layers] == [3, 1, 2]
    assert_same_function(found, mlp, coordinates(generator, 3))


def test_the_way_back_spends_the_freedoms_as_it_says(generator):
    found = staf_from_sine(sine_network(network(generator)), 5, omega=7.0)
    for linear, sigma in [(layer.linear, layer.activation) for layer in found.layers]:
        assert sigma.amplitude.square().sum().item() == pytest.approx(1.0)
        assert sigma.amplitude[sigma.amplitude.abs().argmax()] > 0
        assert sigma.frequency[sigma.frequency.abs().argmax()] > 0
        gain = ((sigma.amplitude * sigma.frequency).square().sum()).sqrt()
        assert gain.item() == pytest.approx(7.0)
        assert linear.bias.mean().item() == pytest.approx(0.0, abs=1e-12)


def test_any_sine_network_is_a_staf_network_of_one_sinusoid(generator):
    plain = CoordinateMLP(2, 1, hidden_features=8, activation="sine", generator=generator).double()
    assert_same_function(staf_from_sine(plain, 1), plain, coordinates(generator))


@pytest.mark.parametrize(("name", "structure"), [("weight", "be a Kronecker product"), ("bias", "have biases")])
def test_a_network_without_the_structure_is_refused(name, structure, generator):
    plain = sine_network(network(generator))
    with torch.no_grad():
        getattr(plain.layers[1].linear, name)[3] += 0.01
    with pytest.raises(ValueError, match=f"network must {structure} .* in linear layer 1, but deviates"):
        staf_from_sine(plain, 5)
    staf_from_sine(plain, 5, tolerance=1.0)


def test_what_cannot_be_split_is_refused(generator):
    plain = sine_network(network(generator))
    with pytest.raises(ValueError, match="num_frequencies must divide the width of its layer, got 4 for 30"):
        staf_from_sine(plain, 4)
    with pytest.raises(ValueError, match="num_frequencies must be a number >= 1 or 3 of them"):
        staf_from_sine(plain, [5, 5])
    with pytest.raises(ValueError, match="network must have no skip connections"):
        staf_from_sine(sine_network(network(generator, skip=True)), 5)
    with pytest.raises(ValueError, match="activations must be Sine, got STAF in layer 0"):
        staf_from_sine(network(generator), 1)
