"""What needs a CUDA device: the Triton kernels as a GPU computes them, and fits and radiance fields trained there."""

import math

import numpy as np
import pytest
import torch

from staf_nerf.config import FieldConfig, FitConfig, HashGridConfig, IdentityConfig, ImageConfig
from staf_nerf.encodings import HashGrid
from staf_nerf.fitting.loop import fit
from staf_nerf.kernels import staf, triton_is_here
from staf_nerf.metrics.image import image_psnr
from staf_nerf.signals.image import ImageSignal, image_field
from staf_nerf.signals.raster import Raster
from tests.test_kernels import draw, errors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture
def has_triton() -> None:
    if not triton_is_here():
        pytest.skip("Triton, its C compiler, or a device that it serves is missing")


@pytest.mark.parametrize("parameter_shape", [(3,), (3, 4)])
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.usefixtures("has_triton")
def test_float32_is_as_good_as_torch_formula_against_float64(scale, parameter_shape, generator):
    draws = []
    for _ in range(20):
        z, *parameters = draw((500, 4), parameter_shape, generator, dtype=torch.float32)
        draws.append([(scale * z).cuda(), *(x.cuda() for x in parameters)])

    def ours(*inputs):
        return staf(*inputs, implementation="triton" if inputs[0].dtype == torch.float32 else "reference")

    def formula(z, amplitude, frequency, phase):
        return sum(c * torch.sin(w * z + p) for c, w, p in zip(amplitude, frequency, phase, strict=True))

    # As on a CPU: the argument is rounded once, by torch twice.
    found, expected = errors(ours, draws), errors(formula, draws)
    assert all(a <= max(b, 1.2e-7) for a, b in zip(found[:2], expected[:2], strict=True)), (found, expected)
    assert all(a <= max(2 * b, 1.2e-7) for a, b in zip(found[2:], expected[2:], strict=True)), (found, expected)


@pytest.mark.usefixtures("has_triton")
def test_large_arguments_are_right_and_what_is_not_finite_is_nan():
    z = torch.tensor([1e5, -99999.7, 1e6, 3e7, math.nan, math.inf, -math.inf, 0.5], device="cuda")
    one = torch.ones(1, device="cuda")
    for found, x in zip(staf(z, one, one, 0 * one, implementation="triton").tolist(), z.tolist(), strict=True):
        assert math.isnan(found) if not math.isfinite(x) else found == pytest.approx(math.sin(x), abs=3e-7)


@pytest.mark.parametrize("shape", [(300, 40), (5000, 3, 40)])
@pytest.mark.parametrize("parameter_shape", [(5,), (64,), (3, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.usefixtures("has_triton")
def test_values_and_two_derivatives_equal_plain_torch_twice_alike(shape, parameter_shape, dtype, generator):
    z = torch.randn(shape, generator=generator).to("cuda", dtype).requires_grad_()
    parameters = [torch.randn(parameter_shape, generator=generator).cuda().requires_grad_() for _ in range(3)]

    def results(implementation):
        y = staf(z, *parameters, implementation=implementation)
        first = torch.autograd.grad(y.float().square().mean(), (z, *parameters), create_graph=True)
        return [y, *first, *torch.autograd.grad(sum(g.float().square().sum() for g in first), (z, *parameters))]

    found = results("triton")
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for a, b in zip(found, results("reference"), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * float(b.detach().float().abs().max()), rtol=tolerance)
    assert all(torch.equal(a, b) for a, b in zip(found, results("triton"), strict=True))


@pytest.mark.usefixtures("has_triton")
def test_a_compiled_function_equals_the_eager_one(generator):
    z, *parameters = (x.detach().cuda().requires_grad_() for x in draw((300, 40), (5,), generator, torch.float32))

    def loss(z):
        return staf(z, *parameters).square().sum()

    compiled = torch.compile(loss, fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(z), z), torch.autograd.grad(loss(z), z))


def test_the_hash_grid_equals_a_cpu_s_to_second_derivatives(generator):
    grid = HashGrid(3, num_levels=6, log2_table_size=12, implementation="torch", generator=generator)
    x = 2.0 * torch.rand(500, 3, generator=generator) - 1.0
    results = []
    for device in ("cpu", "cuda"):
        grid, points = grid.to(device), x.to(device, copy=True).requires_grad_()
        y = grid(points)
        first = torch.autograd.grad(y.square().sum(), (points, grid.table), create_graph=True)
        results.append([y, *first, *torch.autograd.grad(first[0].square().sum(), (points, grid.table))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.cpu(), a, atol=1e-5 * float(a.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("encoding", [IdentityConfig(), HashGridConfig(num_levels=6, log2_table_size=10)])
def test_a_picture_is_learned_as_well_as_on_a_cpu(encoding):
    x = np.linspace(0, 4 * math.pi, 64)
    waves = 127 + 60 * np.sin(x)[:, None, None] * np.cos(2 * x)[None, :, None] * np.array([1.0, 0.5, -1.0])
    pixels = waves.astype(np.uint8)
    field = FieldConfig(encoding=encoding, hidden_features=32, hidden_layers=2)
    config = ImageConfig(field=field, fit=FitConfig(steps=400, points=1024))
    scores = []
    for device in ("cpu", "cuda"):
        model = image_field(config, Raster.of(pixels), generator=torch.Generator().manual_seed(0)).to(device)
        fit(model, ImageSignal(pixels, config, device=device), config.fit)
        scores.append(image_psnr(model, Raster.of(pixels), pixels, device=device))
    assert min(scores) > 35
    assert scores[1] > scores[0] - 1.0


def test_a_radiance_field_trains_in_mixed_precision(tmp_path):
    from staf_nerf.plugin import run
    from staf_nerf.plugin.methods import trainer_config
    from staf_nerf.presets import load_preset, resource

    config = trainer_config("staf-nerf", load_preset("staf-nerf", "cuda"), "cuda")
    config.pipeline.datamanager.data = resource("scenes") / "tin_robot"
    config.output_dir, config.experiment_name = tmp_path, "robot"
    made = run.set_up(config, seed=0)
    assert made.mixed_precision
    losses = [float(made.train_iteration(step)[0]) for step in range(100)]
    network = dict(made.pipeline.model.named_parameters())
    dead = [name for name, p in network.items() if p.numel() and (p.grad is None or not p.grad.isfinite().all())]
    assert not dead
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
    assert made.grad_scaler.get_scale() >= 2.0**10  # few steps were left out for gradients beyond half precision
