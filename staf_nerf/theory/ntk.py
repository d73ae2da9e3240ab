"""Neural tangent kernels of fields, exact at finite width, and their spectra.

Conventions: a kernel K (n, m) contains the inner products of the gradients of f with respect to all parameters, at n
points x and m points y. For a linear layer with input a and with output gradient b, the gradient of the weights is
b aᵀ. Its part of the kernel is therefore (a aᵀ) ∘ (b bᵀ), and the gradients need not be stored. Under gradient descent
with a small learning rate η on ½ ‖f - target‖², the error along an eigenvector with eigenvalue λ decays as
(1 - ηλ)^step (arXiv 1806.07572).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from staf_nerf.activations import STAF
from staf_nerf.fields import NeuralField
from staf_nerf.mlp import CoordinateMLP

Outputs = Literal["sum", "full"]

CHUNK = 1024
"""Default number of rows of a kernel that are computed at a time."""


@dataclass(frozen=True)
class KernelParts:
    """The parts of a tangent kernel by kind of parameter. Each has the shape of the kernel."""

    weights: Tensor
    """Part of the linear layers' weights."""
    biases: Tensor
    """Part of the linear layers' biases."""
    amplitude: Tensor
    """Part of the amplitudes C. It is zero without STAF, like the next two."""
    frequency: Tensor
    """Part of the frequencies Ω."""
    phase: Tensor
    """Part of the phases Φ."""

    @property
    def linear(self) -> Tensor:
        """Part of weights and biases."""
        return self.weights + self.biases

    @property
    def sinusoids(self) -> Tensor:
        """Part of (C, Ω, Φ)."""
        return self.amplitude + self.frequency + self.phase

    @property
    def total(self) -> Tensor:
        """The whole kernel."""
        return self.linear + self.sinusoids


NAMES = ("weights", "biases", "amplitude", "frequency", "phase")
"""Names of the parts."""


