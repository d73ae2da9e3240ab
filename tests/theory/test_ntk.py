"""Empirical kernels against gradients taken point by point, in float64: what differs is rounding."""

import pytest
import torch

from staf_nerf import CoordinateMLP, FieldConfig, NeuralField, SignedDistanceField, empirical_ntk, ntk_spectrum
from staf_nerf.activations import ACTIVATIONS, STAF
from staf_nerf.config import ENCODINGS
from staf_nerf.layers import Activation
from staf_nerf.theory.ntk import NAMES, KernelParts

ROUNDING = {"atol": 1e-8, "rtol": 1e-10}
"""Kernels of size 1 to 1e4, sums of a thousand products."""


def points(count, generator, inputs=2):
    return 2.0 * torch.rand(count, inputs, generator=generator, dtype=torch.float64) - 1.0


def place(model, name):
    """The part of a parameter, by asking its module."""
    owner, _, last = name.rpartition(".")
    if isinstance(model.get_submodule(owner), STAF):
        return last
    return "biases" if last == "bias" else "weights"


def by_loops(model, x, y):
    """{part: (n, m, k, k)}, one gradient at a time."""

    def gradients(points):
        rows = []
        for point in points:
            values = model(point[None])[0]
            rows.append([torch.autograd.grad(v, list(model.parameters()), retain_graph=True) for v in values])
        return rows

    names = [name for name, _ in model.named_parameters()]
    left, right = gradients(x), gradients(y)
    outputs = len(left[0])
    found = {name: torch.zeros(len(x), len(y), outputs, outputs, dtype=torch.float64) for name in NAMES}
    for a in range(len(x)):
        for b in range(len(y)):
            for i in range(outputs):
                for j in range(outputs):
                    for name, first, second in zip(names, left[a][i], right[b][j], strict=True):
                        found[place(model, name)][a, b, i, j] += (first * second.conj()).sum().real
    return found


def assert_parts(found: KernelParts, expected):
    for name in NAMES:
        torch.testing.assert_close(getattr(found, name), expected[name], **ROUNDING)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activations_kernel_is_that_of_gradients_one_by_one(activation, skip, generator):
    mlp = CoordinateMLP(
        2, 2, hidden_features=5, hidden_layers=3, activation=activation, skip=skip, generator=generator
    ).double()
    for parameter in mlp.parameters():  # `double` leaves complex weights as they are
        parameter.data = parameter.data.to(torch.complex128 if parameter.is_complex() else torch.float64)
    x, y = points(4, generator), points(3, generator)
    expected = by_loops(mlp, x, y)
    assert_parts(empirical_ntk(mlp, x, y, outputs="full", parts=True), expected)


