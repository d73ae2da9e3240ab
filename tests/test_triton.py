"""The Triton kernels, without a GPU: interpreted for their values, and compiled for GPUs that need not be here."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

ROOT = Path(__file__).resolve().parent.parent


def interpret(module: str) -> Any:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"tests.reference.{module}"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def interpreted() -> dict:
    return interpret("triton_interpreted")


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


def test_the_hash_grid_and_two_derivatives_equal_plain_torch_in_float64():
    for errors in interpret("triton_hash_grid_interpreted"):
        # Where a point lies in one of 40 cells is known to 2 ** -24 * 40 in float32.
        assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("kernel", ["_forward", "_backward", "_second"])
def test_the_kernels_compile_for_gpus_and_use_no_approximate_sine(kernel, per_feature, dtype, capability, tmp_path):
    from staf_nerf.kernels import triton as kernels

    rows, columns = kernels.FEATURE_TILE if per_feature else kernels.SHARED_TILE
    constants = {
        "ROWS": rows,
        "COLUMNS": columns,
        **({} if per_feature else {"columns": 1}),
    }
    values = dict.fromkeys(("z", "grad", "vz", "out", "to_z", "to_grad"), f"*{dtype}")
    sizes = dict.fromkeys(("rows", "columns", "TERMS"), "i32")
    function = getattr(kernels, kernel)
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else {**values, **sizes}.get(name, "*fp32") for name in names}
    compiled = compile_for(capability, function, signature, constants, tmp_path, num_warps=kernels.WARPS)
    assert "sin.approx" not in compiled.asm["ptx"]
    assert "cos.approx" not in compiled.asm["ptx"]


@pytest.mark.parametrize("capability", [80])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kernel", ["_forward", "_backward", "_second"])
def test_the_hash_grid_s_kernels_compile_for_gpus(kernel, dimensions, capability, tmp_path):
    from staf_nerf.kernels import triton_hash_grid as kernels

    function = getattr(kernels, kernel)
    flags = [name for name in function.arg_names if name.startswith(("TO_", "OF_"))]
    constants = {"DIMS": dimensions, "FEATURES": 2, "BLOCK": kernels.BLOCK, **dict.fromkeys(flags, True)}
    types = dict.fromkeys(("count", "LEVELS", "num_dense"), "i32")
    types |= dict.fromkeys(("multipliers", "rows", "offsets"), "*i32")
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in function.arg_names}
    compile_for(capability, function, signature, constants, tmp_path)


def compile_for(capability: int, function, signature: dict, constants: dict, cache: Path, **options):
    """A kernel compiled for a GPU of that compute capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constexprs = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=constexprs)
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(cache)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert len(compiled.asm["cubin"]) > 0
    return compiled
