"""The Fourier sum by an interpolation table, as many values with shared parameters get it in C (native_table.h)."""

import subprocess
import sys

import pytest
import torch

from staf_nerf.bench.timing import on_threads
from staf_nerf.kernels import library, native, staf
from tests.test_kernels import draw, errors

pytestmark = pytest.mark.skipif(library.library() is None, reason="there was no C compiler when this was installed")

SHAPE = (1600, 43)  # with 12 sinusoids enough values for a table, and no whole number of vectors, lines or blocks
TERMS = 12


def first_derivative(z, *parameters):
    """∂/∂z, as a surface's normals need it."""
    (slope,) = torch.autograd.grad(staf(z, *parameters).sum(), z, create_graph=True)
    return slope


def by_rows(z, *parameters):
    """Few values at a time: sinusoid by sinusoid."""
    return torch.cat([staf(part, *parameters) for part in z.split(100)])


def exact(function, inputs):
    return function(*(x.detach().double().requires_grad_() for x in inputs))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
@pytest.mark.usefixtures("instructions")
def test_values_are_nearer_the_truth_than_sinusoid_by_sinusoid(scale, generator):
    z, *parameters = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
    inputs = [scale * z, *parameters]
    whole, parts, truth = staf(*inputs), by_rows(*inputs), exact(staf, inputs)
    assert not torch.equal(whole, parts)  # so there was a table
    assert (whole - truth).abs().max().item() <= (parts - truth).abs().max().item()


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.usefixtures("instructions")
def test_float32_is_as_good_as_torch_formula_against_float64(scale, generator):
    draws = []
    for _ in range(3):
        z, *parameters = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
        draws.append([scale * z, *parameters])

    def formula(z, amplitude, frequency, phase):
        return sum(c * torch.sin(w * z + p) for c, w, p in zip(amplitude, frequency, phase, strict=True))

    ours, theirs = errors(staf, draws), errors(formula, draws)
    assert all(a <= b for a, b in zip(ours[:2], theirs[:2], strict=True)), (ours, theirs)
    assert all(a <= max(2 * b, 1.2e-7) for a, b in zip(ours[2:], theirs[2:], strict=True)), (ours, theirs)


@pytest.mark.parametrize("function", [staf, first_derivative])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.usefixtures("instructions")
def test_all_derivatives_equal_those_in_float64(function, biased, generator):
    inputs = draw(SHAPE, (TERMS,), generator, dtype=torch.float32, omega=20.0)
    if biased:
        inputs.append(torch.randn(SHAPE[-1:], generator=generator, requires_grad=True))
    weights = torch.randn(SHAPE, generator=generator)
    results = []
    for dtype in (torch.float64, torch.float32):
        cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
        y = function(*cast)
        results.append([y, *torch.autograd.grad((y * weights).sum(), cast)])
    for exact_result, result in zip(*results, strict=True):
        # Arguments up to 100 are rounded to 4e-6 where a bias is added; gradients are sums of 68 800 such terms.
        assert float((result - exact_result).abs().max()) <= 1e-5 * float(exact_result.abs().max())


@pytest.mark.usefixtures("instructions")
def test_a_derivative_along_the_parameters_is_right_too(generator):
    inputs = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
    weights = [torch.randn(x.shape, generator=generator) for x in inputs]
    results = []
    for dtype in (torch.float64, torch.float32):
        cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
        gradients = torch.autograd.grad(staf(*cast).square().sum(), cast, create_graph=True)
        results.append(torch.autograd.grad(sum((w * g).sum() for w, g in zip(weights, gradients, strict=True)), cast))
    for exact_result, result in zip(*results, strict=True):
        assert float((result - exact_result).abs().max()) <= 2e-5 * float(exact_result.abs().max())


