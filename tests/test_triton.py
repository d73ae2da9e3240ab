"""The Triton kernels, without a GPU: interpreted for their values, and compiled for GPUs that need not be here."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def interpreted() -> dict:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.reference.triton_interpreted"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_values_and_two_derivatives_equal_plain_torch_in_float64(interpreted):
    assert len(interpreted["cases"]) == 24
    # Half precision is rounded once, at the end, where that is the output's type; sums are float32's always. The
    # interpreter cuts bfloat16 off where a GPU rounds to the nearest.
    rounding = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-7}
    for case in interpreted["cases"]:
        # An argument of 1000 is known to 6e-5; and where there is but one value, it may be small.
        float32 = 1e-4 if case["scale"] == 100.0 else 4e-6
        for name, error in case["errors"].items():
            half = rounding[case["dtype"]] if name in ("σ", "z", "2 grad", "2 z") else 0.0
            assert error <= float32 + half, case


def test_large_arguments_are_right_and_what_is_not_finite_is_nan(interpreted):
    z = torch.tensor([1e5, -99999.7, 1e6, 3e7, math.nan, math.inf, 0.5], dtype=torch.float32)
    for found, x in zip(interpreted["special"], z.tolist(), strict=True):
        assert (found is None) == (not math.isfinite(x))
        assert found is None or found == pytest.approx(math.sin(x), abs=3e-7)


@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("kernel", ["_forward", "_backward", "_second"])
def test_the_kernels_compile_for_gpus_and_use_no_approximate_sine(kernel, per_feature, dtype, capability, tmp_path):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from staf_nerf.kernels import triton as kernels

    rows, columns = kernels.FEATURE_TILE if per_feature else kernels.SHARED_TILE
    constants = {
        "ROWS": rows,
        "COLUMNS": columns,
        "PER_FEATURE": per_feature,
        **({} if per_feature else {"columns": 1}),
    }
    values = dict.fromkeys(("z", "grad", "vz", "out", "to_z", "to_grad"), f"*{dtype}")
    sizes = dict.fromkeys(("rows", "columns", "TERMS"), "i32")
    function = getattr(kernels, kernel)
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else {**values, **sizes}.get(name, "*fp32") for name in names}
    source = ASTSource(
        fn=function, signature=signature, constexprs={(names.index(name),): value for name, value in constants.items()}
    )
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(compiled.asm["cubin"]) > 0
    assert "sin.approx" not in compiled.asm["ptx"]
    assert "cos.approx" not in compiled.asm["ptx"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("parameter_shape", [(5,), (3, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_it_serves_autograd_twice_and_compilation(parameter_shape, dtype, generator):
    from staf_nerf.kernels import staf

    z = torch.randn(300, 40, generator=generator).to("cuda", dtype).requires_grad_()
    parameters = [torch.randn(parameter_shape, generator=generator).cuda().requires_grad_() for _ in range(3)]

    def results(implementation):
        y = staf(z, *parameters, implementation=implementation)
        first = torch.autograd.grad(y.float().square().sum(), (z, *parameters), create_graph=True)
        return [y, *first, *torch.autograd.grad(sum(g.float().square().sum() for g in first), (z, *parameters))]

    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for a, b in zip(results("triton"), results("reference"), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * float(b.detach().float().abs().max()), rtol=tolerance)
    compiled = torch.compile(lambda z: staf(z, *parameters).float().square().sum(), fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(z), z)[0], results("triton")[1])
