import json
import math

import numpy as np
import pytest
import trimesh

from staf_nerf.mesh.compare import align, compare
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import TriangleMesh
from tests.mesh.shapes import box, sphere, square
from tests.plugin.conftest import command


def test_a_surface_is_no_distance_from_itself():
    comparison = compare(sphere(), sphere(), points=20_000)
    assert comparison.chamfer_l1 < 1e-6
    assert comparison.f_score == (1.0, 1.0)
    assert comparison.normal_consistency == pytest.approx(1.0, abs=1e-4)
    assert comparison.iou == 1.0


def test_concentric_spheres_are_their_radii_apart():
    comparison = compare(sphere(1.1), sphere(1.0), points=20_000)
    # The meshes lie within 4e-4 of the spheres.
    assert comparison.chamfer_l1 == pytest.approx(2 * 0.1, abs=1e-3)
    assert comparison.chamfer_squared == pytest.approx(2 * 0.01, abs=2e-4)
    assert comparison.iou == pytest.approx(1 / 1.1**3, abs=0.015)  # 20000 points: standard deviation .004
    assert comparison.normal_consistency > 0.999
    assert comparison.f_score == (0.0, 0.0)  # 0.5 % and 1 % of a diagonal of 3.46


def test_parallel_squares_fail_one_radius_and_pass_another():
    comparison = compare(square(0.010), square(), points=5_000, thresholds=(0.005, 0.01))  # radii .0071 and .0141
    assert comparison.precision == comparison.recall == comparison.f_score == (0.0, 1.0)
    assert comparison.iou is None  # neither is closed


def test_a_half_has_full_precision_and_half_the_recall():
    whole = square()
    half = TriangleMesh(whole.vertices * [0.5, 1, 1], whole.triangles)
    comparison = compare(half, whole, points=20_000, thresholds=(1e-4,))
    assert comparison.precision == (1.0,)
    assert comparison.recall[0] == pytest.approx(0.5, abs=0.02)
    assert comparison.f_score[0] == pytest.approx(2 / 3, abs=0.02)
    # From the other half it is 1/4 away on average, from this one 0.
    assert comparison.chamfer_l1 == pytest.approx(1 / 8, abs=0.005)
    assert comparison.chamfer_l1_parts == (pytest.approx(0.0, abs=1e-6), pytest.approx(1 / 8, abs=0.005))
    assert sum(comparison.chamfer_squared_parts) == pytest.approx(comparison.chamfer_squared)


def test_boxes_that_overlap_by_half_share_a_third():
    comparison = compare(box(center=(0.5, 0, 0)), box(), points=50_000)
    assert comparison.iou == pytest.approx(1 / 3, abs=0.01)


def test_normals_at_an_angle_agree_by_its_cosine():
    flat = square()
    angle = math.radians(60)
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    tilted = TriangleMesh(flat.vertices @ turn.T, flat.triangles)
    assert compare(tilted, flat, points=5_000).normal_consistency == pytest.approx(0.5, abs=1e-6)


def test_scale_and_place_do_not_matter_but_by_units():
    near = compare(sphere(1.1), sphere(1.0), points=5_000)
    far = compare(sphere(1100, (1e6, 0, -1e6)), sphere(1000, (1e6, 0, -1e6)), points=5_000)
    assert far.chamfer_l1 == pytest.approx(1000 * near.chamfer_l1, rel=1e-3)
    assert far.iou == pytest.approx(near.iou, abs=1e-3)


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (448_000.0, 5_411_000.0, 120.0)])
def test_alignment_undoes_a_small_motion(place):
    bumpy = sphere()
    shape = bumpy.vertices * [1.0, 0.7, 0.4]
    stretched = TriangleMesh(shape + place, bumpy.triangles)
    angle = math.radians(8)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    moved = TriangleMesh(shape @ turn.T + [0.05, -0.03, 0.02] + place, stretched.triangles)
    assert compare(moved, stretched, points=5_000).chamfer_l1 > 0.05
    np.testing.assert_allclose(align(moved, stretched).vertices - place, shape, atol=2e-3)


def test_alignment_says_so_where_there_is_nothing_near():
    with pytest.raises(ValueError, match=r"alignment needs meshes within 0\.1 of the reference's diagonal"):
        align(sphere(center=(30.0, 0.0, 0.0)), sphere())


def test_the_command_prints_a_table_and_writes_what_it_says(tmp_path):
    for name, radius in (("a.ply", 1.1), ("b.ply", 1.0)):
        made = sphere(radius)
        trimesh.Trimesh(made.vertices, made.triangles, process=False).export(tmp_path / name)
    printed = command("staf", "compare", "a.ply", "b.ply", "--output", "c.json", cwd=tmp_path).stdout
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert comparison["chamfer_l1"] == pytest.approx(0.2, abs=1e-3)
    assert f"{comparison['iou']:.4f}" in printed
    failed = command("staf", "compare", "a.ply", "absent.ply", cwd=tmp_path, check=False)
    assert "staf: the mesh absent.ply does not exist" in failed.stdout


def test_inside_is_inside():
    points = np.array([[0.0, 0, 0], [0.49, 0.49, 0.49], [0.51, 0, 0], [3, 3, 3]])
    assert Surface(box()).inside(points).tolist() == [True, True, False, False]


def test_a_mesh_without_area_is_refused():
    needle = TriangleMesh(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="positive area"):
        compare(needle, square())
