"""A turn on a tripod: its views can be trained, but it has no surface."""

import json

import numpy as np
import pytest

from staf_nerf.captures.capture import CaptureError
from staf_nerf.plugin.mesh_source import source_of
from tests.conftest import write_capture
from tests.plugin.test_checkpoints import trainer


@pytest.fixture
def folder(tmp_path):
    """A folder with the capture where `trainer` looks for it."""
    listing = write_capture(tmp_path / "capture")
    for frame in listing["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, 3] = 0.1, 0.2, 0.3
        frame["transform_matrix"] = matrix.tolist()
    (tmp_path / "capture" / "transforms.json").write_text(json.dumps(listing))
    return tmp_path


def test_its_views_can_be_trained_but_it_has_no_mesh(folder):
    made = trainer(folder)
    assert float(made.pipeline.datamanager.train_dataset.cameras.camera_to_worlds[:, :, 3].abs().max()) < 1e-6
    with pytest.raises(CaptureError, match="all cameras of the capture are in one place"):
        source_of(made.pipeline.model, made.pipeline.datamanager)


def test_a_signed_distance_is_refused_before_it_is_trained(folder):
    with pytest.raises(CaptureError, match="there is no surface"):
        trainer(folder, "staf-nerf-sdf")
