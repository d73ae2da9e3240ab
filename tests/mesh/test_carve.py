import numpy as np
import pytest
import torch

from staf_nerf.mesh.carve import Carving, seen_points
from staf_nerf.mesh.fuse import View
from tests.mesh.shapes import box, sphere, views_of

RADIUS, CENTER = 0.8, torch.tensor([0.2, -0.1, 0.3])
PIXEL = 3.0 / 120
"""Width of a pixel of `views_of` at the middle of the mesh."""


def points_at(distance: float, count: int = 2000) -> torch.Tensor:
    """Points at a distance from the ball's surface."""
    directions = torch.nn.functional.normalize(
        torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    return CENTER + (RADIUS + distance) * directions


@pytest.fixture(scope="module")
def ball():
    return Carving(list(views_of(sphere(RADIUS, CENTER.tolist()))))


def test_a_ball_is_carved_to_within_its_pixels(ball):
    for distance in (-0.3, -2 * PIXEL):
        assert (ball.distance(points_at(distance))[0] < 0).all()
    # The least depth of nine pixels makes it a pixel thicker, and two of the views may be wrong.
    outside, known = ball.distance(points_at(4 * PIXEL))
    assert known.all()
    assert (outside > 0).all()


def test_the_distance_near_the_surface_is_about_right(ball):
    distances = torch.stack([ball.distance(points_at(d))[0].median() for d in (-0.15, -0.1, -0.05)])
    # Along an axis and a pixel too thick: the differences are what counts.
    torch.testing.assert_close(distances.diff(), torch.full((2,), 0.05), atol=0.015, rtol=0)
    assert (ball.distance(points_at(0.15))[0] > 0.05).all()


def test_what_is_about_a_pixel_thin_stays():
    """Some of the rays next to such a rod's middle line miss it."""
    rod = box((1.2, 0.9 * PIXEL, 0.9 * PIXEL))
    carving = Carving(list(views_of(rod, count=60)))
    along = torch.zeros(200, 3)
    along[:, 0] = torch.linspace(-0.5, 0.5, 200)
    # Solid to within half a pixel: the depths at grazing pixels are a little farther than the middle line.
    assert float((carving.distance(along)[0] < 0.5 * PIXEL).float().mean()) > 0.85
    aside = along + torch.tensor([0.0, 8 * PIXEL, 0.0])
    assert (carving.distance(aside)[0] > 0).all()


def test_wrong_pictures_do_not_carve_alone():
    views = list(views_of(sphere(RADIUS, CENTER.tolist())))
    blind = [View(v.color, np.zeros_like(v.depth), v.intrinsics, v.world_to_camera) for v in views[:2]]
    middle = CENTER[None]
    assert (Carving([*blind, *views[2:]], doubts=2).distance(middle)[0] < 0).all()
    assert (Carving([*blind, *views[2:]], doubts=1).distance(middle)[0] > 0).all()


def test_what_no_picture_shows_is_not_known(ball):
    _, known = ball.distance(torch.tensor([[0.0, 0.0, 50.0], [0.2, -0.1, 0.3]]))
    assert known.tolist() == [False, True]


def test_seen_points_lie_on_the_ball_with_its_colors():
    view = next(iter(views_of(sphere(RADIUS, CENTER.tolist()))))
    points, colors, directions = seen_points(view)
    # The ball is an icosphere: its faces lie a little within.
    torch.testing.assert_close((points - CENTER).norm(dim=-1), torch.full((len(points),), RADIUS), atol=1e-3, rtol=0)
    torch.testing.assert_close(colors, (0.5 + 0.4 * (points - CENTER)), atol=2 / 255, rtol=0)
    origin = torch.from_numpy(np.linalg.inv(view.world_to_camera)[:3, 3]).float()
    torch.testing.assert_close(directions, torch.nn.functional.normalize(points - origin, dim=-1), atol=1e-5, rtol=0)


def test_bad_arguments_are_refused():
    views = list(views_of(sphere(), count=3, size=20))
    with pytest.raises(ValueError, match="doubts must be >= 0 and less than the number of views, got 3 of 3"):
        Carving(views, doubts=3)
    with pytest.raises(ValueError, match="views must all have the same size"):
        Carving([*views, *views_of(sphere(), count=1, size=21)])
