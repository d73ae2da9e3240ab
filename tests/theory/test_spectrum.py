"""Predicted lines against Fourier transforms of real networks, whose first-layer frequencies are integers."""

import itertools
import math

import pytest
import torch
from scipy.special import jv

from staf_nerf import STAF, CoordinateMLP
from staf_nerf.theory.spectrum import count_frequencies, first_frequencies, frequency_support

SAMPLES = 2048
"""Of one period; lines are at most 1023 apart from zero, far beyond what is listed."""
ROUNDING = 1e-13
"""Of an FFT of values of size 1."""


def periodic(generator, layers, *, skip=False, scale=1.0, rows=(1.0, 3.0), frequency=(7.0, 11.0)):
    """A network of period 2π: two features, Ω = 7 and 11, W = 1 and 3, so lines at 7, 11, 21, 33; small weights."""
    mlp = CoordinateMLP(
        1, 1, hidden_features=2, hidden_layers=layers, skip=skip, generator=generator,
        activation=lambda layer: STAF(
            2, num_frequencies=2, omega=1.0, initialization="staf-theorem", generator=generator
        ),
    ).double()  # fmt: skip
    with torch.no_grad():
        mlp.layers[0].linear.weight.copy_(torch.tensor(rows)[:, None])
        mlp.layers[0].activation.frequency.copy_(torch.tensor(frequency))
        mlp.output.bias.fill_(0.5)
        for linear in [layer.linear for layer in mlp.layers[1:]]:
            linear.weight *= scale
    return mlp


def lines(mlp):
    """Amplitudes of the frequencies 0, 1, 2, … (of a pair ±f together)."""
    x = torch.arange(SAMPLES, dtype=torch.float64)[:, None] * (2 * math.pi / SAMPLES)
    with torch.no_grad():
        found = torch.fft.rfft(mlp(x)[:, 0]).abs() / SAMPLES
    found[1:] *= 2.0
    return found


def by_loops(generators, order):
    """{|Σ s f|: least order}, by trying all integers."""
    found = {}
    for s in itertools.product(range(-order, order + 1), repeat=len(generators)):
        if (size := sum(map(abs, s))) <= order:
            line = abs(sum(a * f for a, f in zip(s, generators, strict=True)))
            found[line] = min(size, found.get(line, size))
    return found


def test_lines_are_the_integer_combinations_with_their_least_order(generator):
    found = frequency_support(periodic(generator, 2), order=4)
    expected = by_loops([7, 11, 21, 33], 4)
    pairs = zip(found.frequencies[:, 0].round().tolist(), found.orders.tolist(), strict=True)
    assert dict(pairs) == expected
    assert len(found.frequencies) == len(expected)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("layers", "order"), [(1, 1), (2, 8), (3, 8)])
