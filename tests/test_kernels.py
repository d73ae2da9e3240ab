import dataclasses
import functools
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from staf_nerf.activations import STAF, Sine
from staf_nerf.bench.timing import on_threads
from staf_nerf.encodings import HashGrid
from staf_nerf.kernels import accuracy, library, native, pointwise, reference, staf
from staf_nerf.kernels.fourier_sum import fourier_sum, fourier_sum_backward, fourier_sum_second
from staf_nerf.kernels.pointwise import HIGHEST_ORDER, scaled_derivative
from staf_nerf.kernels.signatures import INDICES, SIGNATURES, Signature
from staf_nerf.mlp import CoordinateMLP
from tests.conftest import opcheck
from tests.reference import oracles

needs_cxx = pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))), reason="torch.compile needs a C++ compiler"
)

needs_library = pytest.mark.skipif(library.library() is None, reason="there was no C compiler when this was installed")

IMPLEMENTATIONS = ["reference", "native"]


def test_the_library_is_built_wherever_there_is_a_compiler():
    # It is optional, so that nothing fails to install; a mistake in it must not pass for a missing compiler.
    assert library.library() is not None or not any(map(shutil.which, ("cc", "gcc", "clang")))


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request) -> str:
    if request.param == "native" and library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    return request.param


def draw(shape, parameter_shape, generator, dtype=torch.float64, omega=3.0):
    z = torch.randn(shape, generator=generator, dtype=dtype)
    amplitude = torch.randn(parameter_shape, generator=generator, dtype=dtype)
    frequency = omega * torch.rand(parameter_shape, generator=generator, dtype=dtype)
    phase = torch.randn(parameter_shape, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (z, amplitude, frequency, phase)]


@pytest.mark.parametrize("parameter_shape", [(1,), (5,), (3, 4)])
@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 3, 4), (0, 4)])
def test_values_equal_the_sum_written_as_a_loop(shape, parameter_shape, generator, implementation):
    inputs = draw(shape, parameter_shape, generator)
    expected = oracles.staf(*(x.detach().numpy() for x in inputs))
    # float64: the error of the argument (|θ| < 20) and of a sum of five terms.
    result = staf(*inputs, implementation=implementation)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("parameter_shape", [(1,), (3,), (2, 4)])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (0, 4)])
def test_first_and_second_derivatives_are_exact(shape, parameter_shape, generator, implementation):
    inputs = draw(shape, parameter_shape, generator)
    function = functools.partial(staf, implementation=implementation)
    assert torch.autograd.gradcheck(function, inputs, check_batched_grad=False)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("parameter_shape", [(3,), (2, 4)])
def test_third_derivatives_are_exact(parameter_shape, generator, implementation):
    inputs = draw((2, 4), parameter_shape, generator)

    def first(*inputs):
        y = staf(*inputs, implementation=implementation)
        return torch.autograd.grad(y.square().sum(), inputs, create_graph=True)

    assert torch.autograd.gradgradcheck(first, inputs)


def test_third_derivative_in_z_is_minus_the_frequency_squared_times_the_first(generator, implementation):
    z = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    y = staf(z, one, 2.0 * one, 0.3 * one, implementation=implementation)
    first = torch.autograd.grad(y.sum(), z, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), z, create_graph=True)[0]
    third = torch.autograd.grad(second.sum(), z)[0]
    torch.testing.assert_close(third, -4.0 * first)


@pytest.mark.parametrize("parameter_shape", [(3,), (2, 4)])
def test_jacobians_by_reverse_forward_and_plain_torch_agree(parameter_shape, generator):
    inputs = [x.detach() for x in draw((3, 4), parameter_shape, generator)]

    def plain(z, amplitude, frequency, phase):
        return sum(c * torch.sin(w * z + p) for c, w, p in zip(amplitude, frequency, phase, strict=True))

    for argument in range(4):
        expected = jacrev(plain, argument)(*inputs)
        torch.testing.assert_close(jacrev(staf, argument)(*inputs), expected)
        torch.testing.assert_close(jacfwd(staf, argument)(*inputs), expected)


@pytest.mark.parametrize("parameter_shape", [(3,), (2, 4)])
def test_hessians_by_every_pairing_of_modes_agree(parameter_shape, generator):
    inputs = [x.detach() for x in draw((2, 4), parameter_shape, generator)]
    for argument in range(4):

        def loss(x, argument=argument):
            return staf(*inputs[:argument], x, *inputs[argument + 1 :]).square().sum()

        expected = jacrev(jacrev(loss))(inputs[argument])
        torch.testing.assert_close(hessian(loss)(inputs[argument]), expected)
        torch.testing.assert_close(jacfwd(jacfwd(loss))(inputs[argument]), expected)


