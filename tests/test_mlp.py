import functools
import math

import pytest
import torch
from torch.func import functional_call, jacrev, vmap

from staf_nerf import STAF, CoordinateMLP
from staf_nerf.activations import ACTIVATIONS
from staf_nerf.layers import Activation


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(2,), (0, 2), (5, 2), (2, 3, 2)])
def test_any_leading_shape_gives_real_outputs(activation, shape):
    mlp = CoordinateMLP(2, 3, hidden_features=16, hidden_layers=2, activation=activation)
    y = mlp(torch.ones(shape))
    assert y.shape == (*shape[:-1], 3)
    assert y.dtype == torch.float32
    assert y.isfinite().all()


def test_it_is_linear_maps_with_activations_between(generator):
    mlp = CoordinateMLP(2, 3, hidden_features=8, hidden_layers=2, generator=generator).double()
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    expected = x
    for linear, sigma in [(layer.linear, layer.activation) for layer in mlp.layers]:
        z = expected @ linear.weight.T + linear.bias
        expected = sum(
            c * torch.sin(w * z + p) for c, w, p in zip(sigma.amplitude, sigma.frequency, sigma.phase, strict=True)
        )
    expected = expected @ mlp.output.weight.T + mlp.output.bias
    torch.testing.assert_close(mlp(x), expected)


def test_equal_generators_make_equal_networks():
    first, second = (CoordinateMLP(2, 1, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_factory_is_called_once_a_layer_with_its_index():
    asked = []

    def factory(layer):
        asked.append(layer)
        return STAF(8, num_frequencies=layer + 1)

    mlp = CoordinateMLP(2, 1, hidden_features=8, hidden_layers=3, activation=factory)
    assert asked == [0, 1, 2]
    assert [layer.activation.num_frequencies for layer in mlp.layers] == [1, 2, 3]


def test_jacobian_of_the_parameters_through_torch_func(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=8, hidden_layers=2, generator=generator).double()
    parameters = dict(mlp.named_parameters())
    x = torch.randn(4, 2, generator=generator, dtype=torch.float64)

    def one(values, point):
        return functional_call(mlp, values, (point,))[0]

    rows = vmap(jacrev(one), (None, 0))(parameters, x)
    for i in range(len(x)):
        expected = torch.autograd.grad(mlp(x[i]).sum(), list(parameters.values()))
        for name, gradient in zip(parameters, expected, strict=True):
            torch.testing.assert_close(rows[name][i], gradient)


def test_complex_layers_follow_a_complex_activation():
    mlp = CoordinateMLP(2, 3, hidden_features=8, hidden_layers=2, activation="gabor")
    assert [layer.linear.weight.dtype for layer in mlp.layers] == [torch.float32, torch.complex64]
    assert mlp.output.weight.dtype == torch.complex64


def test_no_hidden_layer_is_a_linear_map(generator):
    mlp = CoordinateMLP(2, 1, hidden_layers=0)
    a, b = torch.randn(2, 3, 2, generator=generator)
    torch.testing.assert_close(mlp(a) + mlp(b), mlp(a + b) + mlp(torch.zeros(3, 2)))


@pytest.mark.parametrize("name", ["in_features", "out_features", "hidden_features"])
def test_sizes_below_one_are_refused(name):
    sizes = {"in_features": 2, "out_features": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        CoordinateMLP(**sizes)


@pytest.mark.parametrize("activation", ["staf", "sine"])
def test_a_small_network_learns_an_image_to_35_db(activation):
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, 48)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    coordinates = torch.stack([x, y], -1).reshape(-1, 2)
    target = 0.5 + 0.25 * (torch.sin(9 * x * y) + torch.sign(torch.sin(12 * x) * torch.sin(9 * y))).reshape(-1, 1)
    mlp = CoordinateMLP(2, 1, hidden_features=64, hidden_layers=2, activation=activation, generator=generator)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=2e-3)
    for _ in range(400):
        optimizer.zero_grad()
        loss = (mlp(coordinates) - target).square().mean()
        loss.backward()
        optimizer.step()
    psnr = -10 * math.log10((mlp(coordinates) - target).square().mean())
    assert psnr > 35.0


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
@pytest.mark.parametrize("activation", ["staf", "gabor"])
def test_an_input_in_parts_that_broadcast_equals_their_concatenation(activation, hidden_layers, generator):
    torch.set_default_dtype(torch.float64)
    try:
        mlp = CoordinateMLP(
            9, 2, hidden_features=8, hidden_layers=hidden_layers, activation=activation, generator=generator
        )
        draw = functools.partial(torch.randn, generator=generator)
        parts = [draw(5, 7, 4), draw(5, 1, 3), draw(2)]
    finally:
        torch.set_default_dtype(torch.float32)
    whole = torch.cat([part.expand(5, 7, part.shape[-1]) for part in parts], -1)
    torch.testing.assert_close(mlp(*parts), mlp(whole), atol=1e-9, rtol=1e-9)
    found = torch.autograd.grad(mlp(*parts).square().sum(), list(mlp.parameters()))
    expected = torch.autograd.grad(mlp(whole).square().sum(), list(mlp.parameters()))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)  # float64, through frequencies of 30


