import copy
import io

import pytest
import torch

from staf_nerf import STAF, CoordinateMLP, Sine
from staf_nerf.activations import ACTIVATIONS, Gabor, Gaussian, Sinc, activation_factory


def test_one_frequency_of_amplitude_one_and_phase_zero_is_sine_to_the_bit(generator):
    z = torch.randn(64, 8, generator=generator)
    assert torch.equal(STAF(8, num_frequencies=1, omega=30.0)(z), Sine(8, omega=30.0)(z))


def test_sine_is_torch_s_sine_of_the_scaled_input(generator):
    z = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(Sine(8, omega=30.0).double()(z), torch.sin(30.0 * z), atol=1e-13, rtol=0)
    assert not list(Sine(8).parameters())
    assert not Sine(8).state_dict()


def test_siren_initialisation_is_sine_whatever_the_number_of_frequencies(generator):
    z = torch.randn(64, 8, generator=generator)
    torch.testing.assert_close(STAF(8, initialization="siren")(z), Sine(8)(z), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("sharing", "shape"), [("layer", (5,)), ("network", (5,)), ("neuron", (5, 8))])
def test_sharing_decides_the_shape_of_the_parameters(sharing, shape):
    staf = STAF(8, sharing=sharing)
    assert {name: tuple(p.shape) for name, p in staf.named_parameters()} == dict.fromkeys(
        ("amplitude", "frequency", "phase"), shape
    )


@pytest.mark.parametrize(("sharing", "sets"), [("layer", 3), ("neuron", 3), ("network", 1)])
def test_each_layer_has_its_own_parameters_unless_the_network_shares_them(sharing, sets):
    mlp = CoordinateMLP(2, 1, hidden_features=8, hidden_layers=3, sharing=sharing)
    assert len([name for name, _ in mlp.named_parameters() if name.endswith("amplitude")]) == sets
    mlp(torch.ones(4, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mlp.parameters())


def test_neuron_sharing_gives_a_gradient_to_each_neuron_alone(generator):
    staf = STAF(4, sharing="neuron")
    staf(torch.randn(10, 4, generator=generator))[:, 2].sum().backward()
    touched = staf.frequency.grad.abs().sum(0) > 0
    assert touched.tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(8,), (0, 8), (1, 8), (2, 3, 8)])
def test_every_activation_keeps_shape_and_double_precision(name, shape):
    sigma = activation_factory(name, 8)(0).double()
    y = sigma(torch.zeros(shape, dtype=torch.float64))
    assert y.shape == shape
    assert y.dtype == (torch.complex128 if sigma.complex_valued else torch.float64)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"gabor", "relu"}))
def test_smooth_activations_have_exact_first_and_second_derivatives(name, layer, generator):
    sigma = activation_factory(name, 3, first_omega=2.0, hidden_omega=2.0)(layer).double()
    z = 0.3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    z = torch.where(z.abs() < 0.01, 0.05, z).requires_grad_()  # FINER's second derivative jumps at 0
    assert torch.autograd.gradcheck(sigma, (z,))
    assert torch.autograd.gradgradcheck(sigma, (z,))


@pytest.mark.parametrize("name", ["staf", "sine", "finer", "gaussian"])
def test_autocast_computes_the_argument_in_float32(name, generator):
    sigma = activation_factory(name, 8, first_omega=3000.0)(0)
    z = torch.randn(32, 8, generator=generator).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sigma(z), sigma(z.float()).bfloat16())


FORMULAS = {
    "staf": lambda z, sigma: sum(c * torch.sin(w * z + p) for c, w, p in zip(*sigma.sinusoids(), strict=True)),
    "sine": lambda z, _: torch.sin(30.0 * z),
    "finer": lambda z, _: torch.sin(30.0 * (z.abs() + 1.0) * z),
    "gaussian": lambda z, _: torch.exp(-(z**2) / (2.0 * 0.05**2)),
    "gabor": lambda z, _: torch.exp(30j * z) * torch.exp(-((10.0 * z) ** 2)),
    "sinc": lambda z, _: torch.sin(30.0 * z) / (30.0 * z),
    "hsiren": lambda z, _: torch.sin(15.0 * (torch.exp(2.0 * z) - torch.exp(-2.0 * z))),
    "filter": lambda z, _: torch.sin(z),
    "relu": lambda z, _: torch.where(z > 0.0, z, 0.0),
}
"""The papers' formulas, with the defaults of a network's first layer: a row for each activation."""


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_is_its_papers_formula(name):
    z = torch.tensor([[0.1, -0.2, 0.7]], dtype=torch.float64)
    sigma = activation_factory(name, 3)(0).double()
    torch.testing.assert_close(sigma(z), FORMULAS[name](z, sigma))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_weights_and_biases_fill_the_bounds_that_the_activation_declares(name, generator):
    for first in (True, False):
        layer = CoordinateMLP(
            60, 1, hidden_features=900, hidden_layers=1, activation=name, reads_coordinates=first, generator=generator
        ).layers[0]
        bounds = layer.activation.bounds(60, first=first)
        # Of 900 uniform draws the largest is within 2 % of the bound but for one network in 10^8.
        assert layer.linear.weight.abs().max().item() == pytest.approx(bounds.weight, rel=0.02)
        assert layer.linear.bias.abs().max().item() == pytest.approx(bounds.bias, rel=0.02)