def test_vmap_over_points_and_over_parameters(generator):
    z, *parameters = (x.detach() for x in draw((6, 4), (3,), generator))
    torch.testing.assert_close(vmap(lambda row: staf(row, *parameters))(z), staf(z, *parameters))
    stacked = [torch.stack([p, 2 * p]) for p in parameters]
    both = vmap(lambda *sets: staf(z, *sets))(*stacked)
    torch.testing.assert_close(both, torch.stack([staf(z, *parameters), staf(z, *(2 * p for p in parameters))]))


def test_blocks_give_the_values_and_gradients_of_the_whole(generator, monkeypatch):
    inputs = draw((40, 4), (3,), generator)
    whole = torch.autograd.grad(reference.staf(*inputs).square().sum(), inputs)
    monkeypatch.setattr(reference, "BLOCK", 16)
    blocks = torch.autograd.grad(reference.staf(*inputs).square().sum(), inputs)
    torch.testing.assert_close(blocks, whole)  # the order of summation differs: float64 rounding


def test_backward_keeps_z_alone(generator, implementation):
    z, *parameters = draw((1000, 8), (16,), generator)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        staf(z, *parameters, implementation=implementation)
    assert sum(saved) == z.numel() + 3 * 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_at_the_end(dtype, generator):
    z = torch.randn(200, 8, generator=generator).to(dtype)
    amplitude, frequency, phase = torch.tensor([1.0]), torch.tensor([3000.0]), torch.tensor([0.1])
    result = staf(z, amplitude, frequency, phase)
    assert result.dtype == dtype
    # An argument of 3000 in fp16 has a spacing of 2: only float32 inside makes the values equal.
    assert torch.equal(result, staf(z.float(), amplitude, frequency, phase).to(dtype))


def test_autocast_leaves_the_argument_in_float32(generator):
    z, amplitude = torch.randn(50, 8, generator=generator), torch.ones(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = staf(z, amplitude, 3000.0 * amplitude, 0.0 * amplitude)
    assert torch.equal(result, staf(z, amplitude, 3000.0 * amplitude, 0.0 * amplitude))


def test_wrong_shapes_are_named():
    z = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"the same shape, got \(3,\), \(2,\), \(3,\)"):
        staf(z, torch.zeros(3), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"τ >= 1.* got \(0,\)"):
        staf(z, *(torch.zeros(0) for _ in range(3)))
    with pytest.raises(ValueError, match=r"got \(3, 5\) with z of shape \(2, 4\)"):
        staf(z, *(torch.zeros(3, 5) for _ in range(3)))


def test_unknown_and_unusable_implementations_are_named(generator):
    inputs = draw((2, 4), (3,), generator)
    with pytest.raises(ValueError, match=r"implementation must be one of \['auto', 'native', .*got 'fast'"):
        staf(*inputs, implementation="fast")
    with pytest.raises(RuntimeError, match="needs the compiled library, float32 or float64 on a CPU"):
        staf(*(x.to("meta") for x in inputs), implementation="native")
    with pytest.raises(RuntimeError, match="needs Triton, float32 or half precision on a CUDA device"):
        staf(*inputs, implementation="triton")


def errors(function, draws) -> list[float]:
    """Root mean square errors over draws, in float32 against float64, of the value and each gradient; relative ones."""
    squares = torch.zeros(2, 1 + len(draws[0]), dtype=torch.float64)  # of the errors, of the exact values
    for inputs in draws:
        weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(3)).to(inputs[0].device)
        results = []
        for dtype in (torch.float64, torch.float32):
            cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
            y = function(*cast)
            results.append([y.detach(), *torch.autograd.grad((y * weights.to(dtype)).sum(), cast)])
        for i, (exact, found) in enumerate(zip(*results, strict=True)):
            squares[0, i] += float((found - exact).square().mean())
            squares[1, i] += float(exact.square().mean())
    return (squares[0] / squares[1]).sqrt().tolist()


@pytest.mark.parametrize("parameter_shape", [(3,), (3, 4)])
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_float32_is_as_good_as_torch_formula_against_float64(scale, parameter_shape, generator, implementation):
    draws = []
    for _ in range(20):
        z, *parameters = draw((500, 4), parameter_shape, generator, dtype=torch.float32)
        draws.append([scale * z, *parameters])

    def formula(z, amplitude, frequency, phase):
        return sum(c * torch.sin(w * z + p) for c, w, p in zip(amplitude, frequency, phase, strict=True))

    ours, theirs = errors(functools.partial(staf, implementation=implementation), draws), errors(formula, draws)
    # Ours rounds the argument once, theirs twice: better for each value (where arguments are small both are good to two
    # roundings of float32). The parameters' gradients are sums of those errors, by chance up to twice as large.
    assert all(a <= max(b, 1.2e-7) for a, b in zip(ours[:2], theirs[:2], strict=True)), (ours, theirs)
    assert all(a <= max(2 * b, 1.2e-7) for a, b in zip(ours[2:], theirs[2:], strict=True)), (ours, theirs)


