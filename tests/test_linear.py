"""Linear layers as convolutions: the same numbers, differentiable alike, and used where the processor gains by them."""

import subprocess
import sys

import pytest
import torch
from torch.func import jacrev, vmap
from torch.nn import functional

from staf_nerf import CoordinateMLP
from staf_nerf.bench.timing import on_threads
from staf_nerf.kernels import linear as module
from staf_nerf.kernels.linear import LEAST_ROWS, Processor, Thresholds, linear, prefers_convolution, this_processor

ROWS = LEAST_ROWS + 64
EAGER = Processor("a processor that gains by all convolutions", 1)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The products that convolutions compute, in order, on a processor that gains by them at all sizes."""
    found: list[str] = []
    for name in ("convolve", "convolve_outer"):
        function = getattr(module, name)
        wrapped = lambda *inputs, name=name, function=function: (found.append(name), function(*inputs))[1]  # noqa: E731
        monkeypatch.setattr(module, name, wrapped)
    monkeypatch.setattr(module, "this_processor", lambda: EAGER)
    monkeypatch.setitem(module.MEASURED, EAGER, Thresholds(0, 0, 0))
    monkeypatch.setattr(module, "WIDE", 1)
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
        gains = lambda rows, n_in, n_out, *, outer, processor, slow=slow: (outer, n_in, n_out) not in slow  # noqa: E731
        monkeypatch.setattr(module, "prefers_convolution", gains)
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
    torch.testing.assert_close(vmap(lambda v: linear(v, weight, bias))(x), expected)
    torch.testing.assert_close(jacrev(lambda b: linear(x, weight, b).sum(0))(bias), ROWS * torch.eye(7))
    compiled = torch.compile(lambda *v: linear(*v), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight, bias), expected)
    assert not calls
    linear(x, weight, bias)
    assert calls
    with pytest.raises(ValueError, match="implementation must be one of"):
        linear(x, weight, bias, implementation="fast")  # pyright: ignore[reportArgumentType]


INTEL, ZEN_5, ZEN_4 = Processor("GenuineIntel", 6), Processor("AuthenticAMD", 26), Processor("AuthenticAMD", 25)
CHOICES = [
    # rows, inputs, outputs, of the weights; the processors that use convolutions
    ((16384, 256, 256, False), {ZEN_5, ZEN_4}),
    ((16384, 64, 64, False), {ZEN_5}),
    ((1024, 256, 256, False), {ZEN_5}),
    ((1024, 64, 64, False), set()),
    ((1023, 2048, 2048, False), set()),
    ((65536, 256, 1, False), set()),
    ((65536, 2, 256, False), set()),
    ((16384, 256, 256, True), {ZEN_5}),
    ((1024, 64, 64, True), set()),
    ((16384, 2, 256, True), {ZEN_5, INTEL}),
    ((16384, 8, 64, True), {ZEN_5, INTEL}),
    ((1024, 2, 256, True), set()),
    ((16384, 1, 256, True), set()),
    ((65536, 16, 256, True), set()),
    ((65536, 256, 3, True), set()),
    # numbers of rows to which zeros must be added
    ((16385, 256, 256, False), {ZEN_5, ZEN_4}),
    ((16385, 64, 64, False), set()),
    ((16385, 2, 256, True), set()),
]


@pytest.mark.parametrize(("product", "users"), CHOICES)
def test_the_choice_follows_from_the_product_and_the_processor_alone(product, users, monkeypatch):
    *sizes, outer = product
    monkeypatch.setattr("time.perf_counter", None)  # nothing is timed
    for threads in (1, 2):
        with on_threads(threads):
            for processor in (INTEL, ZEN_5, ZEN_4, Processor("AuthenticAMD", 99), Processor("another", 6), None):
                found = prefers_convolution(*sizes, outer=outer, processor=processor)
                assert found == (processor in users), processor


def test_the_processor_is_what_linux_says_and_none_elsewhere(tmp_path):
    one = "processor\t: {}\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel name\t: AMD EPYC: 2 cores\n\n"
    for text, expected in (
        (one.format(0) + one.format(1), ZEN_5),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", None),  # Arm
        ("vendor_id\t: GenuineIntel\ncpu family\t: unknown\n", None),
        ("", None),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        assert this_processor.__wrapped__(tmp_path / "cpuinfo") == expected  # the function without its cache
    assert this_processor.__wrapped__(tmp_path / "absent") is None


FIT = """
import hashlib, sys, threading, torch
from staf_nerf import CoordinateMLP
from staf_nerf.kernels import linear
processor, is_busy = sys.argv[1:]
if processor != "own":
    linear.this_processor = lambda: linear.Processor("AuthenticAMD", 26) if processor == "Zen 5" else None
torch.set_num_threads(2)
if is_busy == "busy":
    def work():
        while True:
            sum(range(1000))
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    for rows, n_in, n_out in ((2048, 3, 5), (16384, 64, 64), (1024, 256, 256)):
        x = torch.ones(rows, n_in, requires_grad=True)
        linear.linear(x, torch.ones(n_out, n_in, requires_grad=True)).sum().backward()
generator = torch.Generator().manual_seed(0)
model = CoordinateMLP(2, 3, hidden_features=64, hidden_layers=2, generator=generator)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(4):
    x = 2.0 * torch.rand(16384, 2, generator=generator) - 1.0
    loss = (model(x) - x[:, :1]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
weights = torch.cat([p.detach().flatten() for p in model.parameters()])
assert weights.isfinite().all()
print(hashlib.sha256(weights.numpy().tobytes()).hexdigest())
"""


def fit_in_a_process(processor: str, load: str) -> str:
    result = subprocess.run([sys.executable, "-c", FIT, processor, load], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_two_processes_fit_the_same_bits_whatever_else_runs():
    first = fit_in_a_process("own", "quiet")
    assert fit_in_a_process("own", "busy") == first
    by_convolutions = fit_in_a_process("Zen 5", "quiet")
    assert fit_in_a_process("Zen 5", "busy") == by_convolutions
    assert fit_in_a_process("unknown", "quiet") != by_convolutions  # so the choice shows in the bits


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