@overload
def empirical_ntk(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    outputs: Outputs = "sum",
    chunk: int = CHUNK,
    parts: Literal[False] = False,
) -> Tensor: ...
@overload
def empirical_ntk(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    outputs: Outputs = "sum",
    chunk: int = CHUNK,
    parts: Literal[True],
) -> KernelParts: ...
def empirical_ntk(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    outputs: Outputs = "sum",
    chunk: int = CHUNK,
    parts: bool = False,
) -> Tensor | KernelParts:
    """Computes the exact tangent kernel of a network at its present parameters.

    A `CoordinateMLP` is processed layer by layer, with n·m numbers in memory for each part. So is a `NeuralField` whose
    encoding has no parameters. Any other module, and a network whose activations have parameters besides those of STAF,
    is processed by `torch.func` in pairs of blocks of `chunk` gradients: twice `chunk` times the number of parameters
    must fit into memory. Use float64 for small eigenvalues, because they vanish below the rounding error of the largest
    one.

    Args:
        model: Maps (..., d) to (..., k). Frozen parameters are included.
        x: Points, (n, d), in the model's dtype.
        y: Points, (m, d). Defaults to x.
        outputs: "sum": sum of the kernels of the k outputs, (n, m). "full": kernel of each pair of outputs,
            (n, m, k, k).
        chunk: Number of points per block.
        parts: Whether to return the parts of weights, biases, C, Ω and Φ separately.

    Returns:
        The kernel, or its parts.

    Raises:
        ValueError: If points do not have shape (n, d), or an argument is out of range.
    """
    for name, points in (("x", x), ("y", x if y is None else y)):
        if points.ndim != 2:
            raise ValueError(f"{name} must have shape (n, d), got {tuple(points.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    if outputs not in ("sum", "full"):
        raise ValueError(f"outputs must be 'sum' or 'full', got {outputs!r}")
    compute = _by_layers if _has_layers(model) else _by_gradients
    found = compute(model, x, x if y is None else y, chunk, NAMES if parts else ("total",), outputs)
    return KernelParts(**found) if parts else found["total"]


class Spectrum(NamedTuple):
    """Eigenvalues and eigenvectors of a kernel."""

    values: Tensor
    """(n,): eigenvalues in descending order."""
    vectors: Tensor
    """(n, n): eigenvectors in columns, of unit length."""


def ntk_spectrum(kernel: Tensor) -> Spectrum:
    """Returns eigenvalues and eigenvectors of a symmetric kernel (n, n), in float64.

    After t steps of gradient descent with learning rate η, the error along ``vectors[:, i]`` is multiplied by
    ``(1 - η values[i])^t``.

    Raises:
        ValueError: If the kernel is not a symmetric matrix.
    """
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel must have shape (n, n), got {tuple(kernel.shape)}")
    kernel = kernel.double()
    if (kernel - kernel.T).abs().max() > 1e-4 * kernel.abs().max():
        raise ValueError("kernel must be symmetric: compute it with x only, without y")
    values, vectors = torch.linalg.eigh(0.5 * (kernel + kernel.T))
    return Spectrum(values.flip(0), vectors.flip(1))


# --- layer by layer --------------------------------------------------------------------------------------------------


def _has_layers(model: nn.Module) -> bool:
    if isinstance(model, NeuralField):
        return not list(model.encoding.parameters()) and _has_layers(model.mlp)
    if not isinstance(model, CoordinateMLP):
        return False
    activations = [layer.activation for layer in model.layers]
    return all(isinstance(sigma, STAF) or not list(sigma.parameters()) for sigma in activations)


class _Factor(NamedTuple):
    """Parameters whose gradient at a point is b aᴴ, or b if there is no a."""

    name: str
    """Name of the part of the kernel."""
    b: Tensor
    """(k, n, q), for each of k outputs."""
    a: Tensor | None = None
    """(n, p)."""


class _Step(NamedTuple):
    """A tensor of the forward pass, (n, q), and a function from its gradients, (k, n, q), to factors."""

    tensor: Tensor
    factors: Callable[[Tensor], list[_Factor]]
    sigma: STAF | None = None
    """The Fourier sum that owns the parameters. Gradients of a sum that layers share are added."""


def _by_layers(
    model: Any, x: Tensor, y: Tensor, chunk: int, names: tuple[str, ...], outputs: Outputs
) -> dict[str, Tensor]:
    """Returns the parts, or their sum under "total", layer by layer."""
    left = _factors(model, x)
    right = left if y is x else _factors(model, y)
    count = len(left[0].b)
    found = _zeros(names, x, y, count, outputs)
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        for first, second in zip(left, right, strict=True):
            part = found[first.name if first.name in found else "total"]
            read = None if first.a is None or second.a is None else first.a[rows] @ second.a.mH
            for i in range(count):
                for j in range(count) if outputs == "full" else (i,):
                    block = first.b[i, rows].conj() @ second.b[j].T
                    block = block if read is None else block * read
                    block = block.real if block.is_complex() else block
                    if outputs == "full":
                        part[rows, :, i, j] += block
                    else:
                        part[rows] += block
    return found


def _zeros(names: tuple[str, ...], x: Tensor, y: Tensor, count: int, outputs: Outputs) -> dict[str, Tensor]:
    shape = (len(x), len(y), count, count) if outputs == "full" else (len(x), len(y))
    return {name: x.new_zeros(shape) for name in names}


def _factors(model: Any, x: Tensor) -> list[_Factor]:
    """Returns the factors of all parameters' gradients at x, always in the same order."""
    with torch.no_grad():
        x = model.encoding(x) if isinstance(model, NeuralField) else x
    steps, result = _trace(model.mlp if isinstance(model, NeuralField) else model, x)
    tensors = [step.tensor for step in steps]
    rows = [torch.autograd.grad(f.sum(), tensors, retain_graph=True) for f in result.unbind(1)]
    found: list[_Factor] = []
    shared: dict[tuple[int, str], Tensor] = {}
    for step, gradients in zip(steps, zip(*rows, strict=True), strict=True):
        for factor in step.factors(torch.stack(gradients)):
            if step.sigma is None:
                found.append(factor)
            else:
                key = (id(step.sigma), factor.name)
                shared[key] = shared[key] + factor.b if key in shared else factor.b
    return [*found, *(_Factor(name, b) for (_, name), b in shared.items())]


def _trace(mlp: CoordinateMLP, x: Tensor) -> tuple[list[_Step], Tensor]:
    """Runs a forward pass and returns its steps and its result (n, k)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()  # needed to differentiate through frozen layers
        traces, result = mlp.trace(x)
    steps: list[_Step] = []
    for layer, trace in zip(mlp.layers, traces, strict=True):
        steps += [_linear_step(z, read) for read, z in trace.maps]
        if isinstance(layer.activation, STAF):
            z = trace.maps[-1][1].detach()
            steps.append(_Step(trace.values, _sinusoid_factors(layer.activation, z), layer.activation))
    steps.append(_linear_step(result, traces[-1].output if traces else x))
    return steps, result.real if result.is_complex() else result


def _linear_step(z: Tensor, read: Tensor) -> _Step:
    """Returns the step of a linear map with that output and input."""
    read = read.detach()
    return _Step(z, lambda b: [_Factor("weights", b, read), _Factor("biases", b)])


def _sinusoid_factors(sigma: STAF, z: Tensor) -> Callable[[Tensor], list[_Factor]]:
    """Returns the factors of C, Ω and Φ for the gradient g of σ: sums of g sin θ, g C z cos θ and g C cos θ."""

    def factors(g: Tensor) -> list[_Factor]:
        columns: list[list[Tensor]] = [[], [], []]
        with torch.no_grad():
            for c, w, p in zip(sigma.amplitude, sigma.frequency, sigma.phase, strict=True):
                sine, cosine = torch.sin(w * z + p), c * torch.cos(w * z + p)
                for column, slope in zip(columns, (sine, z * cosine, cosine), strict=True):
                    column.append(g * slope if c.ndim else torch.einsum("knq,nq->kn", g, slope)[..., None])
        return [_Factor(name, torch.cat(column, -1)) for name, column in zip(NAMES[2:], columns, strict=True)]

    return factors


# --- any module ------------------------------------------------------------------------------------------------------


def _by_gradients(
    model: nn.Module, x: Tensor, y: Tensor, chunk: int, names: tuple[str, ...], outputs: Outputs
) -> dict[str, Tensor]:
    """Returns the parts, or their sum under "total", from blocks of the Jacobian."""
    place = _places(model)
    found: dict[str, Tensor] | None = None
    for row in range(0, len(x), chunk):
        left = _jacobian(model, x[row : row + chunk])
        for column in range(0, len(y), chunk):
            right = left if y is x and row == column else _jacobian(model, y[column : column + chunk])
            for name, first in left.items():
                second = right[name]
                if found is None:
                    found = _zeros(names, x, y, first.shape[1], outputs)
                block = torch.einsum("nkp,mlp->nmkl" if outputs == "full" else "nkp,mkp->nm", first, second)
                part = found[place[name] if place[name] in found else "total"]
                part[row : row + chunk, column : column + chunk] += block
    return found or _zeros(names, x, y, 1, outputs)


def _places(model: nn.Module) -> dict[str, str]:
    """Returns the part that each parameter belongs to, by name of the parameter."""
    found = {name: "biases" if name.endswith("bias") else "weights" for name, _ in model.named_parameters()}
    for prefix, module in model.named_modules():
        if isinstance(module, STAF):
            found |= {f"{prefix}.{name}".lstrip("."): name for name in NAMES[2:]}
    return found


def _jacobian(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Returns the gradients of each parameter, (n, k, size of the parameter)."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def one(values: dict[str, Tensor], point: Tensor) -> Tensor:
        return functional_call(model, values, (point[None],))[0]

    rows = vmap(jacrev(one), (None, 0))(parameters, x)
    return {name: row.flatten(2) if row.ndim > 2 else row[..., None] for name, row in rows.items()}