# --- the native kernels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parameter_shape", [(1,), (70,), (3, 37)])
@pytest.mark.parametrize("shape", [(1, 37), (200, 37), (3, 5, 37)])
@pytest.mark.usefixtures("instructions")
def test_native_equals_the_reference_in_float64_to_second_derivatives(shape, parameter_shape, dtype, generator):
    inputs = draw(shape, parameter_shape, generator)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in inputs]
    results = []
    for kind, name in ((torch.float64, "reference"), (dtype, "native")):
        cast = [x.detach().to(kind).requires_grad_() for x in inputs]
        y = staf(*cast, implementation=name)
        first = torch.autograd.grad(y.square().sum(), cast, create_graph=True)
        along = sum((w.to(kind) * g).sum() for w, g in zip(weights, first, strict=True))
        results.append([y, *first, *torch.autograd.grad(along, cast)])
    # Sums of up to 7400 terms whose rounding errors add like a random walk.
    tolerance = 2e-5 if dtype == torch.float32 else 1e-13
    for expected, found in zip(*results, strict=True):
        assert float((found.double() - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("parameter_shape", [(3,), (2, 7)])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (0, 7)])
def test_derivatives_in_the_bias_are_exact(shape, parameter_shape, generator, implementation):
    if implementation == "native" and len(parameter_shape) == 2:
        implementation = "auto"
    inputs = draw(shape, parameter_shape, generator)
    inputs.append(torch.randn(shape[-1:], generator=generator, dtype=torch.float64, requires_grad=True))
    function = functools.partial(staf, implementation=implementation)
    torch.testing.assert_close(function(*inputs), function(inputs[0] + inputs[4], *inputs[1:4]))
    assert torch.autograd.gradcheck(function, inputs, check_batched_grad=False)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(37,), (3, 5, 37), (1000, 37), (9, 5000), (3000, 1), (0, 37)])
@pytest.mark.usefixtures("instructions")
def test_a_bias_added_in_native_code_equals_one_added_before(shape, dtype, generator):
    inputs = draw(shape, (3,), generator, dtype=dtype)
    inputs.append(torch.randn(shape[-1:], generator=generator, dtype=dtype, requires_grad=True))
    weights = [torch.randn(x.shape, generator=generator, dtype=dtype) for x in inputs]
    results = []
    for added_before in (True, False):
        z, *parameters, bias = inputs
        y = staf(z + bias, *parameters) if added_before else staf(z, *parameters, bias)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        along = sum((w * g).sum() for w, g in zip(weights, first, strict=True))
        results.append([y, *first, *torch.autograd.grad(along, inputs)])
    # Sums of up to 45 000 terms, in another order.
    tolerance = 5e-5 if dtype == torch.float32 else 1e-12
    for expected, found in zip(*results, strict=True):
        most = float(expected.detach().abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance * most)


def test_a_bias_s_gradient_does_not_depend_on_the_number_of_threads(generator):
    z, *parameters = draw((3000, 40), (3,), generator, dtype=torch.float32)
    bias = torch.randn(40, generator=generator, requires_grad=True)
    results = []
    for threads in (1, 2, 3):
        with on_threads(threads):
            results.append(torch.autograd.grad(staf(z, *parameters, bias).square().sum(), (z, bias)))
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


@needs_library
def test_gradients_are_exact_where_a_unit_of_work_is_several_blocks(generator):
    """Partial sums bound the number of units: here to 109, of two blocks of 64 rows, and to 64, of three blocks."""
    z, grad = torch.randn(2, 7100, 64, generator=generator)
    parameters = torch.randn(3, 100, 64, generator=generator)
    found = native.backward(grad, z, *parameters, torch.empty(0))
    expected = torch.func.vjp(reference.staf, z.double(), *parameters.double())[1](grad.double())
    for a, b in zip(found, expected, strict=False):  # sums of 7100 products with arguments below 20
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-6 * float(b.abs().max()))
    z, grad = torch.randn(2, 12, 200_000, generator=generator)
    bias, parameters = torch.randn(200_000, generator=generator), torch.randn(3, 2, generator=generator)
    *_, to_bias = native.backward(grad, z, *parameters, bias)
    (slope,) = torch.func.vjp(lambda z: reference.staf(z, *parameters), z + bias)[1](grad)
    torch.testing.assert_close(to_bias, slope.sum(0), rtol=0, atol=1e-5)  # sums of 12 values below ten


