import itertools
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from staf_nerf import encodings
from staf_nerf.encodings import FourierFeatures, HashGrid, Identity, SphericalHarmonics, finest_cell
from staf_nerf.kernels import hash_grid, library
from tests.conftest import opcheck
from tests.reference import oracles

SMALL = {"num_levels": 5, "log2_table_size": 8, "base_resolution": 3, "max_resolution": 40}


def grid(dimensions, generator, **changes):
    made = HashGrid(dimensions, **{**SMALL, **changes}, generator=generator).double()
    with torch.no_grad():
        made.table.copy_(torch.randn(made.table.shape, generator=generator, dtype=torch.float64))
    return made


def tables(made):
    starts = [*made.offsets.tolist(), len(made.table)]
    return [made.table[a:b].detach().numpy() for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hash_grid_equals_the_definition_in_uint32_arithmetic(dimensions, generator):
    made = grid(dimensions, generator)
    assert 0 < made.num_dense < 5  # both kinds of levels are there
    x = 2 * torch.rand(40, dimensions, generator=generator) - 1
    x[0], x[1] = -1.0, 1.0
    growth = (40 / 3) ** (1 / 4)
    expected = [oracles.hash_grid(p.numpy(), tables(made), 3, growth, 8) for p in (0.5 * x + 0.5)]
    # The position is formed in float32 by both, its fractions then differ by an ulp of 40: 4e-6, times the table.
    np.testing.assert_allclose(made(x).detach().numpy(), np.stack(expected), rtol=0, atol=5e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hash_grid_gradients_reach_table_and_positions_twice(dimensions, generator):
    made = grid(dimensions, generator, num_levels=3, log2_table_size=5)
    x = (1.8 * torch.rand(4, dimensions, generator=generator, dtype=torch.float64) - 0.9).requires_grad_()
    table = made.table.detach().clone().requires_grad_()

    def encode(x, table):
        return torch.func.functional_call(made, {"table": table}, (x,))

    assert torch.autograd.gradcheck(encode, (x, table), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradgradcheck(encode, (x, table), eps=1e-7, atol=1e-4)


def test_hash_grid_is_continuous_across_cells(generator):
    made = grid(3, generator)
    x = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64)
    steps = made(x).diff(dim=0).abs().max()
    # Finest cells are 2/40 wide and values differ by at most about 8: the steepest slope times the step.
    assert steps < 8 * 3 * 40 / 2 * 1e-4


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 3), (2, 4, 3)])
def test_hash_grid_takes_any_leading_shape(shape, generator):
    made = HashGrid(3, **SMALL, generator=generator)
    y = made(torch.zeros(shape))
    assert y.shape == (*shape[:-1], 10)
    y.sum().backward()
    assert made.table.grad is not None


def test_positions_outside_are_clamped(generator):
    made = grid(3, generator)
    far, edge = torch.tensor([[5.0, -7.0, 0.3]]), torch.tensor([[1.0, -1.0, 0.3]])
    assert torch.equal(made(far), made(edge))


def test_feature_scale_multiplies_the_features():
    plain, scaled = (
        HashGrid(3, **SMALL, feature_scale=s, generator=torch.Generator().manual_seed(1)) for s in (1.0, 10.0)
    )
    x = torch.rand(5, 3)
    torch.testing.assert_close(scaled(x), 10.0 * plain(x))


@pytest.mark.parametrize(("dimensions", "features"), [(3, 2), (3, 1), (3, 4), (2, 2), (2, 3)])
@pytest.mark.parametrize("points", [0, 1, 16, 700])
@pytest.mark.usefixtures("instructions")
def test_the_native_hash_grid_equals_the_reference_to_second_derivatives(
    points, dimensions, features, generator, monkeypatch
):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    made = HashGrid(dimensions, **{**SMALL, "features_per_level": features}, generator=generator)
    made.table.data.mul_(1e4)
    weights = torch.randn(points, made.out_features, generator=generator)
    directions = torch.randn(points, dimensions, generator=generator)
    spread = 2 * torch.rand(points, dimensions, generator=generator) - 1

    def results():
        x = spread.clone().requires_grad_()
        y = made(x)
        first = torch.autograd.grad((y.square() * weights).sum(), (x, made.table), create_graph=True)
        along = (first[0] * directions).sum() + first[1].square().sum()
        return [y, *first, *torch.autograd.grad(along, (x, made.table))]

    found = results()
    monkeypatch.setattr(library, "serves", lambda: False)
    for a, b in zip(found, results(), strict=True):  # float32, sums in another order
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max() if b.numel() else 0.0), rtol=1e-4)


