"""nerfstudio's cameras: the turntable."""

import torch
from nerfstudio.cameras.cameras import Cameras

from staf_nerf.plugin.cameras import turntable
from tests.conftest import pose


def test_turntable_circles_what_the_cameras_look_at():
    shift = torch.tensor([0.5, -1.0, 0.25])
    poses = torch.tensor([pose(angle) for angle in (0.0, 1.0, 2.5, 4.0)])[:, :3]
    poses[:, :, 3] += shift
    made = turntable(Cameras(poses, fx=20.0, fy=20.0, cx=12.0, cy=8.0, width=24, height=16), 8)
    origins, axes = made.camera_to_worlds[:, :, 3], -made.camera_to_worlds[:, :, 2]
    toward = torch.nn.functional.normalize(shift - origins, dim=-1)
    torch.testing.assert_close(axes, toward, atol=1e-4, rtol=0)
    torch.testing.assert_close((origins - shift).norm(dim=-1), torch.full((8,), 3 * 1.16**0.5), atol=1e-3, rtol=0)
    rotation = made.camera_to_worlds[:, :, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(8))
