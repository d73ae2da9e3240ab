"""Sums along rays: the native functions against plain torch, and both against nerfstudio's."""

import math

import pytest
import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.model_components.losses import lossfun_distortion
from torch.autograd import gradcheck, gradgradcheck

from staf_nerf.kernels import library, rays

SHAPES = [(1, 1), (3, 2), (40, 7), (33, 16), (0, 4)]


def draw(shape, generator, dtype=torch.float64):
    count, n = shape
    edges = torch.rand(count, n + 1, generator=generator, dtype=dtype).sort(-1).values
    return edges, torch.rand(count, n, generator=generator, dtype=dtype)


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr(rays, "_native_fits", lambda *tensors: False)
    elif library.library() is None:
        pytest.skip("needs the compiled library")
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
def test_points_are_the_middles(shape, implementation, generator):
    origins, directions = (torch.randn(shape[0], 3, generator=generator, dtype=torch.float64) for _ in range(2))
    edges, _ = draw(shape, generator)
    found = rays.sample_points(origins, directions, edges[:, :-1], edges[:, 1:])
    middles = edges[:, :-1] + 0.5 * edges.diff(dim=-1)
    torch.testing.assert_close(found, origins[:, None] + directions[:, None] * middles[..., None])
    one = origins.requires_grad_()
    gradient = torch.autograd.grad(rays.sample_points(one, directions, edges[:, :-1], edges[:, 1:]).sum(), one)[0]
    torch.testing.assert_close(gradient, torch.full_like(gradient, shape[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_space_is_contracted_into_a_cube(dtype, implementation):
    points = torch.tensor([[[0.5, -1.0, 0.2], [0.0, 0.0, -4.0]], [[2.0, -1.0, 0.5], [-1e30, 1.0, 0.0]]], dtype=dtype)
    expected = torch.tensor(
        [[[0.5, -1.0, 0.2], [0.0, 0.0, -1.75]], [[1.5, -0.75, 0.375], [-2.0, 2e-30, 0.0]]], dtype=dtype
    )
    torch.testing.assert_close(rays.contract(points), expected)
    assert rays.contract(torch.empty(0, 3, dtype=dtype)).shape == (0, 3)
    assert rays.contract(torch.tensor([[math.nan, 2.0, 0.1]], dtype=dtype)).isnan().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_those_of_the_formula(shape, dtype, implementation, generator):
    depth = 3 * draw(shape, generator, dtype)[1] ** 4
    exact = depth.double()
    expected = (1 - torch.exp(-exact)) * torch.exp(exact - exact.cumsum(-1))
    found = rays.sample_weights(depth)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-7 if dtype == torch.float32 else 1e-15)


def test_weights_are_nerfstudio_s(implementation, generator):
    lengths, density = (torch.rand(20, 9, 1, generator=generator) for _ in range(2))
    density *= 20
    samples = RaySamples.__new__(RaySamples)
    samples.deltas = lengths
    torch.testing.assert_close(
        rays.sample_weights((lengths * density)[..., 0]), samples.get_weights(density)[..., 0], rtol=1e-5, atol=2e-7
    )


def test_weights_of_empty_and_opaque_and_undefined_samples(implementation):
    depth = torch.tensor([[0.0, 0.0, 1e30, 5.0], [math.inf, 1.0, 0.0, 0.0], [0.1, math.nan, 0.1, 0.1]])
    found = rays.sample_weights(depth)
    assert found[:2].tolist() == [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert found[2].isnan().tolist() == [False, True, True, True]


def test_weights_and_distortion_have_exact_derivatives(implementation, generator):
    edges, weights = draw((5, 6), generator)
    weights.requires_grad_()
    assert gradcheck(rays.sample_weights, weights)
    assert gradgradcheck(rays.sample_weights, weights)
    assert gradcheck(lambda w: rays.distortion(edges, w), weights)
    assert gradgradcheck(lambda w: rays.distortion(edges, w), weights)
    assert gradcheck(rays.distortion, (edges.requires_grad_(), weights))


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_the_distortion_is_nerfstudio_s(shape, implementation, generator):
    edges, weights = draw(shape, generator)
    weights.requires_grad_()
    found, expected = rays.distortion(edges, weights), lossfun_distortion(edges, weights)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), weights)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(rays.distortion(edges.float(), weights.float()).double(), found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_edges", [2, 30])
def test_new_edges_stand_where_the_distribution_is_reached(shape, num_edges, implementation, generator):
    edges, weights = draw(shape, generator)
    shift = torch.rand(len(edges), 1, generator=generator, dtype=torch.float64)
    found = rays.resample(edges, weights, shift, num_edges, padding=0.1)
    assert found.shape == (len(edges), num_edges)
    padded = (weights + 0.1) / (weights + 0.1).sum(-1, keepdim=True)
    reached = ((found[:, :, None] - edges[:, None, :-1]) / edges.diff(dim=-1)[:, None]).clamp(0, 1)
    expected = (torch.arange(num_edges) + shift) / num_edges
    torch.testing.assert_close((reached * padded[:, None]).sum(-1), expected)


def test_new_edges_stay_within_the_old_ones_in_order(implementation, generator):
    edges, weights = draw((200, 16), generator, torch.float32)
    weights *= (weights > 0.9) * 100.0
    found = rays.resample(edges, weights, torch.full((200, 1), 1 - 2**-24), 300)
    assert (found >= edges[:, :1]).all()
    assert (found <= edges[:, -1:]).all()
    assert (found.diff(dim=-1) >= 0).all()
    assert rays.resample(edges, weights * math.nan, torch.zeros(200, 1), 5).isnan().any()
    lopsided = torch.tensor([1e9, *[0.0] * 15]).expand(200, 16)  # beside it the others' share is rounded to nothing
    assert (rays.resample(edges, lopsided, torch.ones(200, 1), 4) <= edges[:, -1:]).all()


def test_shapes_that_broadcast_give_the_reference_s_values(generator):
    edges, weights = draw((4, 5), generator)
    starts, ends = edges[:, :-1], edges[:, 1:]
    origin, directions = (
        torch.randn(1, 3, generator=generator).double(),
        torch.randn(4, 3, generator=generator).double(),
    )
    expected = rays.sample_points(origin.expand(4, 3), directions, starts, ends)
    torch.testing.assert_close(rays.sample_points(origin, directions, starts, ends), expected)
    expected = rays.sample_points(origin.expand(4, 3), directions, starts[:1].expand(4, 5), ends)
    torch.testing.assert_close(rays.sample_points(origin, directions, starts[:1], ends), expected)
    losses = rays.distortion(edges[:1].expand(4, 6), weights)
    torch.testing.assert_close(rays.distortion(edges[:1], weights), losses)


def test_other_shapes_are_refused_by_name(implementation, generator):
    edges, weights = draw((4, 5), generator)
    shift = torch.zeros(4, 1, dtype=torch.float64)
    for wrong in (edges[:, :-1], torch.cat([edges, edges], 1)):
        with pytest.raises(ValueError, match=r"edges must have shape \(R, n \+ 1\) with weights of shape \(R, n\)"):
            rays.resample(wrong, weights, shift, 7)
        with pytest.raises(ValueError, match=r"edges must have shape \(R, n \+ 1\) with weights of shape \(R, n\)"):
            rays.distortion(wrong, weights)
    with pytest.raises(ValueError, match="n >= 1"):
        rays.resample(edges[:, :1], weights[:, :0], shift, 7)
    with pytest.raises(ValueError, match=r"points must have shape \(..., 3\), got \(2, 6\)"):
        rays.contract(torch.zeros(2, 6))
    for wrong in (shift[:2], shift[:, 0]):
        with pytest.raises(RuntimeError):
            rays.resample(edges, weights, wrong, 7)


def test_native_and_reference_agree_under_compilation_s_and_torch_func_s_rules(generator):
    depth = draw((6, 5), generator)[1]
    jacobian = torch.func.jacrev(rays.sample_weights)(depth)
    expected = torch.autograd.functional.jacobian(rays.sample_weights, depth)
    torch.testing.assert_close(jacobian, expected)
    torch.testing.assert_close(torch.func.vmap(rays.sample_weights)(depth[None])[0], rays.sample_weights(depth))
