"""What a loaded capture holds, whatever its format."""

import numpy as np
import pytest

from staf_nerf.captures.load import READERS, load
from tests.conftest import pose, write_blender, write_capture


def test_every_format_has_its_own_line_in_the_message_of_a_folder_without_a_capture(tmp_path):
    with pytest.raises(ValueError, match="contains no capture") as refused:
        load(tmp_path)
    for reader in READERS.values():
        assert reader.FILES in str(refused.value)


def test_a_capture_s_photos_have_the_listed_poses_and_cameras(tmp_path):
    write_capture(tmp_path, count=4)
    capture = load(tmp_path)
    assert (capture.kind, capture.dropped, capture.splits) == ("transforms", (), {})
    for i, photo in enumerate(capture.photos):
        assert photo.image == tmp_path / "images" / f"{i:03d}.png"
        np.testing.assert_array_equal(photo.pose, pose(2 * np.pi * i / 4))
        camera = photo.camera
        assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (24, 16, 20, 21, 12.5, 8)
        assert camera.distortion == {"k1": 0.01}
        assert not photo.has_alpha


def test_an_image_that_does_not_exist_is_in_no_split(tmp_path):
    write_blender(tmp_path, train=4, test=2)
    (tmp_path / "images" / "001.png").unlink()
    capture = load(tmp_path)
    assert [path.stem for path in capture.dropped] == ["001"]
    assert [path.stem for path in capture.splits["train"]] == ["000", "002", "003"]
    assert all(photo.has_alpha for photo in capture.photos)
