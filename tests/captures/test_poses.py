"""Poses: what is made a rotation, and what is refused."""

import numpy as np
import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.poses import rigid_pose
from tests.conftest import pose

TRUE = np.array(pose(0.7))


def stretched(factors):
    """The pose with longer or shorter axes."""
    matrix = TRUE.copy()
    matrix[:3, :3] *= factors
    return matrix


@pytest.mark.parametrize("shape", [(4, 4), (16,), (3, 4), (12,)])
def test_a_rotation_is_left_as_it_is(shape):
    listed = TRUE[:3] if shape in ((3, 4), (12,)) else TRUE
    found, scale = rigid_pose(listed.reshape(shape).tolist(), "1.png")
    np.testing.assert_array_equal(found, TRUE)
    assert scale == pytest.approx(1)


def test_numbers_may_be_text():
    np.testing.assert_array_equal(rigid_pose([[str(x) for x in row] for row in TRUE.tolist()], "1.png")[0], TRUE)


def test_a_position_in_metres_of_a_survey_keeps_its_digits():
    matrix = TRUE.copy()
    matrix[:3, 3] = [412_345.678901, 5_654_321.123456, 187.000001]
    np.testing.assert_array_equal(rigid_pose(matrix.round(4).tolist(), "1.png")[0][:3, 3], matrix[:3, 3].round(4))


@pytest.mark.parametrize("decimals", [3, 4, 5])
def test_rounded_axes_are_made_orthonormal(decimals):
    rounded = TRUE.copy()
    rounded[:3, :3] = rounded[:3, :3].round(decimals)
    found, _ = rigid_pose(rounded.tolist(), "1.png")
    np.testing.assert_allclose(found[:3, :3].T @ found[:3, :3], np.eye(3), atol=1e-14)  # rounding in float64
    np.testing.assert_allclose(found, TRUE, atol=2 * 10.0**-decimals)  # what was rounded off, of two axes at most
    np.testing.assert_array_equal(found[:3, 3], TRUE[:3, 3])


@pytest.mark.parametrize("factor", [1e-3, 0.5, 12.0])
def test_longer_axes_are_made_rotations_and_the_position_stays(factor):
    found, scale = rigid_pose(stretched(factor).tolist(), "1.png")
    np.testing.assert_allclose(found, TRUE, atol=1e-14)
    assert scale == pytest.approx(factor)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (stretched([1, 1, -1]), r"the pose of 1.png is mirrored: .*negative \(-1\)"),
        (stretched([1, 1, 1.1]), "the pose of 1.png is not a rotation"),
        (stretched([1, 1, 0]), "the pose of 1.png is singular"),
        (TRUE + np.pad(np.triu(np.full((3, 3), 0.02), 1), (0, 1)), "the pose of 1.png is not a rotation"),
        (TRUE.T, "the last row of the pose of 1.png must be 0 0 0 1, .* The matrix is transposed"),
        (np.vstack([TRUE[:3], [0, 0, 0, 2]]), "the last row of the pose of 1.png must be 0 0 0 1"),
        (np.full((4, 4), np.inf), "the pose of 1.png has a value that is NaN or infinite"),
        (TRUE * 1e13, r"the pose of 1.png has a number beyond 1e\+12"),
        ([[None] * 4] * 4, "the pose of 1.png has a value that is NaN or infinite"),
        ([1.0] * 9, r"the pose of 1.png must be 4x4 or 3x4, got \(9,\)"),
        ({"x": 1}, "the pose of 1.png is not a matrix of numbers"),
    ],
)
def test_what_is_no_rotation_and_position_is_refused(listed, message):
    with pytest.raises(CaptureError, match=message):
        rigid_pose(listed.tolist() if isinstance(listed, np.ndarray) else listed, "1.png")