@pytest.mark.parametrize("only_points", [False, True])
def test_the_native_hash_grid_equals_the_reference_in_third_derivatives(only_points, generator, monkeypatch):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    made = HashGrid(3, **SMALL, generator=generator)
    made.table.data.mul_(1e4)
    spread = 2 * torch.rand(50, 3, generator=generator) - 1
    v, w = torch.randn(2, 50, 3, generator=generator)

    def results():
        x = spread.clone().requires_grad_()
        inputs = (x,) if only_points else (x, made.table)
        first = torch.autograd.grad(made(x).pow(3).sum(), inputs, create_graph=True)
        along = (first[0] * v).square().sum() + sum(g.square().sum() for g in first[1:])
        second = torch.autograd.grad(along, inputs, create_graph=True)
        return [*second, *torch.autograd.grad((second[0] * w).sum(), (x, made.table))]

    found = results()
    monkeypatch.setattr(library, "serves", lambda: False)
    for a, b in zip(found, results(), strict=True):  # float32, sums in another order
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("layout", [lambda x: x.T, lambda x: x.T[::2], lambda x: x.movedim(0, -1)])
def test_the_native_hash_grid_takes_any_memory_layout(layout, generator):
    made = grid(3, generator).float()
    x = (2 * torch.rand(3, 50, generator=generator) - 1).requires_grad_()
    table = made.table.detach().T.contiguous().T.requires_grad_()
    results = []
    for points in (layout(x), layout(x).contiguous()):
        for rows in (table, table.contiguous()):
            y = torch.func.functional_call(made, {"table": rows}, (points,))
            results.append(torch.autograd.grad(y.square().sum(), (x, table)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_float64_points_take_a_float32_table(generator):
    made = HashGrid(3, **SMALL, generator=generator)
    x = (2 * torch.rand(9, 3, generator=generator, dtype=torch.float64) - 1).requires_grad_()
    gradients = torch.autograd.grad(made(x).square().sum(), (x, made.table))
    assert [g.dtype for g in gradients] == [torch.float64, torch.float32]


def test_the_native_hash_grid_does_not_depend_on_threads_and_survives_nan(generator):
    made, x = grid(3, generator).float(), 2 * torch.rand(999, 3, generator=generator) - 1
    x[17, 1] = float("nan")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            y = made(x)
            found.append([y, *torch.autograd.grad(y[18:].square().sum(), made.table)])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, atol=0, rtol=0, equal_nan=True)
    assert found[0][0][17].isnan().all()
    assert found[0][0][18:].isfinite().all()


def test_native_hash_grid_operators_obey_torch_s_rules(generator):
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    made = grid(3, generator).float()
    x = torch.rand(5, 3, generator=generator, requires_grad=True)
    levels = (made.scales, made.multipliers, made.rows, made.offsets, made.num_dense)
    opcheck(hash_grid.hash_grid_features.operator, (x, made.table, *levels))
    grad = torch.randn(5, made.out_features, generator=generator, requires_grad=True)
    opcheck(hash_grid.hash_grid_backward.operator, (grad, x, made.table, *levels, True, True))
    v = (torch.randn(5, 3, generator=generator, requires_grad=True), torch.randn_like(made.table).requires_grad_())
    opcheck(hash_grid.hash_grid_second.operator, (*v, grad, x, made.table, *levels), nests_vjps=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hash_grid_s_arrays_of_another_shape_or_type_are_refused_by_name(dtype, generator):
    made = grid(3, generator)
    arrays = {
        "points": torch.rand(5, 3, generator=generator).to(dtype),
        "table": made.table.detach().to(dtype),
        "scales": made.scales.to(dtype),
        "multipliers": made.multipliers,
        "rows": made.rows,
        "offsets": made.offsets,
        "num_dense": made.num_dense,
    }
    assert hash_grid.hash_grid(**arrays).shape == (5, 10)
    wrong = [
        ("points", torch.rand(5, 4).to(dtype)),
        ("points", torch.rand(5).to(dtype)),
        ("points", torch.rand(5, 2).to(dtype)),
        ("table", arrays["table"].flatten()),
        ("scales", arrays["scales"][:1]),
        ("multipliers", made.multipliers.T),
        ("multipliers", made.multipliers.long()),
        ("rows", made.rows[:4]),
        ("offsets", made.offsets.long()),
        ("num_dense", 6),
        ("num_dense", -1),
    ]
    for name, value in wrong:
        # Levels of another dimension or number are named for the array that does not agree with the others.
        with pytest.raises(ValueError, match=r"(points|table|scales|multipliers|rows|offsets|num_dense) must"):
            hash_grid.hash_grid(**{**arrays, name: value})
    if dtype == torch.float32 and library.library() is not None:
        for name, value in (("table", arrays["table"][:-1]), ("rows", 0 * made.rows), ("offsets", made.offsets - 1)):
            with pytest.raises(ValueError, match="each level must have rows that lie within the table"):
                hash_grid.hash_grid(**{**arrays, name: value})


def test_scaled_coordinates_follow_the_features(generator):
    plain, made = (
        HashGrid(3, **SMALL, coordinate_scale=s, generator=torch.Generator().manual_seed(1)) for s in (0.0, 3.0)
    )
    x = (2 * torch.rand(2, 5, 3, generator=generator) - 1).requires_grad_()
    y = made(x)
    assert y.shape[-1] == made.out_features == plain.out_features + 3
    assert torch.equal(y[..., :-3], plain(x))
    torch.testing.assert_close(y[..., -3:], 3.0 * x)
    (gradient,) = torch.autograd.grad(y[..., -3:].sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 3.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 4}, "in_features must be 2 or 3, got 4"),
        ({"num_levels": 0}, "num_levels must be >= 1, got 0"),
        ({"log2_table_size": 40}, "log2_table_size must be between 1 and 30, got 40"),
        ({"base_resolution": 64, "max_resolution": 8}, "base_resolution=64, max_resolution=8"),
        ({"implementation": "cuda"}, "implementation must be 'auto', 'tcnn' or 'torch', got 'cuda'"),
    ],
)
def test_bad_hash_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HashGrid(**{"in_features": 3, **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_without_cuda_auto_is_torch_and_silent_and_tcnn_is_an_error(capsys):
    assert HashGrid(3, **SMALL, implementation="auto").tcnn is None
    assert capsys.readouterr().out == ""
    with pytest.raises(RuntimeError, match="needs tiny-cuda-nn's torch bindings and a CUDA device"):
        HashGrid(3, **SMALL, implementation="tcnn")


def test_absence_of_tiny_cuda_nn_on_a_gpu_prints_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    encodings._import_tcnn.cache_clear()
    assert [encodings.choose_implementation("auto") for _ in range(3)] == ["torch"] * 3
    assert len(capsys.readouterr().out.splitlines()) == 1
    encodings._import_tcnn.cache_clear()


def test_identity_returns_the_coordinates():
    x = torch.rand(4, 2)
    assert Identity(2)(x) is x


def test_octaves_are_sines_and_cosines_of_powers_of_two():
    encoding = FourierFeatures(2, num_frequencies=3, kind="octaves", include_input=True)
    x, y = 0.3, -0.7
    arguments = [math.pi * 2**k * v for v in (x, y) for k in range(3)]
    expected = [x, y, *map(math.sin, arguments), *map(math.cos, arguments)]
    torch.testing.assert_close(encoding(torch.tensor([x, y])), torch.tensor(expected))
    assert encoding.out_features == 14


def test_random_fourier_features_give_a_gaussian_kernel(generator):
    encoding = FourierFeatures(1, num_frequencies=20_000, scale=0.5, generator=generator)
    x = torch.tensor([[0.0], [0.1], [0.4]])
    features = encoding(x)
    kernel = features @ features[0] / 20_000
    expected = torch.exp(-2 * (math.pi * 0.5 * x[:, 0]) ** 2)
    torch.testing.assert_close(kernel, expected, atol=5 / math.sqrt(20_000), rtol=0)  # five deviations of a mean


def test_spherical_harmonics_are_orthonormal(generator):
    directions = torch.randn(400_000, 3, generator=generator, dtype=torch.float64)
    values = SphericalHarmonics()(directions / directions.norm(dim=-1, keepdim=True))
    gram = 4 * math.pi * values.T @ values / len(values)
    # Means of 400 000 draws of products with a deviation of about 1.5.
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=0.015, rtol=0)


def test_the_finest_cell_of_a_network_is_that_of_its_finest_grid_and_none_without_a_grid():
    assert finest_cell(nn.Sequential(HashGrid(2, max_resolution=64), HashGrid(3, max_resolution=128))) == 2 / 128
    assert finest_cell(nn.Sequential(Identity(3), nn.Linear(3, 3))) is None
