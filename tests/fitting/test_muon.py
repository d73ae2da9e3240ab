"""Muon in the parameters' precision: torch's own steps, but for their rounding, and an orthogonal change."""

import copy

import pytest
import torch
from torch import nn

from staf_nerf.fitting.muon import PreciseMuon, orthogonal

SHAPES = [(24, 9), (9, 24), (16, 16)]


def step(kind, matrices, gradients, **options):
    parameters = [nn.Parameter(m.clone()) for m in matrices]
    optimizer = kind(parameters, lr=0.1, **options)
    for draws in gradients:
        for parameter, gradient in zip(parameters, draws, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.0}, {"nesterov": False, "momentum": 0.5, "ns_steps": 3}])
def test_steps_are_torch_s_but_for_bfloat16_s_rounding(options, generator):
    draw = [[torch.randn(shape, generator=generator) for shape in SHAPES] for _ in range(4)]
    ours, _ = step(PreciseMuon, draw[0], draw[1:], **options)
    theirs, _ = step(torch.optim.Muon, draw[0], draw[1:], **options)
    for one, other, start in zip(ours, theirs, draw[0], strict=True):
        moved, expected = one.detach() - start, other.detach() - start
        assert (moved - expected).norm() < 0.03 * expected.norm()
        assert (moved != expected).any()


def test_all_directions_of_a_change_are_nearly_as_long(generator):
    matrix = torch.randn(40, 15, generator=generator, dtype=torch.float64)
    singular = torch.linalg.svdvals(orthogonal(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7))
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(orthogonal(matrix, (1.5, -0.5, 0.0), 30, 1e-7), u @ v)
    assert orthogonal(torch.zeros(3, 4), (1.5, -0.5, 0.0), 5, 1e-7).tolist() == [[0.0] * 4] * 3


def test_a_state_of_torch_s_goes_on_here_and_parameters_without_gradient_stay(generator):
    draw = [[torch.randn(shape, generator=generator) for shape in SHAPES] for _ in range(2)]
    parameters, optimizer = step(torch.optim.Muon, draw[0], draw[1:])
    ours = PreciseMuon(parameters)
    ours.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = [p.detach().clone() for p in parameters]
    parameters[0].grad = None
    assert ours.step(lambda: 2.0) == 2.0
    assert [bool((p != b).any()) for p, b in zip(parameters, before, strict=True)] == [False, True, True]
