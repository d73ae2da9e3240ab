"""Which photos are matched."""

import numpy as np
import pytest

from staf_nerf.sfm.pairs import all_pairs, blocks, most_similar, sequential, signatures, way_of


@pytest.mark.parametrize(
    ("matching", "count", "is_video", "way"),
    [
        ("auto", 200, False, "exhaustive"),
        ("auto", 201, False, "retrieval"),
        ("auto", 60, True, "sequential"),
        ("auto", 8, True, "exhaustive"),
        ("exhaustive", 300, True, "exhaustive"),
    ],
)
def test_pairs_are_chosen_by_the_number_of_photos_unless_the_user_says_how(matching, count, is_video, way):
    assert way_of(matching, count, is_video=is_video) == way


def test_a_frame_is_matched_with_the_next_ten_and_with_those_at_powers_of_two():
    found = sequential(100)
    assert [j for i, j in found if i == 0] == [*range(1, 11), 16, 32, 64]
    assert all(0 <= i < j < 100 for i, j in found)
    assert len(set(found)) == len(found)


def test_blocks_hold_every_pair_once_and_concern_few_photos_each():
    pairs = all_pairs(47)
    found = blocks(pairs)
    assert sorted(pair for block in found for pair in block) == pairs
    assert max(len({i for pair in block for i in pair}) for block in found) <= 20


def test_photos_of_the_same_things_are_found_among_others():
    generator = np.random.default_rng(0)
    things = [generator.integers(0, 255, (400, 128)).astype(np.uint8) for _ in range(6)]
    noise = [[generator.integers(-8, 9, (250, 128)) for _ in range(3)] for _ in things]
    photos = [
        (generator.permutation(thing)[:250].astype(int) + part).clip(0, 255).astype(np.uint8)
        for thing, parts in zip(things, noise, strict=True)
        for part in parts
    ]
    found = most_similar(signatures(photos, 0), 2)
    assert found == [(3 * k + i, 3 * k + j) for k in range(6) for i, j in ((0, 1), (0, 2), (1, 2))]


def test_a_photo_without_features_has_a_signature_too():
    generator = np.random.default_rng(0)
    photos = [generator.integers(0, 255, (n, 128)).astype(np.uint8) for n in (80, 0, 80)]
    found = signatures(photos, 0)
    assert np.isfinite(found).all()
    assert len(most_similar(found, 2)) == 3
    assert len(most_similar(signatures([photos[1]] * 3, 0), 1)) >= 2