def test_sinc_is_one_at_zero():
    assert Sinc(1)(torch.zeros(1)) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wavelets_of_complex_arguments_are_the_paper_s_and_have_exact_derivatives(dtype, generator):
    z = torch.complex(*0.1 * torch.randn(2, 6, 3, generator=generator, dtype=dtype))
    wavelet = Gabor(3, omega=20.0, scale=10.0)
    expected = torch.exp(20j * z - (10.0 * z.abs()) ** 2)
    torch.testing.assert_close(wavelet(z), expected)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(wavelet, (z.requires_grad_(),))
        assert torch.autograd.gradgradcheck(wavelet, (z,))
    assert wavelet(torch.tensor([complex("nan")])).isnan().all()


@pytest.mark.parametrize("sigma", [Gaussian(1, width=0.01), Gabor(1, scale=100.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_vanishes_is_zero_before_products_of_it_become_subnormal(sigma, dtype):
    z = torch.linspace(-1.0, 1.0, 20_001, dtype=dtype, requires_grad=True)[:, None]
    values = sigma(z).abs()
    (slopes,) = torch.autograd.grad(values.sum(), z)
    tiny = torch.finfo(dtype).tiny
    for found in (values, slopes):
        assert (found == 0).any()
        assert found[found != 0].abs().min() > (1e-3 * tiny) ** 0.5


def test_a_network_of_filters_is_a_product_of_sines(generator):
    mlp = CoordinateMLP(2, 1, activation="filter", hidden_features=8, hidden_layers=3, first_omega=9.0).double()
    x = 2.0 * torch.rand(5, 2, generator=generator, dtype=torch.float64) - 1.0
    found = torch.sin(mlp.layers[0].linear(x))
    for layer in mlp.layers[1:]:
        found = layer.linear(found) * torch.sin(x @ layer.filter.weight.T + layer.filter.bias)
        assert 3.0 < float(layer.filter.weight.abs().max()) <= 4.5
        assert float(layer.filter.bias.abs().max()) > 1.0
    torch.testing.assert_close(mlp(x), mlp.output(found))
    torch.testing.assert_close(mlp(x[:, :1], x[:, 1:]), mlp(x))  # in parts
    assert torch.autograd.gradgradcheck(mlp, (x.requires_grad_(),))


def test_finer_first_biases_reach_as_far_as_asked(generator):
    mlp = CoordinateMLP(2, 1, activation="finer", first_bias=5.0, generator=generator)
    assert 4.5 < mlp.layers[0].linear.bias.abs().max() <= 5.0
    assert mlp.layers[1].linear.bias.abs().max() <= 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frequencies": 0}, "num_frequencies must be >= 1, got 0"),
        ({"sharing": "all"}, "sharing must be 'layer', 'neuron' or 'network', got 'all'"),
        ({"omega": -1.0}, "omega must be positive and finite, got -1.0"),
        ({"omega": float("nan")}, "omega must be positive and finite, got nan"),
        ({"initialization": "best"}, "initialization must be one of .*'normalized'.* got 'best'"),
    ],
)
def test_bad_arguments_are_named_with_what_is_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        STAF(8, **arguments)


def test_unknown_names_and_options_list_the_known_ones():
    with pytest.raises(ValueError, match=r"activation must be one of staf, .*got 'swish'"):
        CoordinateMLP(2, 1, activation="swish")
    with pytest.raises(ValueError, match=r"options of the activation 'staf' must be among num_frequencies, .*got tau"):
        CoordinateMLP(2, 1, tau=3)
    with pytest.raises(ValueError, match="num_frequencies of 'staf' must be of type int, got 'many'"):
        CoordinateMLP(2, 1, num_frequencies="many")
    with pytest.raises(ValueError, match=r"scale of 'gabor' must be between 0 and 1e\+06, got nan"):
        CoordinateMLP(2, 1, activation="gabor", scale=float("nan"))
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        CoordinateMLP(2, 1, activation="gaussian", width=0)


def test_state_survives_copying_and_saving(generator):
    staf = STAF(8, initialization="staf-theorem", generator=generator)
    buffer = io.BytesIO()
    torch.save(staf.state_dict(), buffer)
    buffer.seek(0)
    other = STAF(8)
    other.load_state_dict(torch.load(buffer))
    z = torch.randn(4, 8, generator=generator)
    assert torch.equal(other(z), staf(z))
    assert torch.equal(copy.deepcopy(staf)(z), staf(z))
