"""The benchmark of surfaces, in small: every method's mesh stands where the true one does."""

import json

import numpy as np
import pytest

from staf_nerf.bench import surface
from staf_nerf.mesh.export import write_mesh
from staf_nerf.mesh.triangles import box_around
from tests.conftest import write_capture
from tests.mesh.shapes import sphere

SMALL = (
    "staf-nerf-sdf+field.num_levels=2+field.log2_table_size=8+field.hidden_features=8+sampling.proposal_samples=[8]"
    "+sampling.field_samples=8+surface.density_steps=0"
)

FIRST_RADIUS = 0.5 * (16 / 21) * 3.0 * 1.16**0.5
"""Of half the view (16 of 21 focal lengths), where the cameras look: 3 along the ground from them and .4 · 3 below."""


def make_benchmark(tmp_path, **changes) -> surface.SurfaceBenchmark:
    write_capture(tmp_path / "capture", size=(48, 32))
    write_mesh(tmp_path / "truth.ply", sphere(FIRST_RADIUS, subdivisions=3))
    options = {"methods": (SMALL,), "minutes": 0.002, "rays": 32, "resolution": 32, **changes}
    return surface.SurfaceBenchmark(
        tmp_path / "capture", tmp_path / "truth.ply", (-2.0, -2.0, -2.0, 2.0, 2.0, 2.0), **options
    )


def test_it_reports_views_and_mesh_and_does_not_run_again_what_is_there(tmp_path):
    output, meshes = tmp_path / "result.json", tmp_path / "meshes"
    benchmark = make_benchmark(tmp_path, output=output, meshes=meshes)
    (row,) = surface.compare_meshes(benchmark)["rows"]
    assert row["psnr"] == pytest.approx(np.mean(row["views"]))
    # After a few steps it is near the sphere that it began as, and that is in its place in the capture's coordinates.
    assert row["chamfer_l1"] < 0.3
    assert row["normal_consistency"] > 0.9
    assert [path.suffix for path in meshes.iterdir() if path.suffix == ".ply"] == [".ply"]
    assert surface.compare_meshes(benchmark)["rows"] == json.loads(output.read_text())["rows"]


def test_the_box_around_a_turned_box_holds_its_corners():
    turn = np.eye(4)
    turn[:2, :2] = [[0.0, -1.0], [1.0, 0.0]]
    turn[:3, 3] = [0.0, 0.0, 5.0]
    low, high = box_around(np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), turn)
    np.testing.assert_allclose(low, [-2.0, 0.0, 5.0])
    np.testing.assert_allclose(high, [0.0, 1.0, 8.0])


def test_stock_nerfacto_s_mesh_is_moved_to_the_capture(tmp_path):
    benchmark = make_benchmark(tmp_path, methods=("nerfacto",))
    (row,) = surface.compare_meshes(benchmark)["rows"]
    assert row["triangles"] > 0
    assert np.isfinite(row["chamfer_l1"])


def test_a_wrong_method_is_named_before_any_training(tmp_path):
    with pytest.raises(ValueError, match="methods must start with one of"):
        surface.main(make_benchmark(tmp_path, methods=("neus",)))
