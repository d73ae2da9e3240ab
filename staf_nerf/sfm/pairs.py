"""Which photos are matched with each other.

Pairs are (i, j) with i < j, positions in the list of photos.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

Matching = Literal["auto", "exhaustive", "sequential", "retrieval"]
Pair = tuple[int, int]

EXHAUSTIVE = 200
"""The most photos of which all pairs are matched: 19,900 pairs."""
OVERLAP = 10
"""Number of next frames of a video with which a frame is matched. Frames at distances 16, 32, … are added."""
NEIGHBOURS = 20
"""Number of most similar photos with which a photo is matched, if there are too many for all pairs."""
LOOPS = 5
"""Number of most similar frames with which a frame of a video is matched, which closes loops."""
WORDS = 64
"""Number of clusters of descriptors."""
SAMPLES = 20_000
"""Number of descriptors that the clusters are found from."""
BLOCK = 10
"""Photos whose pairs are matched in one go. Their descriptors stay in memory."""


def way_of(matching: Matching, count: int, *, is_video: bool) -> Matching:
    """Returns how pairs are chosen: by the number of photos, unless the user says it."""
    if matching != "auto":
        return matching
    if is_video and count > OVERLAP:
        return "sequential"
    return "exhaustive" if count <= EXHAUSTIVE else "retrieval"


def all_pairs(count: int) -> list[Pair]:
    """Returns all pairs of that many photos."""
    return list(itertools.combinations(range(count), 2))


def sequential(count: int) -> list[Pair]:
    """Returns the pairs of neighbouring photos: the next ten, and those at distances of powers of two."""
    distances = {*range(1, OVERLAP + 1), *(2**power for power in range(4, count.bit_length()))}
    return sorted((i, i + step) for step in distances for i in range(count - step))


def most_similar(signatures: np.ndarray, count: int) -> list[Pair]:
    """Returns each photo with the most similar ones: signatures (N, D) of length 1 whose products are largest."""
    products = signatures @ signatures.T
    np.fill_diagonal(products, -np.inf)
    nearest = np.argsort(-products, axis=1)[:, : min(count, len(signatures) - 1)]
    return sorted({(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row})


def signatures(descriptors: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Returns a signature of each photo from its descriptors (n, 128), as (N, D) of length 1.

    They are vectors of locally aggregated descriptors: sums of differences from the nearest cluster's middle.
    Source: Jégou et al., Aggregating local descriptors into a compact image representation, CVPR 2010. Roots of the
    differences and a norm for each cluster: Arandjelović and Zisserman, All about VLAD, CVPR 2013.
    """
    from scipy.cluster.vq import kmeans2

    generator = np.random.default_rng(seed)
    share = max(SAMPLES // len(descriptors), 1)
    sample = [generator.permutation(found)[:share] for found in descriptors if len(found)]
    if not sample:
        return np.zeros((len(descriptors), 1), np.float32)
    points = np.concatenate(sample).astype(np.float32)
    words, _ = kmeans2(points, generator.permutation(points)[:WORDS], minit="matrix")
    return np.stack([_signature(found.astype(np.float32), words) for found in descriptors])


def _signature(descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
    sums = np.zeros_like(words)
    if len(descriptors):
        distances = (words**2).sum(1) - 2 * descriptors @ words.T
        nearest = distances.argmin(1)
        np.add.at(sums, nearest, descriptors - words[nearest])
    sums = np.sign(sums) * np.sqrt(np.abs(sums))
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    flat = sums.ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-12)


def blocks(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Returns the pairs in groups that concern few photos each."""
    ordered = sorted(pairs, key=lambda pair: (pair[0] // BLOCK, pair[1] // BLOCK, pair))
    grouped = itertools.groupby(ordered, key=lambda pair: (pair[0] // BLOCK, pair[1] // BLOCK))
    return [list(group) for _, group in grouped]
