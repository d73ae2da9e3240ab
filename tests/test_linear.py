"""Linear layers as convolutions: the same numbers, differentiable alike, and used where a measurement says so."""

import pytest
import torch
from torch.func import jacrev, vmap
from torch.nn import functional

from staf_nerf import CoordinateMLP
from staf_nerf.bench.timing import on_threads
from staf_nerf.kernels import linear as module
from staf_nerf.kernels.linear import LEAST_ROWS, linear

ROWS = LEAST_ROWS + 64


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The products that convolutions compute, in order; measurements, which would choose them, are made up."""
    found: list[str] = []
    for name in ("convolve", "convolve_outer"):
        function = getattr(module, name)
        wrapped = lambda *inputs, name=name, function=function: (found.append(name), function(*inputs))[1]  # noqa: E731
        monkeypatch.setattr(module, name, wrapped)
    monkeypatch.setattr(module, "relative_time", lambda *shape: 0.5)
    return found


def draw(shape, n_out, generator, dtype=torch.float32):
    x = torch.randn(shape, generator=generator, dtype=dtype)
    weight = torch.randn(n_out, shape[-1], generator=generator, dtype=dtype)
    bias = torch.randn(n_out, generator=generator, dtype=dtype)
    return [v.requires_grad_() for v in (x, weight, bias)]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(4,), (1, 4), (16, 3), (21, 1), (2, 5, 3), (0, 3)])
@pytest.mark.parametrize("n_out", [1, 5])
def test_first_and_second_derivatives_are_exact(shape, n_out, biased, generator):
    inputs = draw(shape, n_out, generator, torch.float64)[: 3 if biased else 2]

    def function(*inputs):
        return linear(*inputs, implementation="convolution")

    torch.testing.assert_close(function(*inputs), functional.linear(*inputs))
    if 0 not in shape:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("n_in", "n_out"), [(2, 256), (256, 3), (64, 64), (33, 17), (1, 1)])
def test_rounding_is_that_of_torch(n_in, n_out, threads, generator):
    inputs = draw((3, 700, n_in), n_out, generator)
    grad = torch.randn(3, 700, n_out, generator=generator)
    exact = [v.detach().double().requires_grad_() for v in inputs]
    y = functional.linear(*exact)
    expected = [y.detach(), *torch.autograd.grad(y, exact, grad.double())]
    errors = {}
    with on_threads(threads):
        for way in ("torch", "convolution"):
            y = linear(*inputs, implementation=way)
            found = [y, *torch.autograd.grad(y, inputs, grad)]
            errors[way] = [
                float((a.detach().double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)
            ]
    # Either library sums in an order of its own: over up to 2100 rows, errors that are the same only by their size.
    for ours, theirs in zip(errors["convolution"], errors["torch"], strict=True):
        assert ours < 3 * theirs + 1e-7


def test_convolutions_of_many_numbers_of_rows_have_few_sizes(monkeypatch, generator):
    sizes, conv2d = set(), functional.conv2d
    monkeypatch.setattr(functional, "conv2d", lambda x, *o: (sizes.add((len(x), x.shape[-1])), conv2d(x, *o))[1])
    weight = torch.randn(4, 3, generator=generator)
    for rows in range(1024, 4096, 7):
        x = torch.randn(rows, 3, generator=generator)
        torch.testing.assert_close(linear(x, weight, implementation="convolution"), functional.linear(x, weight))
    assert len(sizes) <= 33
    for rows in (1024, 1536, 4096, 49_152, 768 * 512):  # and the usual numbers are taken as they are
        sizes.clear()
        linear(torch.zeros(rows, 3), weight, implementation="convolution")
        assert {images * pixels for images, pixels in sizes} == {rows}


@pytest.mark.parametrize("change", ["expanded", "transposed", "sliced"])
def test_inputs_and_gradients_need_not_be_contiguous(change, generator):
    x, weight, bias = draw((48, 6), 6, generator, torch.float64)
    other = {
        "expanded": lambda v: v[:1].expand_as(v),
        "transposed": lambda v: v.T.contiguous().T,
        "sliced": lambda v: torch.cat([v, v], 1)[:, : v.shape[1]],
    }[change]
    grad = other(torch.randn(48, 6, generator=generator, dtype=torch.float64))
    y = [
        f(other(x), other(weight), bias)
        for f in (functional.linear, lambda *v: linear(*v, implementation="convolution"))
    ]
    torch.testing.assert_close(y[0], y[1])
    torch.testing.assert_close(
        torch.autograd.grad(y[1], (x, weight, bias), grad), torch.autograd.grad(y[0], (x, weight, bias), grad)
    )


def test_each_product_is_by_the_quicker_way(calls, monkeypatch, generator):
    x, weight, bias = draw((ROWS, 5), 7, generator)
    expected = torch.autograd.grad(functional.linear(x, weight, bias).square().sum(), (x, weight, bias))
    for slow, left in (
        (set(), ["convolve", "convolve", "convolve_outer"]),
        ({(True, 5, 7)}, ["convolve", "convolve"]),  # the weight's gradient
        ({(False, 5, 7)}, ["convolve", "convolve_outer"]),  # forward
        ({(False, 7, 5), (True, 5, 7)}, ["convolve"]),
        ({(False, 5, 7), (False, 7, 5), (True, 5, 7)}, []),
    ):
        monkeypatch.setattr(module, "relative_time", lambda o, r, i, n, t, slow=slow: 1.0 if (o, i, n) in slow else 0.5)
        calls.clear()
        found = torch.autograd.grad(linear(x, weight, bias).square().sum(), (x, weight, bias))
        assert sorted(calls) == left
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_rows_of_zeros_are_added_only_for_large_matrices(calls, generator):
    for width, count in ((127, 0), (128, 1)):
        x, weight, _ = (v.detach() for v in draw((ROWS + 1, width), width, generator))
        torch.testing.assert_close(linear(x, weight), functional.linear(x, weight), rtol=1e-4, atol=1e-4)
        assert len(calls) == count


def test_what_is_not_asked_for_is_not_computed(calls, generator):
    x, weight, _ = draw((ROWS, 5), 7, generator)
    linear(x.detach(), weight).sum().backward()
    assert calls == ["convolve", "convolve_outer"]
    calls.clear()
    linear(x, weight.detach()).sum().backward()
    assert calls == ["convolve", "convolve"]
    calls.clear()
    with torch.no_grad():
        linear(x, weight)
    assert calls == ["convolve"]


def test_torch_does_what_convolutions_should_not(calls, monkeypatch, generator):
    x, weight, bias = (v.detach() for v in draw((ROWS, 5), 7, generator))
    expected = functional.linear(x, weight, bias)
    linear(x[: LEAST_ROWS - 1], weight, bias)
    linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(linear(x, weight, bias, implementation="torch"), expected, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    linear(x, weight, bias)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    precision = torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        linear(x, weight, bias)
    finally:
        torch.backends.mkldnn.conv.fp32_precision = precision
    torch.use_deterministic_algorithms(True)
    try:
        linear(x, weight, bias)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(vmap(lambda v: linear(v, weight, bias))(x), expected)
    torch.testing.assert_close(jacrev(lambda b: linear(x, weight, b).sum(0))(bias), ROWS * torch.eye(7))
    compiled = torch.compile(lambda *v: linear(*v), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight, bias), expected)
    assert not calls
    linear(x, weight, bias)
    assert calls
    with pytest.raises(ValueError, match="implementation must be one of"):
        linear(x, weight, bias, implementation="fast")  # pyright: ignore[reportArgumentType]


def test_a_shape_is_measured_once_for_a_number_of_threads_and_draws_no_random_numbers():
    shape = (False, 1024, 3, 5)
    state = torch.get_rng_state()
    for threads in (1, 2):
        with on_threads(threads):
            first = module.relative_time(*shape, threads)
            assert first > 0
            assert module.relative_time(*shape, threads) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_use_it(calls, monkeypatch, generator):
    mlp = CoordinateMLP(2, 3, hidden_features=8, hidden_layers=2, generator=generator)
    x = torch.randn(ROWS, 2, generator=generator)
    y = mlp(x)
    assert calls == ["convolve"] * 3
    y.square().sum().backward()
    found = [p.grad.clone() for p in mlp.parameters()]
    mlp.zero_grad()
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    expected = mlp(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    for mine, theirs in zip(found, (p.grad for p in mlp.parameters()), strict=True):
        assert float((mine - theirs).norm()) <= 1e-4 * float(theirs.norm())