@needs_library
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the largest memory differs between systems")
def test_partial_sums_of_gradients_take_little_memory():
    program = """
import resource, torch
from staf_nerf.kernels import native
z, parameters, none = torch.ones(65_536, 64), torch.ones(3, 100, 64), torch.empty(0)
native.backward(z[:128], z[:128], *parameters, none)
torch.ones(65_536, 64)  # as much as the result
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
native.backward(z, z, *parameters, none)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * 1024 < 2**25  # twice what they may take; a sum for every 64 rows took 150 MiB


def test_a_half_precision_bias_is_added_in_float32(generator):
    z = torch.full((4, 3), 1000.0, dtype=torch.float16)
    bias = torch.full((3,), 0.25)  # half precision's step is .5 there
    ones = torch.ones(1)
    found = staf(z, ones, ones, torch.zeros(1), bias)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), torch.full((4, 3), math.sin(1000.25)), atol=1e-3, rtol=0.0)


def test_a_bias_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"bias must have shape \(n,\)"):
        staf(torch.zeros(2, 3), torch.ones(1), torch.ones(1), torch.ones(1), torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("instructions")
def test_native_range_reduction_holds_for_any_argument(dtype):
    z = torch.tensor([1e5, -99999.7, 31415.926, 1e6, -3e7, 1e30, 0.0, -0.0], dtype=dtype)
    one = torch.ones(1, dtype=dtype)
    result = staf(z, one, one, 0 * one, implementation="native")
    torch.testing.assert_close(
        result.double(), torch.sin(z.double()), atol=2.5e-7 if dtype == torch.float32 else 1e-15, rtol=0
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.usefixtures("instructions")
def test_native_gives_nan_for_what_is_not_finite_and_leaves_the_rest_alone(bad, generator):
    z = torch.randn(50, 7, generator=generator)
    one = torch.ones(2)
    clean = staf(z, one, one, one, implementation="native")
    z[13, 2] = bad
    dirty = staf(z, one, one, one, implementation="native")
    assert dirty[13, 2].isnan()
    assert dirty.isnan().sum() == 1
    torch.testing.assert_close(torch.where(dirty.isnan(), clean, dirty), clean, atol=1e-6, rtol=0)
    assert staf(clean, one, bad * one, one, implementation="native").isnan().all()


def all_of_it(inputs):
    y = staf(*inputs)
    return [y, *torch.autograd.grad(y.square().sum(), inputs)]


@pytest.mark.parametrize("parameter_shape", [(3,), (3, 40)])
def test_native_results_do_not_depend_on_the_number_of_threads(parameter_shape, generator):
    inputs = draw((900, 40), parameter_shape, generator, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(all_of_it(inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_native_works_from_several_threads_at_once(generator):
    inputs = draw((900, 40), (3,), generator, dtype=torch.float32)
    expected, found = all_of_it(inputs), []
    threads = [threading.Thread(target=lambda: found.append(all_of_it(inputs))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(torch.equal(a, b) for result in found for a, b in zip(expected, result, strict=True))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_native_works_in_a_child_that_forked_before_its_first_use():
    program = """
import multiprocessing, torch, staf_nerf
from staf_nerf.kernels import staf
torch.set_num_threads(2)
inputs = [torch.ones(100_000) * 2.0, torch.ones(2), torch.ones(2), torch.ones(2)]
(torch.rand(1000, 1000) @ torch.rand(1000, 1000)).exp()  # torch's threads are running
def child():
    assert abs(float(staf(*inputs)[0]) - 0.28224) < 1e-5