@pytest.mark.parametrize("strange", [1e3, -1e9, float("inf"), -float("inf"), float("nan")])
@pytest.mark.usefixtures("instructions")
def test_values_outside_the_table_are_right_and_leave_the_rest_alone(strange, generator):
    inputs = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
    z = inputs[0].detach().clone()
    # The range of the table is that of 16 samples of 256 values: these places lie between the samples.
    samples = torch.randint(15, (20,), generator=generator) * ((z.numel() - 256) // 16)
    places = samples + torch.randint(256, 4096, (20,), generator=generator)
    z.view(-1)[places] = strange
    untouched = torch.ones(SHAPE, dtype=torch.bool)
    untouched.view(-1)[places] = False
    z.requires_grad_()
    clean, dirty, parts = staf(*inputs), staf(z, *inputs[1:]), by_rows(z, *inputs[1:])
    assert not torch.equal(dirty[untouched], parts[untouched])  # so there was a table
    truth = exact(staf, [z, *inputs[1:]])
    for values in (clean, dirty):  # twelve terms with arguments below 15, each rounded to 2**-21
        torch.testing.assert_close(values[untouched].double(), truth[untouched], atol=5e-6, rtol=0.0)
    torch.testing.assert_close(dirty[~untouched], parts[~untouched], atol=0, rtol=0, equal_nan=True)
    if strange != -1e9:  # times a frequency that is rounded to any argument
        # Arguments of 3000 are rounded to 2**-13; what is not finite is NaN in both.
        torch.testing.assert_close(dirty.double(), truth, atol=1e-3, rtol=0.0, equal_nan=True)
    (to_clean,) = torch.autograd.grad(clean.sum(), inputs[0])
    (to_dirty,) = torch.autograd.grad(dirty.sum(), z)
    torch.testing.assert_close(to_dirty[untouched], to_clean[untouched], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    "place", [lambda z: torch.full_like(z, 2.5), lambda z: 50.0 + 1e-3 * z, lambda z: z.sign(), lambda z: 0.0 * z]
)
def test_any_range_of_values_will_do(place, generator):
    z, *parameters = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
    inputs = [place(z.detach()).requires_grad_(), *parameters]
    results = []
    for dtype in (torch.float64, torch.float32):
        cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
        y = staf(*cast)
        results.append([y, *torch.autograd.grad(y.square().sum(), cast)])
    for exact_result, result in zip(*results, strict=True):
        # Arguments of 150 are rounded to 8e-6.
        most = float(exact_result.abs().max())
        torch.testing.assert_close(result.double(), exact_result, rtol=0.0, atol=1e-4 * most)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite_shows(bad, generator):
    z, amplitude, frequency, phase = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
    ones = torch.ones(TERMS)
    ones[3] = bad
    assert staf(z, amplitude, ones * frequency, phase).isnan().all()
    assert staf(z, amplitude, frequency, ones * phase).isnan().all()
    assert not staf(z, ones * amplitude, frequency, phase).isfinite().any()


@pytest.mark.parametrize(("equal", "bound"), [(False, 1e-5), (True, 3e-4)])
def test_sums_over_one_interval_are_right_to_the_rounding_of_16384_values(equal, bound, generator):
    z = 1e-3 * torch.randn(2**19, generator=generator)
    z[::997] = 4.0  # so the range is wide, and nearly all values lie in its middle interval
    parameters = torch.rand(3, TERMS, generator=generator)
    grad = torch.full_like(z, 0.1) if equal else torch.randn(z.shape, generator=generator)
    inputs = (grad, z, *parameters, torch.empty(0))
    _, *gradients = native.backward(*inputs)
    _, *exact_gradients = native.backward(*(x.double() for x in inputs))
    # Equal values are rounded alike, by a quarter of a rounding on average: 16384 / 4 of 6e-8.
    # Others round at random: 1e-6 of a sum that is a few hundred times smaller than that of the magnitudes.
    for gradient, expected in zip(gradients[:3], exact_gradients[:3], strict=True):
        assert float((gradient - expected).abs().max()) <= bound * float(expected.abs().max())


def test_results_do_not_depend_on_the_number_of_threads(generator):
    inputs = draw(SHAPE, (TERMS,), generator, dtype=torch.float32)
    bias = torch.randn(SHAPE[-1:], generator=generator, requires_grad=True)
    results = []
    for threads in (1, 2, 7):
        with on_threads(threads):
            y = first_derivative(*inputs, bias)
            results.append([y, *torch.autograd.grad(y.square().sum(), [*inputs, bias])])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_threads_with_small_stacks_suffice():
    """Those of musl have 128 KiB, and those of macOS 512 KiB."""
    program = """
import threading, torch
from staf_nerf.kernels import native
torch.set_num_threads(1)  # so that the thread below does all the work
z, bias, v, (c, w, p) = torch.randn(1600, 43), torch.randn(43), torch.zeros(12), torch.randn(3, 12)
def work():
    native.forward(z, c, w, p, bias)
    native.backward(z, z, c, w, p, bias)
    native.second(z, v, v, v, bias, z, z, c, w, p, bias)
for size in (128, 160, 192, 256):
    threading.stack_size(size * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
