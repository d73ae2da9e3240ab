"""The trainable Fourier sum and its derivatives: one function, interchangeable implementations."""

from staf_nerf.kernels.reference import staf

__all__ = ["staf"]
