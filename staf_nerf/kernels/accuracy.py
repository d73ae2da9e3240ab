"""Errors of the C library's kernels on this machine, against plain torch in float64.

A compiler's flags can undo what the kernels rely on: that a product and a sum are rounded together, for example. Then
results are slightly wrong, and nothing else would show it.

Inputs have few digits, so that even large arguments of sines are exact in float32. The kernels' own errors remain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from staf_nerf.kernels import hash_grid, library, native, native_hash_grid, rays, reference
from staf_nerf.kernels.pointwise import FORMULAS, HIGHEST_ORDER, KINDS
from staf_nerf.kernels.signatures import Levels

BOUND = 64.0
"""Largest error of kernels that are right, in roundings: four times the largest that was seen."""


@dataclass(frozen=True)
class Family:
    """Kernels that are measured together."""

    draw: Callable[[Generator], tuple[Tensor, ...]]
    """Draws the inputs, in float64."""
    kernels: Callable[..., Sequence[Tensor]]
    formulas: Callable[..., Sequence[Tensor]]
    """Computes in plain torch what the kernels compute, from the same inputs."""
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    """Precisions of the kernels."""


def largest_errors() -> dict[str, dict[str, float]]:
    """Returns the largest error of each family of kernels, by instruction set and family. The library must be present.

    An error is relative to the largest value of its tensor. Its unit is the spacing of numbers at one, in the precision
    of the kernel: 1.2e-7 in float32. All instruction sets of this processor are tried.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are small: other threads would only be waited for
    try:
        by_family = {name: _errors(family) for name, family in FAMILIES.items()}
    finally:
        torch.set_num_threads(threads)
    levels = range(library.best_level() + 1)
    return {library.LEVELS[level]: {name: errors[level] for name, errors in by_family.items()} for level in levels}


def _errors(family: Family) -> list[float]:
    """Returns the largest error of a family at each instruction set."""
    inputs, errors = family.draw(torch.Generator().manual_seed(0)), []
    exact = family.formulas(*inputs)
    for level in range(library.best_level() + 1):
        with library.at_level(level):
            errors.append(max(_error(family.kernels(*_cast(inputs, dtype)), exact) for dtype in family.dtypes))
    return errors


