"""The matrix products of a linear layer, on a CPU by the faster of torch's two libraries.

torch multiplies matrices with MKL. On processors that are not Intel's, MKL takes twice as long as oneDNN or more.
torch's convolutions use oneDNN. A linear map of rows is a convolution with a 1 x 1 filter: the rows are the pixels of
images whose channels come last, so that nothing is copied. Both libraries compute in float32. Which is faster is
measured once for each shape.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from staf_nerf.kernels import library

Implementation = Literal["auto", "torch", "convolution"]
IMPLEMENTATIONS = ("auto", "torch", "convolution")

IMAGES = 16
"""Number of images that the rows form. With fewer images torch does not use oneDNN for 1 x 1 filters on one thread."""
PIXELS, FEW_PIXELS, SMALL = 128, 16, 64 * 64
"""Gradient of a weight: pixels per image, the same for a small weight, and the most elements of a small weight.
Small images are transposed in parts that fit the nearest cache. That is a fifth to a half faster than large images."""
LEAST_ROWS = 1024
"""Smallest number of rows for a convolution. With fewer rows its overhead decides."""
MEASURED_ROWS = 2**16
MEASURED_PRODUCTS = 2**26
"""Largest number of rows and of multiplications in a measurement, which then takes about 20 ms."""
ROUNDS = 5
GAIN = 0.9
"""A convolution is used if it takes less than this fraction of torch's own time. The margin is for noise."""
GAIN_FILLED, LARGE = 0.7, 128 * 128
"""The fraction if rows of zeros must be added, and the smallest size of a weight for which this copy pays off.
oneDNN compiles a program for each number of rows, in a millisecond. So only some numbers of rows are used."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, implementation: Implementation = "auto") -> Tensor:
    """Returns x Wᵀ + b, differentiable any number of times.

    Args:
        x: (..., in).
        weight: W, (out, in).
        bias: b, (out,).
        implementation: "torch": `torch.nn.functional.linear`, for any input. "convolution": convolutions, for the three
            products of x, W and their gradients, with any real dtype. "auto": the faster one for each product, measured
            at the first use of its shape. "auto" measures for float32 on a CPU only, and not for few rows, under
            torch.compile, `torch.func`, forward-mode differentiation or autocast, or if `torch.backends.mkldnn` is
            disabled or may round its factors. Nor does it with `torch.use_deterministic_algorithms`, as the choice, and
            with it the rounding, may differ between processes. Without a measurement "auto" is "torch".

    Returns:
        (..., out).

    Raises:
        ValueError: If the implementation is unknown.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {list(IMPLEMENTATIONS)}, got {implementation!r}")
    forced = implementation == "convolution" and x.numel() > 0
    if not forced and not (implementation == "auto" and _fits(x, weight) and _gains(x, weight)):
        return functional.linear(x, weight, bias)
    return _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias, forced).view(*x.shape[:-1], len(weight))


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        library.is_plain(x, weight)
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= LEAST_ROWS * x.shape[-1] > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.conv.fp32_precision in ("none", "ieee")  # pyright: ignore[reportAttributeAccessIssue]
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.is_autocast_enabled("cpu")
        and library.operators_serve()
    )


def _gains(x: Tensor, weight: Tensor) -> bool:
    """Returns whether a convolution is faster for any of the products that will be needed."""
    rows, (n_out, n_in) = x.numel() // x.shape[-1], weight.shape
    gains = _is_quicker(rows, n_in, n_out)
    if torch.is_grad_enabled() and weight.requires_grad:
        gains |= _is_quicker(rows, n_in, n_out, outer=True)
    if torch.is_grad_enabled() and x.requires_grad:
        gains |= _is_quicker(rows, n_out, n_in)
    return gains


# --- the two products, each by either library ------------------------------------------------------------------------


