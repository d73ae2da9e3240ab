"""nerfstudio's cameras: the turntable."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from staf_nerf.captures.region import RegionOfInterest
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


def region(cameras, center=(0.0, 0.0, 0.0)):
    return RegionOfInterest(center, 1.0, cameras, "cameras", nearest=3.0, farthest=3.5, half_view=0.4)


def cameras_at(angles):
    return Cameras(
        torch.tensor([pose(a) for a in angles])[:, :3], fx=20.0, fy=20.0, cx=12.0, cy=8.0, width=24, height=16
    )


@pytest.mark.parametrize("middle", [0.3, math.pi])
def test_the_film_of_a_one_sided_capture_stays_on_that_side(middle):
    given = cameras_at([middle + 0.1 * i for i in range(-5, 6)])
    made = turntable(given, 12, region("one-sided")).camera_to_worlds
    aside = torch.atan2(made[:, 1, 3], made[:, 0, 3]) - middle
    aside = torch.remainder(aside + math.pi, 2 * math.pi) - math.pi
    assert float(aside.abs().max()) == pytest.approx(0.45, abs=0.01)  # from 5 to 95 % of the cameras, from -0.5 to 0.5
    assert float(aside.min()) == pytest.approx(-float(aside.max()), abs=0.01)
    assert (-made[:, :, 2] * -made[:, :, 3]).sum(-1).min() > 3.0  # all look at the origin, from 3.2 away
    # The film is a loop: each step is a small part of the way, the last to the first too.
    steps = (aside - aside.roll(1)).abs()
    assert float(steps.max()) < 0.3


def test_the_film_of_a_room_turns_in_the_middle_of_the_cameras():
    given = cameras_at([0.0, 1.5, 3.0, 4.5])
    made = turntable(given, 8, region("inside")).camera_to_worlds
    middle = given.camera_to_worlds[:, :, 3].mean(0)
    torch.testing.assert_close(made[:, :, 3], middle.expand(8, 3))
    torch.testing.assert_close(made[:, :, 2].sum(0), torch.zeros(3), atol=1e-5, rtol=0)  # all around
    torch.testing.assert_close(made[:, 2, 1], torch.ones(8))  # upright