process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
process.start()
process.join(60)
raise SystemExit(process.exitcode if process.exitcode is not None else 9)
"""
    result = subprocess.run([sys.executable, "-c", program], timeout=120, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def _forward_in_a_child(inputs, queue):
    queue.put(staf(*inputs).numpy().copy())  # nothing else of torch's that would wait for its threads


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_native_works_after_a_fork(generator):
    inputs = [x.detach() for x in draw((900, 40), (3,), generator, dtype=torch.float32)]
    expected = staf(*inputs, implementation="native")  # torch's threads are running now; the child has none of them
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_forward_in_a_child, args=(inputs, queue), daemon=True)
    child.start()
    try:
        assert np.array_equal(queue.get(timeout=60), expected.numpy())
    finally:
        child.kill()


@pytest.mark.parametrize("parameter_shape", [(3,), (3, 4)])
def test_native_operators_obey_torch_s_rules(parameter_shape, generator):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    inputs = draw((5, 4), parameter_shape, generator)
    grad = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    biases = [torch.empty(0, dtype=torch.float64, requires_grad=True)]
    if len(parameter_shape) == 1:
        biases.append(torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True))
    for bias in biases:
        torch.library.opcheck(fourier_sum.operator, (*inputs, bias))
        torch.library.opcheck(fourier_sum_backward.operator, (grad, *inputs, bias))
        torch.library.opcheck(fourier_sum_second.operator, (*inputs, bias, grad, *inputs, bias))


@pytest.mark.parametrize("layout", ["transposed", "expanded", "strided", "0-d"])
def test_native_takes_any_memory_layout(layout, generator):
    base = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    z = {
        "transposed": base.T,
        "expanded": base[:1].expand(5, 6),
        "strided": base[:, ::2],
        "0-d": base[0, 0],
    }[layout].requires_grad_()
    parameters = [torch.randn(3, 2, generator=generator, dtype=torch.float64)[:, 0].requires_grad_() for _ in range(3)]
    results = []
    for name in IMPLEMENTATIONS:
        y = staf(z, *parameters, implementation=name)
        first = torch.autograd.grad(y.square().sum(), (z, *parameters), create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), (z, *parameters))
        results.append([y, *first, *second])
    torch.testing.assert_close(*results)


@needs_cxx
def test_forward_mode_is_right_when_compiled_and_refused_where_it_would_be_dropped(generator):
    z, *parameters = (x.detach() for x in draw((5, 4), (3,), generator, dtype=torch.float32))

    def function(z):
        return staf(z, *parameters)

    expected = jvp(function, (z,), (z,))[1]
    torch.testing.assert_close(torch.compile(lambda z: jvp(function, (z,), (z,))[1])(z), expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(z, z)
        torch.testing.assert_close(forward_ad.unpack_dual(function(dual)).tangent, expected)
        with pytest.raises(RuntimeError, match=r"no torch\.func, forward-mode"):
            staf(dual, *parameters, implementation="native")
        for call, message in (
            (fourier_sum, "implement the jvp function"),  # torch's own words
            (fourier_sum.operator, "no forward-mode derivatives"),
            (fourier_sum.kernel, "no forward-mode derivatives"),
        ):
            with pytest.raises(RuntimeError, match=message):
                call(dual, *parameters, z.new_empty(0))


# --- activations without parameters -----------------------------------------------------------------------------------

PLAIN = {
    "sine": lambda z, scale: torch.sin(scale * z),
    "finer": lambda z, scale: torch.sin(scale * (z.abs() + 1) * z),
    "gaussian": lambda z, scale: torch.exp(-((scale * z) ** 2) / 2),
}


def derivatives(function, z, weights) -> list[torch.Tensor]:
    """Of orders 0 to 4, each weighted before the next, so that every product of the rules is met."""
    orders = [function(z)]
    for _ in range(4):
        orders.append(torch.autograd.grad((orders[-1] * weights).sum(), z, create_graph=True)[0])
    return orders


@pytest.mark.parametrize("kind", sorted(PLAIN))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 3), (41, 61)])
@pytest.mark.usefixtures("instructions")
def test_pointwise_activations_equal_the_formula_to_fourth_derivatives(kind, dtype, shape, generator):
    z = torch.randn(shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = derivatives(lambda z: PLAIN[kind](z, 3.0), z.clone().requires_grad_(), weights)
    found = derivatives(lambda z: pointwise(kind, z, 3.0), z.to(dtype).requires_grad_(), weights.to(dtype))
    assert found[0].dtype == dtype
    # Rounding of the argument (up to 50 for FINER), which each order multiplies anew.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for a, b in zip(found, expected, strict=True):
        largest = float(b.detach().abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a.double(), b, atol=tolerance * largest, rtol=0)


@pytest.mark.parametrize("kind", sorted(PLAIN))
@pytest.mark.usefixtures("instructions")
def test_pointwise_activations_are_right_for_large_values_and_honest_about_bad_ones(kind, generator):
    z = torch.tensor([1e3, -1e3, 3e4, 1e6, -3e18, 1e30, 0.0, -0.0, float("nan"), float("inf")], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        cast = z.to(dtype)
        # In the same precision, as the rounding of a large argument is all that counts. A factor of one half leaves it
        # alone: the order of FINER's products does not matter.
        exact = PLAIN[kind](cast, 0.5)
        tolerance = 2**-23 if dtype == torch.float32 else 2**-52  # an ulp of one
        together, alone = pointwise(kind, cast, 0.5), torch.stack([pointwise(kind, x, 0.5) for x in cast])
        for found in (together, alone):
            torch.testing.assert_close(found, exact, atol=tolerance, rtol=0, equal_nan=True)
        assert exact.isnan().sum() == {"sine": 2, "finer": 3 if dtype == torch.float32 else 2, "gaussian": 1}[kind]


@pytest.mark.parametrize("kind", sorted(PLAIN))
@pytest.mark.parametrize("place", [0, 7, 15])
@pytest.mark.usefixtures("instructions")
def test_a_bad_value_does_not_hide_another(kind, place):
    z = torch.full((64,), 0.3)
    z[place], z[(place + 1) % 16] = float("nan"), 1e15
    found, exact = pointwise(kind, z, 20.0), PLAIN[kind](z.double(), 20.0)
    assert found[place].isnan()
    assert found.isnan().sum() == exact.isnan().sum()
    ordinary = (z == z) & (z < 1.0)
    torch.testing.assert_close(found[ordinary].double(), exact[ordinary], atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gaussian_s_derivatives_vanish_far_out(dtype):
    z = torch.tensor([0.01, 1e3, -1e13, 1e20, 1e30], dtype=dtype, requires_grad=True)
    for derivative in derivatives(lambda z: pointwise("gaussian", z, 20.0), z, torch.ones_like(z))[:4]:
        assert derivative[0] != 0
        assert derivative[1:].tolist() == [0.0] * 4


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_pointwise_activations_keep_z_alone_and_work_under_every_transformation(kind, generator):
    z = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        y = pointwise(kind, z, 3.0)
    assert sum(saved) == z.numel()
    slope = torch.autograd.grad(y.sum(), z)[0]
    plain = z.detach()
    torch.testing.assert_close(vmap(lambda row: pointwise(kind, row, 3.0))(plain), y.detach())
    torch.testing.assert_close(jvp(lambda z: pointwise(kind, z, 3.0), (plain,), (torch.ones_like(z),))[1], slope)
    compiled = torch.compile(lambda z: pointwise(kind, z, 3.0), fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(z).sum(), z)[0], slope)


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_pointwise_operator_obeys_torch_s_rules(kind, order, generator):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    z = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    inputs = (z, factor if order else None, kind, order, 3.0)
    opcheck(scaled_derivative.operator, inputs, nests_vjps=order == HIGHEST_ORDER)


@pytest.mark.parametrize("kind", sorted(PLAIN))
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_pointwise_float32_is_as_good_as_torch_formula_against_float64(kind, scale, generator):
    draws = [[scale * torch.randn(500, 4, generator=generator)] for _ in range(20)]
    ours = errors(lambda z: pointwise(kind, z, 3.0), draws)
    theirs = errors(lambda z: PLAIN[kind](z, 3.0), draws)
    # Both round the argument, where FINER's is formed in another order: by chance up to twice as large.
    assert all(a <= max(2 * b, 1.2e-7) for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


# --- what C gets -----------------------------------------------------------------------------------------------------

GRID = (7, 2, 3, 40, 2, 1)  # points, dimensions, levels, rows of the table, features, dense levels
EXAMPLES = {
    "staf_forward": ((False, 5, 4, 3), ((5, 4), (3,), (4,))),
    "staf_backward": ((True, 5, 4, 3), ((5, 4), (3, 4), (0,))),
    "staf_second": ((False, 10, 4, 3), ((2, 5, 4), (3,), (4,))),
    "staf_pointwise": ((0, 1, 2.0, 20), ((5, 4),)),
    "ray_weights": ((6, 5), None),
    "ray_weights_backward": ((6, 5), None),
    "ray_resample": ((6, 5, 9, 0.1), None),
    "ray_distortion": ((6, 5), None),
    "ray_points": ((6, 5), None),
    "cube_contraction": ((6,), None),
    "hash_grid_forward": (GRID, None),
    "hash_grid_backward": (GRID, None),
    "hash_grid_second": (GRID, None),
}
"""Numbers for each function of the library, and sizes where these are not the numbers."""


def inputs_of(name: str) -> dict[str, torch.Tensor]:
    signature = SIGNATURES[name]
    numbers, sizes = EXAMPLES[name]
    shapes = list(signature.shapes(*(sizes or numbers)).items())[: -signature.num_outputs]
    made = {key: torch.ones(shape, dtype=torch.int32 if key in INDICES else torch.float32) for key, shape in shapes}
    if "offsets" in made:
        made["rows"], made["offsets"] = torch.tensor([[8, 16, 16], [0, 8, 24]], dtype=torch.int32)
    return made


def run(name: str, inputs: dict, **options) -> tuple[torch.Tensor, ...]:
    numbers, sizes = EXAMPLES[name]
    return library.run(name, torch.float32, numbers, list(inputs.values()), sizes=sizes, **options)


@needs_library
@pytest.mark.parametrize("name", SIGNATURES)
def test_c_gets_no_tensor_of_another_shape_or_dtype_or_device(name):
    inputs = inputs_of(name)
    assert all(out.isfinite().all() for out in run(name, inputs))
    for key, x in inputs.items():
        transposed = x.T if x.ndim == 2 and x.shape[0] != x.shape[1] else x[None]
        for wrong in (x[1:], torch.cat([x, x]), transposed, x.double(), x.long(), x.to("meta")):
            if wrong.shape != x.shape or wrong.dtype != x.dtype or wrong.device != x.device:
                with pytest.raises(
                    ValueError, match=rf"^{key} must have shape .* got \({', '.join(map(str, wrong.shape))}"
                ):
                    run(name, {**inputs, key: wrong})
        if key not in SIGNATURES[name].optional:
            with pytest.raises(ValueError, match=f"^{key} must have .* got None"):
                run(name, {**inputs, key: None})


@needs_library
@pytest.mark.parametrize("name", SIGNATURES)
def test_c_reads_and_writes_within_the_tensors(name):
    """Each input lies in the middle of a larger tensor of NaN, which would show in the results or be overwritten."""
    inputs, padded = inputs_of(name), {}
    for key, x in inputs.items():
        bad = torch.iinfo(x.dtype).max if key in INDICES else math.nan
        room = torch.full((x.numel() + 64,), bad, dtype=x.dtype)
        padded[key] = room[32 : 32 + x.numel()].view(x.shape)
        padded[key].copy_(x)
    assert all(torch.equal(a, b) for a, b in zip(run(name, padded), run(name, inputs), strict=True))


@needs_library
def test_operators_refuse_what_their_formulas_do_not_allow():
    z, one, row, none = torch.ones(5, 4), torch.ones(3), torch.ones(4), torch.ones(0)
    refused = [
        (lambda: fourier_sum(z, one, torch.ones(2), one, none), r"frequency must have shape \(3,\)"),
        (lambda: fourier_sum(z, none, none, none, none), "amplitude must have shape"),
        (lambda: fourier_sum(z, *[torch.ones(3, 5)] * 3, none), "amplitude must have shape"),
        (lambda: fourier_sum(z, *[torch.ones(3, 4)] * 3, row), r"bias must have shape \(0,\)"),
        (lambda: fourier_sum(z, one, one, one, one), r"bias must have shape \(4,\)"),
        (lambda: fourier_sum(z.half(), *[one.half()] * 3, none.half()), "dtype must be float32 or float64"),
        (lambda: fourier_sum_backward(z[:4], z, one, one, one, row), r"grad must have shape \(5, 4\)"),
        (lambda: fourier_sum_second(z, *[one] * 3, none, z, z, *[one] * 3, row), r"vbias must have shape \(4,\)"),
        (lambda: scaled_derivative(z, None, 0, 1, 1.0), "factor must be None for order 0 only"),
        (lambda: scaled_derivative(z, z, 0, 0, 1.0), "factor must be None for order 0 only"),
        (lambda: scaled_derivative(z, z[:1], 0, 1, 1.0), r"factor must have shape \(5, 4\)"),
        (lambda: scaled_derivative(z, z, 3, 1, 1.0), "kind must be between 0 and 2, got 3"),
        (lambda: scaled_derivative(z, z, -1, 1, 1.0), "kind must be between 0 and 2, got -1"),
        (lambda: scaled_derivative(z, z, 0, 4, 1.0), "order must be between 0 and 3, got 4"),
        (lambda: pointwise("cosine", z, 1.0), "kind must be one of .* got 'cosine'"),
    ]
    for attempt, message in refused:
        with pytest.raises(ValueError, match=message):
            attempt()


@needs_library
def test_the_self_check_finds_a_few_roundings_everywhere_and_leaves_settings_alone():
    before = torch.get_num_threads(), library.level()
    errors = accuracy.largest_errors()
    assert (torch.get_num_threads(), library.level()) == before
    assert list(errors) == list(library.LEVELS[: library.best_level() + 1])
    for by_family in errors.values():
        assert by_family.keys() == accuracy.FAMILIES.keys()
        assert 0.0 < max(by_family.values()) < accuracy.BOUND


@needs_library
@pytest.mark.parametrize("name", accuracy.FAMILIES)
def test_the_self_check_notices_one_wrong_value_in_any_result(name):
    family = accuracy.FAMILIES[name]
    inputs = accuracy._cast(family.draw(torch.Generator().manual_seed(0)), torch.float32)
    with on_threads(1):  # tensors are small
        for i, result in enumerate(family.kernels(*inputs)):
            for wrong in (1.0 + 2e-5, math.nan):

                def kernels(*inputs, i=i, wrong=wrong):
                    found = list(family.kernels(*inputs))
                    if found[i].numel():
                        found[i].view(-1)[found[i].abs().argmax()] *= wrong
                    return found

                errors = accuracy._errors(dataclasses.replace(family, kernels=kernels))
                assert all((error > accuracy.BOUND) == (result.numel() > 0) for error in errors)


@needs_library
def test_an_instruction_set_that_the_processor_lacks_is_refused():
    with pytest.raises(ValueError, match=f"level must be between 0 and {library.best_level()}"), library.at_level(3):
        pass
    with library.at_level(0):
        assert library.level() == 0
    assert library.level() == library.best_level()


TRACED = {
    "activation": (lambda: STAF(4), 4),
    "activation per neuron": (lambda: STAF(4, sharing="neuron"), 4),
    "sine": (lambda: Sine(4), 4),
    "network": (lambda: CoordinateMLP(2, 3, hidden_features=8, hidden_layers=2), 2),
    "hash grid": (lambda: HashGrid(3, num_levels=3, log2_table_size=6, base_resolution=2, max_resolution=16), 3),
}


@pytest.mark.parametrize("module", TRACED)
@pytest.mark.filterwarnings("ignore")  # of torch, about shapes that the trace takes as constant
def test_a_trace_is_right_for_another_number_of_points_and_needs_this_package_no_more(module, tmp_path, generator):
    make, features = TRACED[module]
    traced_module = make()
    # More points than the reference takes at a time, and then fewer.
    trace = torch.jit.trace(traced_module, torch.rand(2 * reference.BLOCK // features, features, generator=generator))
    x = torch.rand(19, features, generator=generator)
    torch.testing.assert_close(trace(x), traced_module(x))
    torch.jit.save(trace, tmp_path / "trace.pt")
    torch.save((x, traced_module(x).detach()), tmp_path / "expected.pt")
    program = """
