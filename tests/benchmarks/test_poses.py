"""The comparison of poses: what a similarity explains is no error, and the rest is measured."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.poses import ComparePoses, run

GENERATOR = np.random.default_rng(0)


def poses(count=20):
    found = np.tile(np.eye(4), (count, 1, 1))
    found[:, :3, :3] = Rotation.random(count, rng=GENERATOR).as_matrix()
    found[:, :3, 3] = GENERATOR.normal(size=(count, 3))
    return found


def write(path, matrices):
    frames = [
        {"file_path": f"images/{number}.jpg", "transform_matrix": m.tolist()} for number, m in enumerate(matrices)
    ]
    path.write_text(json.dumps({"frames": frames}))
    return path


def moved(matrices):
    """The poses in a world that is turned, three times as large, and shifted."""
    turn = Rotation.from_euler("xyz", [20, -50, 100], degrees=True).as_matrix()
    found = matrices.copy()
    found[:, :3, :3] = turn @ matrices[:, :3, :3]
    found[:, :3, 3] = 3 * matrices[:, :3, 3] @ turn.T + [5, -6, 7]
    return found


def test_a_similarity_is_no_error(tmp_path):
    truth = poses()
    write(tmp_path / "transforms.json", truth)
    found = run(ComparePoses(write(tmp_path / "a.json", moved(truth)), tmp_path))
    assert found["photos"] == 20
    assert found["rotation_degrees"]["max"] < 1e-5
    assert found["position_percent"]["max"] < 1e-9


def test_a_turn_of_one_camera_and_a_step_of_another_are_measured(tmp_path):
    truth = poses(200)
    other = moved(truth)
    other[3, :3, :3] = other[3, :3, :3] @ Rotation.from_euler("y", 2, degrees=True).as_matrix()
    extent = max(np.linalg.norm(p[:3, 3] - q[:3, 3]) for p in truth for q in truth)
    other[5, :3, 3] += 3 * 0.01 * extent * np.array([1.0, 0.0, 0.0])
    found = run(ComparePoses(write(tmp_path / "a.json", other), write(tmp_path / "b.json", truth)))
    assert found["rotation_degrees"]["max"] == pytest.approx(2, abs=0.05), "the step turns the alignment a little"
    assert found["position_percent"]["max"] == pytest.approx(1, abs=0.05), "and moves it by its share, a few in 200"
    assert found["position_percent"]["median"] < 0.1


def test_captures_without_common_photos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share 2 photos; at least 3"):
        run(ComparePoses(write(tmp_path / "a.json", poses(2)), write(tmp_path / "b.json", poses(4))))
