import numpy as np
import pytest

from staf_nerf.mesh.clean import (
    boundary_parts,
    cropped,
    decimated,
    repair,
    visible_part,
    within_hull,
    without_floaters,
    without_small_holes,
    without_unseen,
)
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import TriangleMesh
from tests.mesh.shapes import box, sphere, square


def together(*meshes: TriangleMesh) -> TriangleMesh:
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    triangles = [m.triangles + start for m, start in zip(meshes, starts, strict=False)]
    return TriangleMesh(np.concatenate([m.vertices for m in meshes]), np.concatenate(triangles))


def test_a_sound_mesh_is_left_as_it_is():
    mesh, found = repair(sphere(subdivisions=3))
    assert found.lines() == []
    assert mesh.volume == pytest.approx(sphere(subdivisions=3).volume, rel=1e-12)
    assert len(mesh.triangles) == len(sphere(subdivisions=3).triangles)


def test_triangles_that_face_inwards_are_turned_and_counted():
    good = sphere(subdivisions=2)
    triangles = good.triangles.copy()
    triangles[:17] = triangles[:17, ::-1]
    mesh, found = repair(TriangleMesh(good.vertices, triangles))
    assert found.flipped_triangles == 17
    assert mesh.volume == pytest.approx(good.volume, rel=1e-12)


def test_a_mesh_that_is_inside_out_is_turned():
    good = together(sphere(subdivisions=2), box(center=(5.0, 0.0, 0.0)))
    mesh, found = repair(TriangleMesh(good.vertices, good.triangles[:, ::-1]))
    assert found.flipped_triangles == len(good.triangles)
    assert mesh.volume == pytest.approx(good.volume, rel=1e-12)


def test_triangles_without_area_or_there_twice_are_dropped():
    good = sphere(subdivisions=2)
    extra = np.array([[0, 0, 5], [7, 7, 7]])
    mesh, found = repair(
        TriangleMesh(good.vertices, np.concatenate([good.triangles, extra, good.triangles[:3, [1, 2, 0]]]))
    )
    assert found.dropped_triangles == 5
    assert len(mesh.triangles) == len(good.triangles)


def test_a_small_hole_is_filled_and_a_large_one_is_named():
    good = sphere(subdivisions=4)
    top = (good.corners @ good.vertices[0]).min(1) > 0.997  # within .077 of a vertex
    assert 3 < top.sum() < 40
    mesh, found = repair(TriangleMesh(good.vertices, good.triangles[~top]))
    assert found.filled_holes == 1
    assert mesh.boundary_edges == 0
    assert mesh.volume == pytest.approx(good.volume, rel=1e-3)  # a flat lid
    cap = good.corners[:, :, 2].min(1) > 0.5
    mesh, found = repair(TriangleMesh(good.vertices, good.triangles[~cap]))
    assert found.filled_holes == 0
    assert found.boundary_edges == mesh.boundary_edges > 20
    assert f"{mesh.boundary_edges} boundary edges" in " ".join(found.lines())
    assert len(boundary_parts(mesh)) == 1


def test_a_lid_on_an_open_surface_faces_as_what_is_around_it():
    good = sphere(subdivisions=4)
    lowest = good.vertices[good.vertices[:, 2].argmin()]
    bowl = (good.corners[:, :, 2].max(1) < 0.3) & ~((good.corners @ lowest).min(1) > 0.994)
    for triangles in (good.triangles[bowl], good.triangles[bowl][:, ::-1]):
        mesh = TriangleMesh(good.vertices, triangles)
        filled, count = without_small_holes(mesh)
        assert count == 1
        np.testing.assert_array_equal(filled.triangles[: len(triangles)], triangles)
        lid, around = filled.normals[len(triangles) :, 2], mesh.normals[mesh.corners[:, :, 2].min(1) < -0.98, 2]
        assert (np.sign(lid) == np.sign(around.mean())).all()
    assert without_small_holes(mesh, 0.0)[1] == 0


