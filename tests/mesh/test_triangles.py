import math

import numpy as np
import pytest
import trimesh

from staf_nerf.mesh.triangles import TriangleMesh, read_mesh
from tests.conftest import data
from tests.mesh.shapes import box, sphere, square


def test_measures_of_a_box():
    made = box((1.0, 2.0, 3.0), center=(5.0, -1.0, 0.5))
    assert made.volume == pytest.approx(6.0)
    assert made.areas.sum() == pytest.approx(22.0)
    assert made.diagonal == pytest.approx(math.sqrt(14.0))
    np.testing.assert_allclose(made.bounds, [[4.5, -2.0, -1.0], [5.5, 0.0, 2.0]])
    assert made.boundary_edges == 0
    assert TriangleMesh(made.vertices, made.triangles[:, ::-1]).volume == pytest.approx(-6.0)


def test_the_volume_does_not_depend_on_the_place():
    near, far = sphere(1e-3), sphere(1e-3, center=(448_000.0, 5_411_000.0, 120.0))
    assert far.volume == pytest.approx(near.volume, rel=1e-4)
    assert TriangleMesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)).volume == 0.0


def test_normals_are_unit_and_point_outward_and_a_needle_has_none():
    made = sphere(2.0)
    middles = made.corners.mean(1)
    np.testing.assert_allclose(np.linalg.norm(made.normals, axis=-1), 1.0)
    assert ((made.normals * middles).sum(-1) > 0).all()
    needle = TriangleMesh(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    assert needle.normals.tolist() == [[0.0, 0.0, 0.0]]


def test_boundary_edges_count_holes_and_edges_of_three_triangles():
    assert square().boundary_edges == 4
    closed = box()
    assert TriangleMesh(closed.vertices, closed.triangles[1:]).boundary_edges == 3
    fin = TriangleMesh(np.vstack([closed.vertices, [[0.0, 0, 9]]]), np.vstack([closed.triangles, [[0, 1, 8]]]))
    assert fin.boundary_edges >= 2


def test_samples_lie_on_the_surface_evenly_and_by_the_seed():
    made = TriangleMesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 3, 5]]), np.array([[0, 1, 2], [3, 4, 5]])
    )
    points, index = made.sample(20_000, np.random.default_rng(0))
    again, _ = made.sample(20_000, np.random.default_rng(0))
    assert np.array_equal(points, again)
    np.testing.assert_allclose(points[:, 2], 5.0 * index)
    # Areas 1/2 and 9/2; standard deviation of the share: sqrt(.1 * .9 / 20000) = 0.002.
    assert (index == 0).mean() == pytest.approx(0.1, abs=0.01)
    large = points[index == 1]
    np.testing.assert_allclose(large.mean(0), [1.0, 1.0, 5.0], atol=0.03)  # the centroid
    assert (large[:, 0] + large[:, 1] <= 3.0 + 1e-9).all()


@pytest.mark.parametrize("name", ["mesh.ply", "mesh.obj", "mesh.stl", "mesh.glb"])
def test_every_format_is_read_with_its_measures(tmp_path, name):
    trimesh.creation.box(extents=(1, 2, 3)).export(tmp_path / name)
    made = read_mesh(tmp_path / name)
    assert made.volume == pytest.approx(6.0, rel=1e-6)
    assert len(made.triangles) == 12


def test_vertex_colours_are_read(tmp_path):
    made = trimesh.creation.box()
    made.visual.vertex_colors = np.tile([255, 51, 0, 255], (8, 1))
    made.export(tmp_path / "mesh.ply")
    stored = read_mesh(tmp_path / "mesh.ply")
    assert stored.colors is not None
    np.testing.assert_allclose(stored.colors, np.tile([1.0, 0.2, 0.0], (8, 1)), atol=1e-6)


def test_a_real_scan_is_read_closed_and_outward():
    made = read_mesh(data("meshes") / "spot.obj")
    assert made.boundary_edges == 0
    assert made.volume > 0


@pytest.mark.parametrize(
    ("vertices", "triangles", "message"),
    [
        (np.zeros((3, 2)), np.zeros((1, 3), int), r"vertices must have shape \(n, 3\), got \(3, 2\)"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "vertices must be finite, got 3 of 3"),
        (np.zeros((3, 3)), np.array([[0, 1, 3]]), "triangles must index 3 vertices, got 0 to 3"),
    ],
)
def test_bad_meshes_are_refused(vertices, triangles, message):
    with pytest.raises(ValueError, match=message):
        TriangleMesh(vertices, triangles)


def test_files_that_are_no_meshes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the mesh .*absent\.ply does not exist"):
        read_mesh(tmp_path / "absent.ply")
    (tmp_path / "text.obj").write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"text\.obj"):
        read_mesh(tmp_path / "text.obj")
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 1\n")
    with pytest.raises(ValueError, match=r"broken\.ply"):
        read_mesh(tmp_path / "broken.ply")