def test_a_transform_has_the_predicted_lines_and_nothing_else(layers, order, skip, generator):
    # Lines of 41 and 97 leave gaps, and with small weights what is beyond the order is below rounding.
    mlp = periodic(generator, layers, skip=skip, scale=0.03, rows=(1.0, -1.0), frequency=(41.0, 97.0))
    support = frequency_support(mlp, order=order)
    places = support.frequencies[:, 0].round().long()
    predicted = torch.zeros(SAMPLES // 2 + 1, dtype=torch.bool)
    predicted[places] = True
    found = lines(mlp)
    assert len(places) == count_frequencies(2, order)
    assert support.remainder < ROUNDING
    assert found[~predicted].max() < ROUNDING
    # Two layers: (β/2)^k / k! with β near 0.02; three: what remains of that after weights of 0.03.
    assert found[places[support.orders <= 3]].min() > 1e-10


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_whatever_the_weights_lines_are_multiples_of_the_greatest_common_divisor(layers, generator):
    mlp = periodic(generator, layers, frequency=(6.0, 10.0), scale=2.0)
    found = lines(mlp)
    even = torch.arange(len(found)) % 2 == 0
    assert found[~even].max() < ROUNDING
    assert (found[even] > 1e-6).sum() > 20


def test_the_remainder_bounds_what_is_not_listed_of_a_network_of_usual_weights(generator):
    mlp = periodic(generator, 2)
    found = lines(mlp)
    for order in range(1, 12):
        support = frequency_support(mlp, order=order)
        rest = torch.ones_like(found)
        rest[support.frequencies[:, 0].round().long()] = 0.0
        assert (rest * found).sum() <= support.remainder + 1e-11  # a thousand lines of rounding


def test_amplitudes_of_two_layers_are_products_of_bessel_functions(generator):
    mlp = periodic(generator, 2, scale=0.5)
    (c1, w1, p1), (c2, w2, p2) = ([v.tolist() for v in layer.activation.sinusoids()] for layer in mlp.layers)
    first, second = (layer.linear for layer in mlp.layers)
    places = list(itertools.product((0, 1), (0, 1)))
    frequencies = [round(w1[i] * first.weight[k, 0].item()) for i, k in places]
    phases = [w1[i] * first.bias[k].item() + p1[i] for i, k in places]
    expected = torch.zeros(SAMPLES // 2 + 1, dtype=torch.complex128)
    for j, unit in places:
        weight = c2[j] * mlp.output.weight[0, unit].item()
        start = w2[j] * second.bias[unit].item() + p2[j]
        bessel = [[jv(s, w2[j] * second.weight[unit, k].item() * c1[i]) for s in range(-6, 7)] for i, k in places]
        for s in itertools.product(range(-6, 7), repeat=4):
            line = sum(a * f for a, f in zip(s, frequencies, strict=True))
            angle = start + sum(a * phase for a, phase in zip(s, phases, strict=True))
            size = weight * math.prod(row[a + 6] for row, a in zip(bessel, s, strict=True))
            term = size * complex(math.cos(angle), math.sin(angle))  # value: the imaginary part of term e^jfx
            expected[abs(line)] += term if line >= 0 else -term.conjugate()
    found = lines(mlp)
    assert found[1:].max() > 0.05
    # The largest β is below 0.7: Bessel functions of order 7 are below 2e-7 there, and below 1e-8 in a product.
    torch.testing.assert_close(found[1:], expected[1:].abs(), atol=1e-7, rtol=0.0)


def test_the_order_for_a_threshold_is_the_least_whose_remainder_is_below(generator):
    mlp = periodic(generator, 2, scale=0.2)
    support = frequency_support(mlp, threshold=1e-4)
    assert support.remainder <= 1e-4 < frequency_support(mlp, order=support.order - 1).remainder


def test_vectors_of_frequencies_are_combined_in_any_dimension(generator):
    mlp = CoordinateMLP(3, 1, hidden_features=2, hidden_layers=2, num_frequencies=1, generator=generator).double()
    found = frequency_support(mlp, order=3)
    assert len(found.frequencies) == count_frequencies(2, 3)
    a, b = first_frequencies(mlp)
    for s, t in itertools.product(range(-3, 4), repeat=2):
        if abs(s) + abs(t) <= 3:
            line = s * a + t * b
            near = torch.minimum(*((found.frequencies - sign * line).abs().amax(1) for sign in (1, -1)))
            assert near.min() < 1e-9
            assert found.orders[near.argmin()] == abs(s) + abs(t)


@pytest.mark.parametrize(("generators", "order"), [(1, 5), (2, 3), (4, 3), (3, 0)])
def test_the_count_is_that_of_loops(generators, order):
    independent = [math.sqrt(p) for p in (2, 3, 5, 7)][:generators]
    assert count_frequencies(generators, order) == len({round(f, 9) for f in by_loops(independent, order)})


def test_tau_sinusoids_multiply_the_lines_by_up_to_tau_to_the_order():
    ratios = [count_frequencies(5 * n, 3) / count_frequencies(n, 3) for n in (4, 64, 1024)]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(5**3, rel=0.01)


def test_what_has_no_lines_or_too_many_is_refused(generator):
    with pytest.raises(ValueError, match="mlp must have at least one hidden layer"):
        frequency_support(CoordinateMLP(1, 1, hidden_layers=0))
    wide = CoordinateMLP(2, 1, hidden_features=64, hidden_layers=2, generator=generator)
    with pytest.raises(ValueError, match="limit must be at least the number of combinations of 320 frequencies"):
        frequency_support(wide, order=4)
    with pytest.raises(ValueError, match="threshold must be positive, got 0"):
        frequency_support(wide, threshold=0.0)
