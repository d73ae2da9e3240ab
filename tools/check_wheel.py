"""Tries an installed wheel: the core imports, the C library is in use, and its values are right.

    python tools/check_wheel.py

Run it from another folder than the checkout, whose own package Python would find first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import staf_nerf
from staf_nerf import STAF, CoordinateMLP
from staf_nerf.kernels import library, staf


def main() -> None:
    """Entry point."""
    folder = Path(staf_nerf.__file__).resolve().parent
    if library.library() is None:
        sys.exit(f"{folder}: the C library is missing, or it cannot be loaded")
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1000, 64, generator=generator)
    with torch.no_grad():
        sigma = STAF(64, num_frequencies=5)
        parameters = sigma.amplitude, sigma.frequency, sigma.phase
        error = float((sigma(z) - staf(z, *parameters, implementation="reference")).abs().max())
    if not error < 1e-4:
        sys.exit(f"{folder}: the C library's values are off by {error:.1e}")
    network = CoordinateMLP(2, 3, activation="staf", hidden_features=64, hidden_layers=2)
    network(torch.rand(100, 2, generator=generator)).square().mean().backward()
    print(f"staf_nerf {staf_nerf.__version__} in {folder}: {library.LEVELS[library.level()]}, error {error:.1e}")


if __name__ == "__main__":
    main()
