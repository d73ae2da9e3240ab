"""Slow oracles in float64, written differently from the package: loops over points and terms, numpy only."""

from __future__ import annotations

import itertools
import math

import numpy as np


def staf(z: np.ndarray, amplitude: np.ndarray, frequency: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Σ Cᵢ sin(Ωᵢ z + Φᵢ), entry by entry, with correctly rounded sums."""
    result = np.empty(z.shape, dtype=np.float64)
    for index in np.ndindex(z.shape):
        column = (slice(None), index[-1]) if amplitude.ndim == 2 else (slice(None),)
        terms = zip(amplitude[column], frequency[column], phase[column], strict=True)
        result[index] = math.fsum(float(c) * math.sin(float(w) * float(z[index]) + float(p)) for c, w, p in terms)
    return result


def hash_grid(
    point: np.ndarray, tables: list[np.ndarray], base_resolution: int, growth: float, log2_table_size: int
) -> np.ndarray:
    """One point's features as instant-ngp defines them: uint32 arithmetic, one corner at a time.

    `point` (d,) in [0, 1]; `tables` holds each level's rows.
    """
    primes = (1, 2654435761, 805459861)
    features = []
    for level, table in enumerate(tables):
        scale = base_resolution * growth**level - 1.0
        resolution = math.ceil(scale) + 1
        position = [float(np.float32(x) * np.float32(scale) + np.float32(0.5)) for x in point]
        total = np.zeros(table.shape[1])
        for corner in itertools.product((0, 1), repeat=len(point)):
            cell = [math.floor(p) + c for p, c in zip(position, corner, strict=True)]
            weight = math.prod(
                (p - math.floor(p)) if c else 1.0 - (p - math.floor(p)) for p, c in zip(position, corner, strict=True)
            )
            if resolution ** len(point) <= len(table):
                row = sum(x * resolution**axis for axis, x in enumerate(cell))
            else:
                row = 0
                for x, prime in zip(cell, primes, strict=False):
                    row ^= (x * prime) % 2**32
            total += weight * table[row % len(table)]
        features.append(total)
    return np.concatenate(features)