def _cast(inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


def _error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Returns the largest relative error, in roundings. That of NaN is infinite."""
    errors = [
        (a.double() - b).abs().max() / b.abs().max() / torch.finfo(a.dtype).eps
        for a, b in zip(found, exact, strict=True)
        if a.numel()
    ]
    return float(torch.stack(errors).nan_to_num(nan=torch.inf).max())


def _digits(*shape: int, generator: Generator) -> Tensor:
    """Draws multiples of 1/32 between -4 and 4."""
    return torch.randint(-128, 129, shape, generator=generator).double() / 32.0


def _two_derivatives(
    function: Callable[..., Tensor], directions: tuple[Tensor, ...], grad: Tensor, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """Returns the value of a function, the gradients of <grad, value>, and the gradients of <directions, those>."""
    variables = [x.clone().requires_grad_() for x in (grad, *inputs)]
    value = function(*variables[1:])
    first = torch.autograd.grad(value, variables[1:], variables[0], create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(first, variables, directions, materialize_grads=True)
    return value.detach(), *(x.detach() for x in first), *second


# --- the Fourier sum -------------------------------------------------------------------------------------------------


def _draw_sums(generator: Generator) -> tuple[Tensor, ...]:
    """Draws the inputs of `fourier_sum_second`, with arguments up to 7e4 and a bias."""
    z, bias = 16.0 * _digits(200, 13, generator=generator), _digits(13, generator=generator)
    frequency = torch.tensor([1.0, -2.0, 0.5, 64.0, 1024.0], dtype=torch.float64)
    inputs = (z, _digits(5, generator=generator), frequency, _digits(5, generator=generator), bias)
    directions = (_digits(*x.shape, generator=generator) for x in inputs)
    return *directions, _digits(*z.shape, generator=generator), *inputs


def _draw_sums_per_neuron(generator: Generator) -> tuple[Tensor, ...]:
    """Draws as `_draw_sums`, with parameters for each feature and no bias."""
    rows, features, terms = 200, 13, 5
    vz, grad, z = (_digits(rows, features, generator=generator) for _ in range(3))
    v_amplitude, v_frequency, v_phase, amplitude, phase = (
        _digits(terms, features, generator=generator) for _ in range(5)
    )
    frequency = (64.0 * _digits(terms, features, generator=generator)).round()
    none = z.new_empty(0)
    return vz, v_amplitude, v_frequency, v_phase, none, grad, z, amplitude, frequency, phase, none


def _draw_for_table(generator: Generator) -> tuple[Tensor, ...]:
    """Draws as `_draw_sums`, with values enough for the interpolation table, and directions of z alone."""
    vz, grad, z = (_digits(1200, 16, generator=generator) for _ in range(3))
    amplitude, frequency, phase = (_digits(32, generator=generator) for _ in range(3))
    bias, zeros = _digits(16, generator=generator), z.new_zeros(32)
    return vz, zeros, zeros, zeros, z.new_zeros(16), grad, z, amplitude, frequency, phase, bias


def _sums(*inputs: Tensor) -> tuple[Tensor, ...]:
    return native.forward(*inputs[6:]), *native.backward(*inputs[5:]), *native.second(*inputs)


def _exact_sums(*inputs: Tensor) -> tuple[Tensor, ...]:
    def function(z: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor, bias: Tensor) -> Tensor:
        return reference.staf(z + bias if len(bias) else z, amplitude, frequency, phase)

    return _two_derivatives(function, inputs[:5], *inputs[5:])


# --- activations without parameters ----------------------------------------------------------------------------------

SCALES = {"sine": 16384.0, "finer": 4096.0, "gaussian": 0.5}
"""Factors in the formulas of `staf_nerf.kernels.pointwise`. Arguments of sines are up to 8e4."""


def _draw_pointwise(generator: Generator) -> tuple[Tensor, ...]:
    return _digits(1001, generator=generator), _digits(1001, generator=generator)


def _pointwise(z: Tensor, factor: Tensor) -> list[Tensor]:
    return [
        native.pointwise(z, factor if order else None, KINDS.index(kind), order, scale)
        for kind, scale in SCALES.items()
        for order in range(HIGHEST_ORDER + 1)
    ]


def _exact_pointwise(z: Tensor, factor: Tensor) -> list[Tensor]:
    results = []
    for kind, scale in SCALES.items():
        variable = z.clone().requires_grad_()
        # Without |z|, for whose derivatives torch imports its compiler, which takes a second.
        inner = (z.sign() * variable + 1.0) * variable if kind == "finer" else variable
        orders = [FORMULAS["sine" if kind == "finer" else kind](inner, scale)]
        for _ in range(HIGHEST_ORDER):
            orders.extend(torch.autograd.grad(orders[-1].sum(), variable, create_graph=True))
        results += [x.detach() * (factor if order else 1.0) for order, x in enumerate(orders)]
    return results


# --- rays ------------------------------------------------------------------------------------------------------------


def _draw_rays(generator: Generator) -> tuple[Tensor, ...]:
    """Draws origins, directions, edges, weights and shifts."""
    origins, directions = _digits(50, 3, generator=generator), _digits(50, 3, generator=generator)
    edges = _digits(50, 12, generator=generator).abs().cumsum(-1)
    weights, shift = _digits(50, 11, generator=generator).abs(), _digits(50, 1, generator=generator).abs() / 8.0
    return origins, directions, edges, weights, shift


def _along_rays(
    sample_points: Callable[..., Tensor],
    contract: Callable[..., Tensor],
    resample: Callable[..., Tensor],
    sample_weights: Callable[..., Tensor],
    distortion: Callable[..., Tensor],
    *inputs: Tensor,
) -> list[Tensor]:
    origins, directions, edges, weights, shift = inputs
    variable = weights.clone().requires_grad_()
    rendering, loss = sample_weights(variable), distortion(edges, variable)
    return [
        sample_points(origins, directions, edges[:, :-1], edges[:, 1:]),
        contract(origins),
        resample(edges, weights, shift, 9, padding=1.0),
        rendering.detach(),
        loss.detach(),
        *(torch.autograd.grad(x.square().sum(), variable)[0] for x in (rendering, loss)),
    ]


_rays = functools.partial(
    _along_rays, rays.sample_points, rays.contract, rays.resample, rays.sample_weights, rays.distortion
)
_exact_rays = functools.partial(
    _along_rays,
    rays.reference_sample_points,
    rays.reference_contract,
    rays.reference_resample,
    rays.reference_sample_weights,
    rays.reference_distortion,
)


# --- the hash grid ---------------------------------------------------------------------------------------------------

MULTIPLIERS = torch.tensor([[1, 1], [4, -1640531535], [16, 805459861]], dtype=torch.int32)
ROWS, OFFSETS = torch.tensor([64, 32], dtype=torch.int32), torch.tensor([0, 64], dtype=torch.int32)
NUM_DENSE = 1
"""A level with 4 grid points on each axis, and a hashed one."""


def _draw_grid(dimensions: int, features: int, generator: Generator) -> tuple[Tensor, ...]:
    """Draws directions, grad, points, table and scales."""
    v_points, points = _digits(100, dimensions, generator=generator), _digits(100, dimensions, generator=generator)
    v_table, table = _digits(96, features, generator=generator), _digits(96, features, generator=generator)
    scales = torch.tensor([2.5, 9.25], dtype=torch.float64)
    return v_points, v_table, _digits(100, 2 * features, generator=generator), points.abs() / 4.0, table, scales


def _grid(
    v_points: Tensor, v_table: Tensor, grad: Tensor, points: Tensor, table: Tensor, scales: Tensor
) -> tuple[Tensor, ...]:
    levels = Levels(scales, MULTIPLIERS[: points.shape[1]], ROWS, OFFSETS, NUM_DENSE)
    return (
        native_hash_grid.forward(points, table, levels),
        *native_hash_grid.backward(grad, points, table, levels, True, True),
        *native_hash_grid.second(v_points, v_table, grad, points, table, levels),
    )


def _exact_grid(
    v_points: Tensor, v_table: Tensor, grad: Tensor, points: Tensor, table: Tensor, scales: Tensor
) -> tuple[Tensor, ...]:
    levels = Levels(scales, MULTIPLIERS[: points.shape[1]], ROWS, OFFSETS, NUM_DENSE)
    return _two_derivatives(
        lambda points, table: hash_grid.reference_hash_grid(points, table, levels),
        (v_points, v_table),
        grad,
        points,
        table,
    )


FAMILIES = {
    "Fourier sum": Family(_draw_sums, _sums, _exact_sums),
    "Fourier sum per neuron": Family(_draw_sums_per_neuron, _sums, _exact_sums),
    "interpolation table": Family(_draw_for_table, _sums, _exact_sums, (torch.float32,)),
    "pointwise": Family(_draw_pointwise, _pointwise, _exact_pointwise),
    "rays": Family(_draw_rays, _rays, _exact_rays),
    "hash grid": Family(functools.partial(_draw_grid, 3, 2), _grid, _exact_grid, (torch.float32,)),
    "hash grid in the plane": Family(functools.partial(_draw_grid, 2, 3), _grid, _exact_grid, (torch.float32,)),
}