@pytest.mark.parametrize("activation", ["staf", "sine", "relu"])
def test_a_skip_adds_what_hidden_layers_after_the_first_read(activation, generator):
    mlp = CoordinateMLP(2, 1, hidden_features=8, hidden_layers=3, activation=activation, skip=True, generator=generator)
    x = 2.0 * torch.rand(7, 2, generator=generator) - 1.0
    hidden = mlp.layers[0].activation(mlp.layers[0].linear(x))
    for layer in mlp.layers[1:]:
        hidden = layer.activation(layer.linear(hidden)) + layer.linear(hidden)
    torch.testing.assert_close(mlp(x), mlp.output(hidden))
    torch.testing.assert_close(mlp(x[:, :1], x[:, 1:]), mlp(x))


# --- several networks as one -----------------------------------------------------------------------------------------


class Scaled(Activation):
    """An activation with a parameter that knows nothing of several networks."""

    def __init__(self, height):
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor(height))

    def forward(self, z):
        return self.height * torch.tanh(z)


def networks(count, generator, **options):
    heights = iter(range(1, 10 * count))
    if options.get("activation") == "own":
        options["activation"] = lambda layer: Scaled(0.5 * next(heights))
    return [CoordinateMLP(2, 3, hidden_features=6, generator=generator, **options) for _ in range(count)]


def derivatives(model_of, x, parameters):
    """Values, gradients, and gradients of a gradient's length, by the parameters and by the points."""
    y = model_of(x)
    first = torch.autograd.grad(y.square().sum(), [x, *parameters], create_graph=True, allow_unused=True)
    second = torch.autograd.grad(first[0].square().sum(), [x, *parameters], allow_unused=True)
    return y, first, second


SHARED = [{"sharing": sharing, "initialization": "staf-theorem"} for sharing in ("layer", "neuron", "network")]
OPTIONS = [{"activation": name} for name in [*sorted(ACTIVATIONS), "own"]] + SHARED


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_networks_as_one_compute_what_each_computes_alone_and_so_do_their_derivatives(options, skip, generator):
    torch.set_default_dtype(torch.float64)
    try:
        each = networks(3, generator, skip=skip, first_omega=4.0, hidden_omega=2.0, **options)
        x = (2.0 * torch.rand(3, 5, 2, generator=generator) - 1.0).requires_grad_()
    finally:
        torch.set_default_dtype(torch.float32)
    one = CoordinateMLP.stack(each)
    assert one.networks == 3
    own = [dict(network.named_parameters()) for network in each]
    alone = [p for parameters in own for p in parameters.values()]
    expected = derivatives(lambda x: torch.stack([f(part) for f, part in zip(each, x, strict=True)]), x, alone)
    found = derivatives(one, x, list(one.parameters()))
    rounding = {"rtol": 1e-9, "atol": 1e-9}  # float64, through second derivatives of size up to 1e4
    torch.testing.assert_close(found[0], expected[0], **rounding)
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine[0], theirs[0], **rounding)
        for index, gradient in enumerate(mine[1:]):
            parts = theirs[1 + index :: len(own[0])]
            assert (gradient is None) == (parts[0] is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, torch.stack(parts), **rounding)


def test_networks_as_one_differ_from_each_alone_by_rounding_in_float32(generator):
    each = networks(4, generator, hidden_layers=2, initialization="staf-theorem")
    x = 2.0 * torch.rand(4, 300, 2, generator=generator) - 1.0
    expected = torch.stack([f(part) for f, part in zip(each, x, strict=True)])
    # A rounding error of an argument grows by at most ω = 30 in each of two layers.
    torch.testing.assert_close(CoordinateMLP.stack(each)(x), expected, rtol=0.0, atol=30.0**2 * 2.0**-22)


def test_networks_as_one_are_copies_with_a_state_of_their_own(generator):
    each = networks(2, generator)
    one, other = CoordinateMLP.stack(each), CoordinateMLP.stack(networks(2, generator))
    x = torch.rand(2, 5, 2, generator=generator)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), one(x))
    before = one(x)
    with torch.no_grad():
        each[0].output.bias += 1.0
    assert torch.equal(one(x), before)
    assert one.layers[1].linear.weight.shape == (2, 6, 6)
    assert one.layers[1].activation.amplitude.shape == (2, 5)


def test_networks_as_one_take_an_input_in_parts(generator):
    one = CoordinateMLP.stack(networks(2, generator)).double()
    x = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(one(x[..., :1], x[..., 1:]), one(x))


def test_networks_as_one_refuse_other_shapes(generator):
    one = CoordinateMLP.stack(networks(2, generator))
    with pytest.raises(ValueError, match=r"inputs of 2 networks must have shape \(2, n, d\), got \(5, 2\)"):
        one(torch.zeros(5, 2))
    for wrong in ([], [CoordinateMLP(2, 1, hidden_features=n) for n in (4, 5)]):
        with pytest.raises(ValueError, match="networks must have parameters of the same shapes"):
            CoordinateMLP.stack(wrong)