import sys, torch
x, expected = torch.load("expected.pt")
torch.testing.assert_close(torch.jit.load("trace.pt")(x).detach(), expected)
assert not any(name.startswith("staf_nerf") for name in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


# --- and in what surrounds them ---------------------------------------------------------------------------------------


@needs_cxx
def test_a_compiled_function_equals_the_eager_one(generator):
    inputs = draw((50, 4), (3,), generator, dtype=torch.float32)

    def loss(*inputs):
        return (staf(*inputs) * 2.0).square().mean()

    compiled = torch.compile(loss, fullgraph=True)
    expected = torch.autograd.grad(loss(*inputs), inputs)
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs), expected)


def test_what_watches_torch_s_operations_sees_an_operator(generator):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **kwargs or {})

    z, *parameters = draw((5, 4), (3,), generator)
    expected = torch.autograd.grad(staf(z, *parameters).square().sum(), z)[0]
    seen: list[str] = []
    with Watch():
        found = torch.autograd.grad(staf(z, *parameters).square().sum(), z)[0]
    assert torch.equal(found, expected)
    assert {"staf_nerf.fourier_sum.default", "staf_nerf.fourier_sum_backward.default"} <= set(seen)
    plain = [x.detach() for x in (z, *parameters)]
    with FakeTensorMode() as mode:
        assert staf(*map(mode.from_tensor, plain)).shape == (5, 4)


def test_a_library_of_another_version_counts_as_absent(monkeypatch):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    newer = {"staf_of_tomorrow": Signature([], lambda: {})}
    for name, value, why in (("VERSION", -1, "is of version"), ("SIGNATURES", newer, "staf_of_tomorrow")):
        with monkeypatch.context() as patch:
            patch.setattr(library, "load", library.load.__wrapped__)  # the function without its cache
            patch.setattr(library, name, value)
            assert library.library() is None
            assert why in str(library.load()[1])
            assert library.is_broken()
    assert library.library() is not None


def test_without_the_library_the_reference_serves_and_one_line_says_so(generator, monkeypatch):
    inputs = draw((5, 4), (3,), generator)
    expected = staf(*inputs, implementation="reference")
    monkeypatch.setattr(library, "load", lambda: (None, None))
    monkeypatch.setattr(library, "_is_here_or_one_line", functools.cache(library._is_here_or_one_line.__wrapped__))
    with pytest.warns(UserWarning, match="without a C compiler") as warned:
        results = [staf(*inputs), staf(*inputs)]
    assert len(warned) == 1
    assert all(torch.equal(result, expected) for result in results)
