"""The matrix products of a linear layer, on a CPU by the faster of torch's two libraries.

torch multiplies matrices with MKL. On AMD's processors, and for the weights of a layer with few inputs, MKL takes up to
several times as long as oneDNN, which computes torch's convolutions. A linear map of rows is a convolution with a 1 x 1
filter: the rows are the pixels of images whose channels come last, so that nothing is copied. Both libraries compute in
float32. Which one computes a product follows from the processor and the shapes alone, by measurements that are written
down here. So two processes on one machine give the same bits.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Literal, NamedTuple

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
LARGE = 128 * 128
"""Smallest size of a weight for which rows of zeros are added, which is a copy. oneDNN compiles a program for each
number of rows, in a millisecond. So only some numbers of rows are used."""


class Processor(NamedTuple):
    """A processor as it names itself."""

    vendor: str
    family: int


class Thresholds(NamedTuple):
    """The smallest products that a processor computes faster by convolutions. `NEVER`: none, or none was measured."""

    maps: float
    """Multiplications of a linear map between at least `WIDE` features."""
    weights: float
    """Multiplications of the gradient of a weight between at least `WIDE` features."""
    thin_weights: float
    """Elements of the outputs' gradient, for the gradient of a weight with 2 to `THIN` inputs."""


NEVER = math.inf
WIDE, THIN = 64, 8
MEASURED = {
    ("GenuineIntel", None): Thresholds(NEVER, NEVER, 2**20),
    ("AuthenticAMD", 26): Thresholds(2**24, 2**24, 2**20),  # Zen 5
    ("AuthenticAMD", 25): Thresholds(2**28, NEVER, NEVER),  # Zen 3 and 4
    ("AuthenticAMD", 23): Thresholds(2**28, NEVER, NEVER),  # Zen to Zen 2
}
"""What `staf bench linear` measured, by vendor and family (None: all families). The documentation has the times, in
Benchmarks, Linear layers. Before Zen 5 another way to oneDNN was measured, which is slower than convolutions for
weights. So there only its large gains are taken, those of linear maps."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, implementation: Implementation = "auto") -> Tensor:
    """Returns x Wᵀ + b, differentiable any number of times.

    Args:
        x: (..., in).
        weight: W, (out, in).
        bias: b, (out,).
        implementation: "torch": `torch.nn.functional.linear`, for any input. "convolution": convolutions, for the three
            products of x, W and their gradients, with any real dtype. "auto": the faster one for each product, as
            `prefers_convolution` says. That is "torch" for all but float32 on a CPU, for few rows, under torch.compile,
            `torch.func`, forward-mode differentiation or autocast, and if `torch.backends.mkldnn` is disabled or may
            round its factors.

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
        and not torch.is_autocast_enabled("cpu")
        and library.operators_serve()
    )


def _gains(x: Tensor, weight: Tensor) -> bool:
    """Returns whether a convolution is faster for any of the products that will be needed."""
    rows, (n_out, n_in) = x.numel() // x.shape[-1], weight.shape
    gains = _chosen(rows, n_in, n_out)
    if torch.is_grad_enabled() and weight.requires_grad:
        gains |= _chosen(rows, n_in, n_out, outer=True)
    if torch.is_grad_enabled() and x.requires_grad:
        gains |= _chosen(rows, n_out, n_in)
    return gains


# --- the two products, each by either library ------------------------------------------------------------------------


class _Product(torch.autograd.Function):
    """a Bᵀ + b."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, bias: Tensor | None, forced: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.forced = forced
        if forced or _chosen(len(a), *reversed(b.shape)):
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
        if forced or _chosen(len(a), b.shape[1], a.shape[1], outer=True):
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
    images = functional.conv2d(_images(a), b[:, :, None, None], bias)
    return images.permute(0, 2, 3, 1).reshape(-1, len(b))[: len(a)]


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


def prefers_convolution(rows: int, n_in: int, n_out: int, *, outer: bool, processor: Processor | None) -> bool:
    """Returns whether a product is computed by a convolution. The answer depends on the arguments alone.

    Args:
        rows: Number of rows.
        n_in: Number of columns of the factor with rows, or of the second such factor if `outer`.
        n_out: Number of columns of the result, or of the first factor if `outer`.
        outer: Whether the product is aᵀ B, a sum over rows, as the gradient of a weight. Otherwise it is a Bᵀ.
        processor: See `this_processor`. None prefers torch's own products.
    """
    least = _thresholds(processor)
    is_whole, is_wide = _whole(rows) == rows, min(n_in, n_out) >= WIDE
    if rows < LEAST_ROWS or not (is_whole or n_in * n_out >= LARGE):
        return False
    if outer and not is_wide:
        return 2 <= n_in <= THIN and is_whole and rows * n_out >= least.thin_weights
    return is_wide and rows * n_in * n_out >= (least.weights if outer else least.maps)


def _thresholds(processor: Processor | None) -> Thresholds:
    nothing = Thresholds(NEVER, NEVER, NEVER)
    if processor is None:
        return nothing
    return MEASURED.get(processor) or MEASURED.get((processor.vendor, None)) or nothing


@functools.cache
def this_processor(table: Path = Path("/proc/cpuinfo")) -> Processor | None:
    """Returns this machine's processor, as Linux on x86 names it, or None."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    vendor, family = entries.get("vendor_id"), entries.get("cpu family", "")
    return Processor(vendor, int(family)) if vendor and family.isdecimal() else None


def _chosen(rows: int, n_in: int, n_out: int, *, outer: bool = False) -> bool:
    return prefers_convolution(rows, n_in, n_out, outer=outer, processor=this_processor())