def test_a_cavity_stays_one_and_what_is_inside_out_beside_it_is_turned():
    outer, inner, beside = sphere(1.0), sphere(0.5), sphere(0.3, center=(3.0, 0.0, 0.0))
    starts = np.cumsum([0, len(outer.vertices), len(inner.vertices)])
    mesh = TriangleMesh(
        np.concatenate([outer.vertices, inner.vertices, beside.vertices]),
        np.concatenate(
            [
                outer.triangles,
                inner.triangles[:, ::-1] + starts[1],
                beside.triangles[:, ::-1] + starts[2],
            ]
        ),
    )
    found, repairs = repair(mesh)
    assert repairs.flipped_triangles == len(beside.triangles)
    assert found.volume == pytest.approx(outer.volume - inner.volume + beside.volume)


def test_loose_triangles_are_no_holes():
    good = sphere(subdivisions=3)
    apart = TriangleMesh(good.corners.reshape(-1, 3), np.arange(3 * len(good.triangles)).reshape(-1, 3))
    soup, found = repair(
        TriangleMesh(apart.vertices * (1 + 1e-9 * np.arange(len(apart.vertices))[:, None]), apart.triangles)
    )
    assert found.filled_holes == 0
    assert len(soup.triangles) == len(good.triangles)
    open_box = box()
    quad = np.array([[3.0, 3, 3], [3.01, 3, 3], [3.01, 3.01, 3], [3, 3.01, 3]])
    loose = np.array([[0, 1, 2], [0, 2, 3]]) + len(open_box.vertices)
    mesh = TriangleMesh(np.concatenate([open_box.vertices, quad]), np.concatenate([open_box.triangles, loose]))
    assert without_small_holes(mesh)[1] == 0


@pytest.mark.parametrize("triangles", [np.zeros((0, 3), dtype=np.int64), np.array([[0, 0, 1]])])
def test_a_mesh_without_area_is_refused(triangles):
    with pytest.raises(ValueError, match="a mesh needs triangles with a positive area"):
        repair(TriangleMesh(np.eye(3), triangles))


def test_components_are_numbered_by_area():
    mesh = together(sphere(0.2, (3.0, 0.0, 0.0), 2), sphere(subdivisions=2), sphere(0.5, (0.0, 4.0, 0.0), 2))
    number = mesh.components.reshape(3, -1)
    assert (number == np.array([[2], [0], [1]])).all()


def test_floaters_go_and_what_is_large_stays():
    mesh = together(sphere(0.05, (3.0, 0.0, 0.0), 2), sphere(subdivisions=2), sphere(0.5, (0.0, 4.0, 0.0), 2))
    size = len(sphere(subdivisions=2).triangles)
    assert len(without_floaters(mesh, smallest=0.1).triangles) == 2 * size
    assert len(without_floaters(mesh, smallest=0.0).triangles) == 3 * size
    assert len(without_floaters(mesh, smallest=0.0, most=1).triangles) == size
    for bad, message in (({"smallest": 2.0}, "smallest must be between"), ({"most": 0}, "most must be >= 1")):
        with pytest.raises(ValueError, match=message):
            without_floaters(mesh, **bad)