class _Product(torch.autograd.Function):
    """a Bᵀ + b."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, bias: Tensor | None, forced: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.forced = forced
        if forced or _is_quicker(len(a), *reversed(b.shape)):
            return convolve(a, b, bias)
        return functional.linear(a, b, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):
        a, b = ctx.saved_tensors
        to_a, to_b, to_bias, _ = ctx.needs_input_grad
        return (
            _Product.apply(grad, b.T, None, ctx.forced) if to_a else None,
            _Outer.apply(grad, a, ctx.forced) if to_b else None,
            grad.sum(0) if to_bias else None,
            None,
        )


class _Outer(torch.autograd.Function):
    """aᵀ B, a sum over rows."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, forced: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.forced = forced
        if forced or _is_quicker(len(a), b.shape[1], a.shape[1], outer=True):
            return convolve_outer(a, b)
        return a.T @ b

    @staticmethod
    def backward(ctx, grad: Tensor):
        a, b = ctx.saved_tensors
        to_a, to_b, _ = ctx.needs_input_grad
        return (
            _Product.apply(b, grad, None, ctx.forced) if to_a else None,
            _Product.apply(a, grad.T, None, ctx.forced) if to_b else None,
            None,
        )


def convolve(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns a Bᵀ + b, by a convolution: (rows, in), (out, in), (out,) -> (rows, out)."""
    found = functional.conv2d(_images(a), b[:, :, None, None], bias)
    return found.permute(0, 2, 3, 1).reshape(-1, len(b))[: len(a)]


def convolve_outer(a: Tensor, b: Tensor) -> Tensor:
    """Returns aᵀ B, by the gradient of a convolution: (rows, out), (rows, in) -> (out, in)."""
    shape = (a.shape[1], b.shape[1])
    images = max(IMAGES, _whole(len(a)) // (FEW_PIXELS if math.prod(shape) <= SMALL else PIXELS))
    return conv2d_weight(_images(b, images), (*shape, 1, 1), _images(a, images)).view(shape)


def _images(rows: Tensor, images: int = IMAGES) -> Tensor:
    """Reshapes (n, channels) to (images, channels, 1, pixels), without a copy unless rows of zeros must be added."""
    missing = _whole(len(rows)) - len(rows)
    full = functional.pad(rows, (0, 0, 0, missing)) if missing else rows.contiguous()
    return full.view(images, 1, -1, rows.shape[1]).permute(0, 3, 1, 2)


def _whole(rows: int) -> int:
    """Rounds a number of rows up, by at most a sixteenth, so that oneDNN compiles for few sizes."""
    step = max(IMAGES, 1 << max(rows.bit_length() - 5, 0))
    return -(-rows // step) * step


# --- which is faster -------------------------------------------------------------------------------------------------


def _is_quicker(rows: int, n_in: int, n_out: int, *, outer: bool = False) -> bool:
    """Returns whether to compute a product by a convolution. The arguments are those of `relative_time`."""
    if rows < LEAST_ROWS:
        return False
    measured = min(1 << rows.bit_length() - 1, MEASURED_ROWS, max(IMAGES, MEASURED_PRODUCTS // (n_in * n_out)))
    needed = GAIN if _whole(rows) == rows else GAIN_FILLED if n_in * n_out >= LARGE else 0.0
    return relative_time(outer, measured, n_in, n_out, torch.get_num_threads()) < needed


@functools.cache
def relative_time(outer: bool, rows: int, n_in: int, n_out: int, threads: int) -> float:
    """Measures the time of a product by a convolution, relative to torch's own function, on torch's current threads.

    Args:
        outer: Whether the product is the gradient of a weight. Otherwise it is a linear map.
        rows: Number of rows of the input.
        n_in: Number of input features.
        n_out: Number of output features.
        threads: Number of torch's threads. It is only a key of the cache.
    """
    x, y, weight = torch.ones(rows, n_in), torch.ones(rows, n_out), torch.ones(n_out, n_in)
    ways: tuple[Callable[[], Tensor], ...] = (
        (lambda: convolve_outer(y, x), lambda: y.T @ x)
        if outer
        else (lambda: convolve(x, weight), lambda: functional.linear(x, weight))
    )
    best = [float("inf")] * 2
    with torch.no_grad():
        for at in range(ROUNDS + 1):
            for i, way in enumerate(ways):
                start = time.perf_counter()
                way()
                best[i] = min(best[i], time.perf_counter() - start) if at else best[i]
    return best[0] / best[1]
