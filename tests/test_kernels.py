import numpy as np
import pytest
import torch
from torch.func import jacfwd, jacrev, vmap

from staf_nerf.kernels import reference, staf
from tests.reference import oracles


def draw(shape, parameter_shape, generator, dtype=torch.float64, omega=3.0):
    z = torch.randn(shape, generator=generator, dtype=dtype)
    amplitude = torch.randn(parameter_shape, generator=generator, dtype=dtype)
    frequency = omega * torch.rand(parameter_shape, generator=generator, dtype=dtype)
    phase = torch.randn(parameter_shape, generator=generator, dtype=dtype)
    return [x.requires_grad_() for x in (z, amplitude, frequency, phase)]


@pytest.mark.parametrize("parameter_shape", [(1,), (5,), (3, 4)])
@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 3, 4), (0, 4)])
def test_values_equal_the_sum_written_as_a_loop(shape, parameter_shape, generator):
    inputs = draw(shape, parameter_shape, generator)
    expected = oracles.staf(*(x.detach().numpy() for x in inputs))
    # float64: the error of the argument (|θ| < 20) and of a sum of five terms.
    np.testing.assert_allclose(staf(*inputs).detach().numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("parameter_shape", [(1,), (3,), (2, 4)])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (0, 4)])
def test_first_and_second_derivatives_are_exact(shape, parameter_shape, generator):
    inputs = draw(shape, parameter_shape, generator)
    assert torch.autograd.gradcheck(staf, inputs, check_batched_grad=False)
    assert torch.autograd.gradgradcheck(staf, inputs)


def test_third_derivative_in_z_is_minus_the_frequency_squared_times_the_first(generator):
    z = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    first = torch.autograd.grad(staf(z, one, 2.0 * one, 0.3 * one).sum(), z, create_graph=True)[0]
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


def test_vmap_over_points_and_over_parameters(generator):
    z, *parameters = (x.detach() for x in draw((6, 4), (3,), generator))
    torch.testing.assert_close(vmap(lambda row: staf(row, *parameters))(z), staf(z, *parameters))
    stacked = [torch.stack([p, 2 * p]) for p in parameters]
    both = vmap(lambda *sets: staf(z, *sets))(*stacked)
    torch.testing.assert_close(both, torch.stack([staf(z, *parameters), staf(z, *(2 * p for p in parameters))]))


def test_blocks_give_the_values_and_gradients_of_the_whole(generator, monkeypatch):
    inputs = draw((40, 4), (3,), generator)
    whole = torch.autograd.grad(staf(*inputs).square().sum(), inputs)
    monkeypatch.setattr(reference, "BLOCK", 16)
    blocks = torch.autograd.grad(staf(*inputs).square().sum(), inputs)
    torch.testing.assert_close(blocks, whole)  # the order of summation differs: float64 rounding


def test_backward_keeps_z_alone(generator):
    z, *parameters = draw((1000, 8), (16,), generator)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        staf(z, *parameters)
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
    with pytest.raises(ValueError, match=r"one shape, got \(3,\), \(2,\), \(3,\)"):
        staf(z, torch.zeros(3), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"got \(3, 5\) with z of shape \(2, 4\)"):
        staf(z, *(torch.zeros(3, 5) for _ in range(3)))


def test_float32_is_as_good_as_torch_formula_against_float64(generator):
    for scale in (1.0, 1e2, 1e4):
        z = scale * torch.randn(4000, 4, generator=generator)
        one = torch.ones(1)
        exact = torch.sin(z.double())
        theirs = (torch.sin(z).double() - exact).abs().max()
        ours = (staf(z, one, one, 0 * one).double() - exact).abs().max()
        assert ours <= theirs