class Scaled(Activation):
    """An activation with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.height = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, z):
        return self.height * torch.tanh(z)


def test_the_kernel_counts_the_parameters_of_any_activation(generator):
    mlp = CoordinateMLP(
        2, 2, hidden_features=5, hidden_layers=2, activation=lambda layer: Scaled(), generator=generator
    ).double()
    x = points(4, generator)
    assert_parts(empirical_ntk(mlp, x, outputs="full", parts=True), by_loops(mlp, x, x))


@pytest.mark.parametrize("sharing", ["layer", "neuron", "network"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_every_sharing_of_sinusoids_gives_the_kernel_of_its_parameters(sharing, layers, generator):
    mlp = CoordinateMLP(
        2,
        2,
        hidden_features=5,
        hidden_layers=layers,
        sharing=sharing,
        initialization="staf-theorem",
        generator=generator,
    ).double()
    x = points(4, generator)
    expected = by_loops(mlp, x, x)
    assert_parts(empirical_ntk(mlp, x, outputs="full", parts=True), expected)


def test_the_sum_is_over_equal_outputs_and_the_total_over_parts(generator):
    mlp = CoordinateMLP(2, 3, hidden_features=5, hidden_layers=2, generator=generator).double()
    x, y = points(4, generator), points(3, generator)
    full = empirical_ntk(mlp, x, y, outputs="full")
    torch.testing.assert_close(empirical_ntk(mlp, x, y), full.diagonal(dim1=2, dim2=3).sum(-1), **ROUNDING)
    parts = empirical_ntk(mlp, x, y, outputs="full", parts=True)
    torch.testing.assert_close(parts.total, full, **ROUNDING)
    torch.testing.assert_close(parts.linear + parts.sinusoids, full, **ROUNDING)


@pytest.mark.parametrize("outputs", ["sum", "full"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_blocks_of_any_size_give_one_kernel_by_layers_and_by_gradients(chunk, outputs, generator):
    mlp = CoordinateMLP(2, 2, hidden_features=5, hidden_layers=2, generator=generator).double()
    x, y = points(7, generator), points(4, generator)
    expected = empirical_ntk(mlp, x, y, outputs=outputs, parts=True)
    other = torch.nn.Sequential(mlp)  # no network that is known by its layers
    for model in (mlp, other):
        found = empirical_ntk(model, x, y, outputs=outputs, parts=True, chunk=chunk)
        assert_parts(found, {name: getattr(expected, name) for name in NAMES})
        torch.testing.assert_close(empirical_ntk(model, x, y, outputs=outputs, chunk=chunk), found.total, **ROUNDING)


@pytest.mark.parametrize("encoding", ["identity", "fourier", "octaves", "hash"])
def test_a_fields_kernel_counts_what_its_encoding_holds(encoding, generator):
    small = {"num_levels": 2, "log2_table_size": 5, "max_resolution": 20} if encoding == "hash" else {}
    config = FieldConfig(encoding=ENCODINGS[encoding](**small), hidden_features=5)
    field = NeuralField(2, 1, config, generator=generator).double()
    x = points(3, generator)
    assert_parts(empirical_ntk(field, x, outputs="full", parts=True), by_loops(field, x, x))


def test_any_other_module_has_a_kernel_too(generator):
    field = SignedDistanceField(FieldConfig(hidden_features=5), generator=generator).double()
    x = points(3, generator, 3)
    assert_parts(empirical_ntk(field, x, outputs="full", parts=True), by_loops(field, x, x))


def test_no_points_give_an_empty_kernel_and_one_point_a_number(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=5, generator=generator)
    assert empirical_ntk(mlp, torch.zeros(0, 2), torch.zeros(3, 2)).shape == (0, 3)
    assert empirical_ntk(torch.nn.Sequential(mlp), torch.zeros(0, 2), torch.zeros(3, 2)).shape == (0, 3)
    assert empirical_ntk(mlp, torch.zeros(1, 2)).shape == (1, 1)
    assert empirical_ntk(mlp, torch.zeros(1, 2)).dtype == torch.float32


def test_frozen_parameters_count_and_no_gradient_is_left_behind(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=5, generator=generator).double()
    x = points(3, generator)
    expected = empirical_ntk(mlp, x)
    found = empirical_ntk(mlp.requires_grad_(False), x)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(p.grad is None for p in mlp.parameters())


def test_the_spectrum_rebuilds_the_kernel_in_falling_order(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=8, hidden_layers=2, generator=generator).double()
    kernel = empirical_ntk(mlp, points(12, generator))
    values, vectors = ntk_spectrum(kernel)
    assert (values.diff() <= 0).all()
    assert values.min() > -1e-9
    torch.testing.assert_close(vectors * values @ vectors.T, kernel)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(12, dtype=torch.float64))


def test_gradient_descent_shrinks_the_error_along_eigenvectors_as_the_spectrum_says(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=64, hidden_layers=2, generator=generator).double()
    x = points(12, generator)
    values, vectors = ntk_spectrum(empirical_ntk(mlp, x))
    target = mlp(x).detach()[:, 0] + 1e-4 * vectors.sum(1)  # so near that the kernel stays what it is
    rate, steps = 0.5 / values[0].item(), 20
    for _ in range(steps):
        loss = 0.5 * (mlp(x)[:, 0] - target).square().sum()
        gradients = torch.autograd.grad(loss, list(mlp.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(mlp.parameters(), gradients, strict=True):
                parameter -= rate * gradient
    left = vectors.T @ (target - mlp(x).detach()[:, 0]) / 1e-4
    # The kernel moves by parts of a thousand over a way of 1e-4.
    torch.testing.assert_close(left, (1.0 - rate * values) ** steps, atol=5e-3, rtol=0.0)


def test_wrong_arguments_are_refused(generator):
    mlp = CoordinateMLP(2, 1, hidden_features=5)
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"y must have shape \(n, d\), got \(2,\)"):
        empirical_ntk(mlp, x, x[0])
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        empirical_ntk(mlp, x, chunk=0)
    with pytest.raises(ValueError, match="outputs must be 'sum' or 'full', got 'mean'"):
        empirical_ntk(mlp, x, outputs="mean")  # pyright: ignore
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        ntk_spectrum(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"kernel must have shape \(n, n\), got \(2, 3\)"):
        ntk_spectrum(torch.zeros(2, 3))
