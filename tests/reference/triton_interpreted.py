"""Run with TRITON_INTERPRET=1: the Triton kernels on a CPU, against plain torch in float64. Prints errors as JSON.

Triton decides when its module is imported whether kernels are interpreted, so this needs a process of its own.
"""

import json
import sys

import torch

from staf_nerf.kernels import reference, triton

SHAPES = [((1,), (1,)), ((7, 40), (3,)), ((3, 700), (2,)), ((0, 4), (2,)), ((70, 40), (3, 40)), ((2, 3, 4), (2, 4))]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NAMES = ["σ", "z", "C", "Ω", "Φ", "2 grad", "2 z", "2 C", "2 Ω", "2 Φ"]


def compare(shape, parameter_shape, dtype, scale) -> dict[str, float]:
    """Largest error of each result, as a part of the largest value."""
    generator = torch.Generator().manual_seed(0)
    z, grad, vz = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    amplitude, frequency, phase, *v = (torch.randn(parameter_shape, generator=generator) for _ in range(6))
    parameters, none = (amplitude, scale * frequency, phase), torch.empty(0)
    found = [
        triton.forward(z, *parameters, none),
        *triton.backward(grad, z, *parameters, none)[:-1],
        *triton.second(vz, *v, none, grad, z, *parameters, none)[:-1],
    ]
    wide = [x.double() for x in (vz, *v, grad, z, *parameters)]
    value, pullback = torch.func.vjp(reference.staf, *wide[5:])
    expected = [value, *pullback(wide[4]), *reference.second(*wide)]
    assert [x.dtype for x in found] == [*[dtype] * 2, *[torch.float32] * 3, *[dtype] * 2, *[torch.float32] * 3]
    assert [x.shape for x in found] == [x.shape for x in expected]
    return {
        name: float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30)) if b.numel() else 0.0
        for name, a, b in zip(NAMES, found, expected, strict=True)
    }


def special() -> list[float | None]:
    """σ of arguments that are large, or not finite."""
    z, one = torch.tensor([1e5, -99999.7, 1e6, 3e7, float("nan"), float("inf"), 0.5]), torch.ones(1)
    return [None if y != y else y for y in triton.forward(z, one, one, 0 * one, torch.empty(0)).tolist()]


if __name__ == "__main__":
    # Frequencies of 100 only in float32: second derivatives leave what fp16 can hold.
    settings = [(name, 1.0) for name in DTYPES] + [("float32", 100.0)]
    results = [
        {"dtype": name, "scale": scale, "errors": compare(shape, parameters, DTYPES[name], scale)}
        for shape, parameters in SHAPES
        for name, scale in settings
    ]
    json.dump({"cases": results, "special": special()}, sys.stdout)