def test_cropping_keeps_what_is_all_inside():
    mesh = cropped(together(box(), box(center=(3.0, 0.0, 0.0))), np.array([[-1.0, -1.0, -1.0], [3.0, 1.0, 1.0]]))
    assert len(mesh.triangles) >= 12
    assert mesh.bounds[1, 0] <= 3.0
    assert len(cropped(square(), np.array([[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])).triangles) == 0


def test_decimation_keeps_the_shape():
    mesh = decimated(sphere(), 1000)
    assert 900 <= len(mesh.triangles) <= 1000
    assert mesh.volume == pytest.approx(sphere().volume, rel=0.02)
    ball = sphere()
    small = decimated(TriangleMesh(1e-4 * ball.vertices + 5.0, ball.triangles, ball.vertices / 2 + 0.5), 200)
    assert 150 <= len(small.triangles) <= 200
    assert small.boundary_edges == 0
    assert small.bounds.mean(0) == pytest.approx([5.0, 5.0, 5.0], abs=1e-5)
    assert small.colors is not None  # that of the place
    assert np.abs(small.colors - ((small.vertices - 5.0) / 2e-4 + 0.5)).max() < 0.1
    assert decimated(sphere(subdivisions=2), 10**6).triangles.shape == sphere(subdivisions=2).triangles.shape
    with pytest.raises(ValueError, match="triangles must be >= 1, got 0"):
        decimated(sphere(), 0)


def test_what_no_ray_meets_first_is_left_out():
    mesh = together(sphere(), sphere(0.5), sphere(0.1, (0.7, 0.0, 0.0)))
    directions = np.random.default_rng(0).standard_normal((2000, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    found = without_unseen(mesh, -5.0 * directions, directions)  # through the origin, from all sides
    assert len(found.triangles) == len(sphere().triangles)
    assert found.bounds[1, 0] == pytest.approx(1.0, abs=1e-3)


def test_a_hull_keeps_what_lies_between_the_points():
    corners = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    mesh = together(sphere(0.5, subdivisions=2), sphere(0.5, (1.0, 0.0, 0.0), 3))
    found = within_hull(mesh, corners)
    assert found.bounds[1, 0] <= 1.0
    assert len(sphere(subdivisions=2).triangles) < len(found.triangles) < len(mesh.triangles)
    with pytest.raises(ValueError, match="do not lie in a plane, got 4 points"):
        within_hull(mesh, corners[:4])


def test_what_an_eye_sees_is_the_outside_that_faces_it():
    inner = TriangleMesh(0.5 * sphere(subdivisions=3).vertices, sphere(subdivisions=3).triangles)
    both = together(sphere(subdivisions=3), inner)
    found = visible_part(both, np.array([[0.0, 0.0, 1000.0]]))
    np.testing.assert_allclose(np.linalg.norm(found.vertices, axis=1), 1.0, atol=0.01)  # flat triangles between
    assert found.vertices[:, 2].min() > -0.05
    assert found.areas.sum() == pytest.approx(2.0 * np.pi, rel=0.05)
    assert visible_part(both, np.array([[0.0, 0.0, 1e3], [0.0, 0.0, -1e3]])).areas.sum() == pytest.approx(
        4.0 * np.pi, rel=0.05
    )


def test_vertices_at_one_place_become_one_also_where_they_differ_by_rounding():
    good = sphere(subdivisions=3)
    apart = TriangleMesh(good.corners.reshape(-1, 3), np.arange(3 * len(good.triangles)).reshape(-1, 3))
    mesh, found = repair(apart)
    assert found.repeated_vertices == len(apart.vertices) - len(good.vertices)
    assert (found.joined_vertices, mesh.watertight) == (0, True)
    far = (apart.vertices + 100.0).astype(np.float32).astype(np.float64)
    far += 1e-5 * np.random.default_rng(0).uniform(-1, 1, far.shape)
    for rounded in (np.round(0.15 * apart.vertices, 6) + 0.3e-6 * (np.arange(len(apart.vertices)) % 3)[:, None], far):
        mesh, found = repair(TriangleMesh(rounded, apart.triangles))
        assert mesh.watertight
        assert found.joined_vertices > 500
        assert mesh.volume == pytest.approx(good.volume * ((rounded.max() < 1 and 0.15**3) or 1), rel=1e-3)
        assert "differed by rounding" in " ".join(found.lines())


def test_fine_detail_is_no_rounding():
    bowl = sphere(0.01, subdivisions=3)
    bowl = TriangleMesh(bowl.vertices, bowl.triangles[bowl.corners[:, :, 2].max(1) < 0.005])
    stray = TriangleMesh(np.array([[1e4, 0, 0], [1e4, 1, 0], [1e4, 0, 1.0]]), np.array([[0, 1, 2]]))
    mesh, found = repair(together(bowl, stray))
    assert found.joined_vertices == 0
    assert len(mesh.triangles) >= len(bowl.triangles) + 1


def hollow(mesh: TriangleMesh) -> TriangleMesh:
    return TriangleMesh(mesh.vertices, mesh.triangles[:, ::-1])


POINTS = np.random.default_rng(0).uniform(-1.5, 1.5, (20_000, 3))


def in_box(center=(0.0, 0.0, 0.0), size=1.0):
    return (np.abs(POINTS - center) < size / 2).all(1)


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (
            together(box(center=(-0.25, 0, 0)), box(center=(0.25, 0.1, 0))),
            in_box((-0.25, 0, 0)) | in_box((0.25, 0.1, 0)),
        ),
        (together(box((2.0, 2.0, 2.0)), hollow(box())), in_box(size=2.0) & ~in_box()),
        (hollow(together(box((2.0, 2.0, 2.0)), hollow(box()))), in_box(size=2.0) & ~in_box()),
        (
            hollow(together(box((2.0, 2.0, 2.0)), hollow(box()), box((0.5, 0.5, 0.5)))),
            in_box(size=2.0) & ~in_box() | in_box(size=0.5),
        ),
        (together(box(), box(center=(1.0, 0.0, 0.0))), in_box() | in_box((1.0, 0.0, 0.0))),
        (together(box(), hollow(box(center=(0.4, 0.3, 0.2)))), in_box() | in_box((0.4, 0.3, 0.2))),
        (together(box(), box((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))), in_box()),
        (
            together(box(center=(-0.25, 0, 0)), box(center=(0.25, 0.1, 0)), square(height=1.2)),
            in_box((-0.25, 0, 0)) | in_box((0.25, 0.1, 0)),
        ),
    ],
    ids=["across", "cavity", "inverted cavity", "solid in it", "wall", "one inverted", "shared corner", "and a sheet"],
)
def test_what_is_inside_of_several_parts(mesh, expected):
    repaired, found = repair(mesh)
    surface = Surface(repaired)
    np.testing.assert_array_equal(surface.inside(POINTS), expected)
    assert ("winding numbers" in " ".join(found.lines())) == bool(found.boundary_edges)
    np.testing.assert_array_equal(surface.signed_distance(POINTS) < 0, surface.inside(POINTS))


def test_a_wall_that_two_parts_share_goes_and_a_two_sided_sheet_stays():
    mesh, found = repair(together(box(), box(center=(1.0, 0.0, 0.0))))
    assert mesh.volume == pytest.approx(2.0)
    assert found.boundary_edges == 0
    sheet = square()
    mesh, found = repair(together(sheet, hollow(sheet)))
    assert (len(mesh.triangles), found.dropped_triangles) == (2, 2)
    mesh, _ = repair(together(box(), hollow(box())))
    assert mesh.volume == pytest.approx(1.0)


def test_thousands_of_parts_that_meet_are_no_trouble():
    random = np.random.default_rng(0)
    centers = random.uniform(-1, 1, (2000, 3))
    grapes = together(*(sphere(0.08, center, 1) for center in centers))
    mesh, found = repair(grapes)
    assert found.closed_parts == 2000
    expected = np.linalg.norm(POINTS[:500, None] - centers, axis=-1).min(1)
    clear = np.abs(expected - 0.08) > 0.02  # the balls have few facets
    np.testing.assert_array_equal(Surface(mesh).inside(POINTS[:500])[clear], (expected < 0.08)[clear])


def test_boxes_that_share_an_edge_are_closed():
    mesh, found = repair(together(box(), box(center=(1.0, 1.0, 0.0))))
    assert (found.boundary_edges, found.shared_edges) == (0, 1)
    assert not mesh.watertight
    assert "warning" not in " ".join(found.lines())
    inside = Surface(mesh).inside(np.array([[0.1, 0.2, 0.3], [1.1, 0.9, 0.2], [1.0, 0.0, 0.0]]))
    assert inside.tolist() == [True, True, False]
