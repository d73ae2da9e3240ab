import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import trimesh

from staf_nerf.checkpoint import load_shape
from staf_nerf.config import ActivationConfig, FieldConfig, FitConfig, ShapeConfig
from staf_nerf.errors import IncompleteError
from staf_nerf.fields import NeuralField
from staf_nerf.jobs.fit import fit_files
from staf_nerf.mesh.clean import without_floaters
from staf_nerf.mesh.export import write_mesh
from staf_nerf.mesh.points import PointCloud
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import TriangleMesh, read_mesh
from staf_nerf.metrics.shape import measure_points, measure_shape
from staf_nerf.presets import load_preset, preset_names
from staf_nerf.signals.shape import Frame
from staf_nerf.tasks import shape
from staf_nerf.tasks.shape import read_shape, refuse_without_effect, shape_mesh
from tests.fits import fit_job
from tests.mesh.shapes import sphere, square
from tests.plugin.conftest import command

SMALL = ShapeConfig(
    field=FieldConfig(activation=ActivationConfig("staf", {"first_omega": 10.0}), hidden_features=64, hidden_layers=2),
    fit=FitConfig(steps=300, points=4096, hidden_learning_rate=5e-3),
    cached_points=2**17,
)
OF_POINTS = dataclasses.replace(SMALL, cached_points=ShapeConfig().cached_points)
"""The same without an option of meshes."""


def fit_shape(file, config, **options):
    (found,) = fit_files(fit_job("shape", file, config=config, **options))
    return found


@pytest.fixture
def ring(tmp_path):
    """A torus off the centre, of another scale than the network's: radii 6 and 2."""
    made = trimesh.creation.torus(6.0, 2.0, major_sections=96, minor_sections=48)
    made.apply_translation([10.0, -4.0, 3.0])
    made.export(tmp_path / "ring.obj")
    return tmp_path / "ring.obj"


@pytest.mark.parametrize("quantity", ["signed-distance", "occupancy"])
def test_a_mesh_becomes_a_field_whose_surface_is_the_mesh(ring, quantity, tmp_path):
    output = tmp_path / "out"
    found = fit_shape(ring, dataclasses.replace(SMALL, quantity=quantity), output=output, resolution=96)
    assert found == json.loads((output / "metrics.json").read_text())
    assert {path.name for path in output.iterdir()} == {
        "curve.png", "field.safetensors", "mesh.glb", "mesh.ply", "metrics.json", "preview.png", "report.html",
        "sinusoids.npz", "sinusoids.png",
    }  # fmt: skip
    measures = found["metrics"]
    assert measures["field_iou"] > (0.98 if quantity == "signed-distance" else 0.95)
    assert measures["f_score"][1] > 0.99
    assert measures["normal_consistency"] > 0.98
    if quantity == "signed-distance":
        assert abs(measures["iou"] - measures["field_iou"]) < 0.01
        # The tube's radius is 2.
        assert measures["distance_error"] < 0.04
    else:
        assert measures["squared_error"] < 0.03
        assert abs(measures["grid_iou"] - measures["field_iou"]) < 0.02
    made = without_floaters(read_mesh(output / "mesh.ply"), smallest=0.5)
    np.testing.assert_allclose(made.bounds, [[2.0, -12.0, 1.0], [18.0, 4.0, 5.0]], atol=0.2)
    model, config, frame = load_shape(output / "field.safetensors")
    again = without_floaters(shape_mesh(model, config, frame, resolution=96), smallest=0.5)
    assert len(again.triangles) == len(made.triangles)


def test_what_learned_of_the_box_alone_has_nothing_outside_of_it(ring, tmp_path):
    config = dataclasses.replace(SMALL, quantity="occupancy", grid=64, surface_part=0.0, near_part=0.0)
    result = fit_shape(ring, config, output=tmp_path / "out", resolution=96, epoch_metrics=True)
    found, per_epoch = result["metrics"], -(-64 * 64 * 16 // config.fit.points)
    assert [row["step"] for row in result["epochs"]] == list(range(per_epoch, config.fit.steps + 1, per_epoch))
    assert found["grid_iou_of_best_epoch"] == max(row["grid_iou"] for row in result["epochs"])
    assert abs(found["grid_iou_of_best_epoch"] - found["grid_iou"]) < 0.02
    assert found["iou"] is not None
    assert found["iou"] > 0.9
    assert abs(found["grid_iou"] - found["field_iou"]) < 0.03
    model, config, frame = load_shape(tmp_path / "out" / "field.safetensors")
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in (64, 64, 16)]
    middles = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) * np.array([1.7, 1.7, 0.425])
    inside = Surface(read_mesh(ring)).inside(frame.denormalize(middles))
    with torch.no_grad():
        values = model(torch.from_numpy(middles).float())[:, 0].double().numpy()
    assert found["grid_iou"] == pytest.approx((inside & (values > 0.5)).sum() / (inside | (values > 0.5)).sum())
    assert found["squared_error"] == pytest.approx(((values - inside) ** 2).mean(), rel=1e-6)
    made, truth = read_mesh(tmp_path / "out" / "mesh.ply"), read_mesh(ring)
    assert (made.bounds[0] > truth.bounds[0] - 0.2).all()
    assert (made.bounds[1] < truth.bounds[1] + 0.2).all()
    np.testing.assert_allclose(np.array(frame.size) * frame.scale, [16.0, 16.0, 4.0], atol=0.1)


def test_passes_are_scored_where_they_can_be_counted(ring, tmp_path):
    for changes in ({"quantity": "occupancy"}, {"grid": 64}):
        with pytest.raises(ValueError, match="metrics after each epoch need a mesh, an occupancy and a grid"):
            fit_shape(ring, dataclasses.replace(SMALL, **changes), output=tmp_path / "out", epoch_metrics=True)
    assert not (tmp_path / "out").exists()


def test_points_with_normals_become_a_surface_through_them(tmp_path):
    points, index = sphere(2.0, (5.0, 0.0, 0.0)).sample(3000, np.random.default_rng(0))
    np.savez(tmp_path / "ball.npz", points=points, normals=sphere(2.0).normals[index])
    config = dataclasses.replace(OF_POINTS, fit=FitConfig(steps=250, points=2048))
    found = fit_shape(tmp_path / "ball.npz", config, output=tmp_path / "out", resolution=64)["metrics"]
    assert found["mean_distance"] < 0.02
    assert found["normal_agreement"] > 0.98
    assert found["stray_part"] == 0.0
    assert found["surface_distance"] < 0.1  # 3000 points on 50 units of area
    assert found["eikonal_error"] < 0.1
    made = read_mesh(tmp_path / "out" / "mesh.ply")
    assert made.volume == pytest.approx(4 / 3 * np.pi * 8, rel=0.05)


def test_points_without_normals_become_a_surface_through_them(tmp_path):
    np.savetxt(tmp_path / "ball.xyz", sphere(2.0, (5.0, 0.0, 0.0)).sample(3000, np.random.default_rng(0))[0])
    config = dataclasses.replace(OF_POINTS, fit=FitConfig(steps=250, points=2048))
    found = fit_shape(tmp_path / "ball.xyz", config, output=tmp_path / "out", resolution=64)["metrics"]
    assert found["mean_distance"] < 0.03
    assert found["stray_part"] == 0.0
    assert found["normal_agreement"] is None
    made = read_mesh(tmp_path / "out" / "mesh.ply")
    assert made.volume == pytest.approx(4 / 3 * np.pi * 8, rel=0.05)  # and it faces outwards


def test_a_surface_without_points_is_stray():
    ball, other = sphere(1.0), sphere(0.5, (5.0, 0.0, 0.0))
    cloud = PointCloud(ball.sample(5000, np.random.default_rng(0))[0])
    both = TriangleMesh(
        np.concatenate([ball.vertices, other.vertices]),
        np.concatenate([ball.triangles, other.triangles + len(ball.vertices)]),
    )
    found = measure_points(NeuralField(3, 1, SMALL.field), Frame.of(cloud.bounds), both, cloud)
    assert found["stray_part"] == pytest.approx(0.2, abs=0.01)  # of their areas
    assert found["surface_distance"] > 0.5
    assert found["mean_distance"] < 1e-3


def test_measures_of_a_field_that_is_the_distance_are_perfect():
    class Ball(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.radius = torch.nn.Parameter(torch.tensor(0.85))

        def forward(self, x):
            return x.norm(dim=-1, keepdim=True) - self.radius

    reference, frame = sphere(3.0, (1.0, 2.0, 3.0)), Frame((1.0, 2.0, 3.0), 3.0 / 0.85)
    mesh = shape_mesh(Ball(), ShapeConfig(), frame, resolution=64)
    found = measure_shape(Ball(), ShapeConfig(), frame, mesh, reference, points=20_000)
    assert found["field_iou"] > 0.995  # the reference is a polyhedron inside the sphere
    assert found["eikonal_error"] < 1e-5
    assert found["distance_error"] < 3.0 * 4e-4
    assert found["f_score"] == (1.0, 1.0)


def test_what_a_file_holds_decides_how_it_is_read(tmp_path):
    import open3d

    ball = sphere(subdivisions=3)
    open3d.io.write_point_cloud(
        str(tmp_path / "points.ply"), open3d.geometry.PointCloud(open3d.utility.Vector3dVector(ball.vertices))
    )
    cloud, lines = read_shape(tmp_path / "points.ply")
    assert isinstance(cloud, PointCloud)
    assert "no normals" in lines[0]
    trimesh.Trimesh(ball.vertices, ball.triangles).export(tmp_path / "mesh.ply")
    mesh, lines = read_shape(tmp_path / "mesh.ply")
    assert isinstance(mesh, TriangleMesh)
    assert lines == []
    flat = square()
    trimesh.Trimesh(flat.vertices, flat.triangles).export(tmp_path / "square.obj")
    _, (line,) = read_shape(tmp_path / "square.obj")
    assert "4 boundary edges" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.obj", None, "no file"),
        ("none.ply", None, "no file"),
        ("empty.obj", "", "is empty|contains no triangles|cannot read"),
        ("nan.obj", "v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n", "vertices must be finite"),
        ("point.obj", "v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "triangles with a positive area|contains no triangles"),
    ],
)
def test_bad_files_are_refused_in_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fit_shape(tmp_path / name, SMALL, output=tmp_path / "out")


def test_one_triangle_is_fitted_with_a_warning(tmp_path, capsys):
    """It has no inside: what the field makes of it is told by its boundary edges and by no volume."""
    (tmp_path / "one.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    config = dataclasses.replace(SMALL, fit=FitConfig(steps=30, points=512), cached_points=2**12)
    found = fit_shape(tmp_path / "one.obj", config, output=tmp_path / "out", resolution=32)
    assert found["metrics"]["iou"] is None
    printed = capsys.readouterr().out
    assert "3 boundary edges" in printed
    assert "- (a surface is open)" in printed


def test_a_signed_distance_may_learn_from_a_grid(ring, tmp_path):
    config = dataclasses.replace(SMALL, grid=64, surface_part=0.0, near_part=0.0)
    found = fit_shape(ring, config, output=tmp_path / "out", resolution=64)["metrics"]
    assert found["iou"] > 0.95
    np.testing.assert_allclose(read_mesh(tmp_path / "out" / "mesh.ply").bounds[1], [18.0, 4.0, 5.0], atol=0.3)


def test_a_fit_without_a_surface_says_what_can_be_done(ring, tmp_path, monkeypatch, capsys):
    def nowhere(*arguments, **options):
        raise ValueError("the field is between 1 and 2")

    monkeypatch.setattr(shape, "shape_mesh", nowhere)
    config = dataclasses.replace(SMALL, fit=FitConfig(steps=1, points=64), cached_points=2**12)
    with pytest.raises(IncompleteError, match=r"failed, for the reasons above: ring.obj: surface"):
        fit_shape(ring, config, output=tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"between 1 and 2. The fit is kept: .staf mesh .*--overwrite", printed)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"field.safetensors", "metrics.json", "report.html"}
    assert not made & {"mesh.glb", "mesh.ply", "preview.png"}
    assert "surface" in json.loads((tmp_path / "out" / "metrics.json").read_text())["failed"]


@pytest.mark.parametrize("stage", ["write_mesh", "measure_shape", "save_preview"])
def test_a_late_stage_that_fails_takes_nothing_from_the_others(ring, tmp_path, monkeypatch, stage):
    def fails(*arguments, **options):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(shape, stage, fails)
    config = dataclasses.replace(SMALL, fit=FitConfig(steps=100, points=1024), cached_points=2**14)
    with pytest.raises(IncompleteError):
        fit_shape(ring, config, output=tmp_path / "out", resolution=32)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    own = {"write_mesh": {"mesh.glb", "mesh.ply"}, "measure_shape": set(), "save_preview": {"preview.png"}}[stage]
    assert made >= {"field.safetensors", "mesh.glb", "mesh.ply", "metrics.json", "preview.png", "report.html"} - own
    assert not made & own
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert all("sudo apt install libgl1" in reason for reason in metrics["failed"].values())
    assert bool(metrics["metrics"]) == (stage != "measure_shape")


def test_what_a_cloud_cannot_teach_is_refused_before_anything_is_written(tmp_path):
    np.savetxt(tmp_path / "cloud.xyz", sphere(subdivisions=2).vertices)
    config = dataclasses.replace(SMALL, quantity="occupancy")
    with pytest.raises(ValueError, match="quantity must be 'signed-distance' for a point cloud"):
        fit_shape(tmp_path / "cloud.xyz", config, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_s_repeated_vertices_are_said(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.stl")
    mesh, lines = read_shape(tmp_path / "box.stl")
    assert len(mesh.vertices) == 8
    assert lines == ["merged 28 vertices at equal positions"]


def test_the_command_fits_makes_a_mesh_and_refuses_what_is_wrong(ring, tmp_path):
    command(
        "staf", "fit", "shape", ring, "--hidden-features", 32, "--hidden-layers", 2, 
        "--steps", 200, "--points", 2048, "--activation", "staf:first_omega=10", "--cached-points", 50000,
        "--resolution", 48, "--output", "out",
        cwd=tmp_path,
    )  # fmt: skip
    printed = command(
        "staf", "mesh", "out", "--output", "made/ring.obj", "--resolution", 40,
        cwd=tmp_path,
    ).stdout  # fmt: skip
    assert "watertight" in printed
    assert read_mesh(tmp_path / "made" / "ring.obj").bounds[1, 0] == pytest.approx(18.0, abs=0.7)
    for arguments, message in (
        (("mesh", "--checkpoint", "out"), "--checkpoint is not an option any more; write: staf mesh RUN"),
        (("mesh", "out", "--view-pixels", "9"), "--view-pixels has no effect on a fitted shape"),
        (("mesh", "out/field.safetensors", "--output", "a.fbx"), "must end in one of"),
        (("fit", "shape", "nothing.obj"), "no file nothing.obj"),
    ):
        result = command("staf", *arguments, cwd=tmp_path, check=False)
        assert result.returncode == 1
        assert message in result.stdout
        assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("is_cloud", "changes", "message"),
    [
        (True, {"softness": 0.5, "near_part": 0.1}, "on a point cloud: near_part, softness; leave them"),
        (False, {"quantity": "occupancy", "eikonal_weight": 0.1}, "on an occupancy: eikonal_weight; leave them"),
    ],
)
def test_options_without_effect_on_the_shape_are_refused(is_cloud, changes, message):
    usual = load_preset("shape", "cpu", ShapeConfig())
    refuse_without_effect(usual, is_cloud=is_cloud)
    with pytest.raises(ValueError, match=message):
        refuse_without_effect(dataclasses.replace(usual, **changes), is_cloud=is_cloud)


def test_the_shipped_presets_have_no_option_without_effect():
    for name in preset_names("shape"):
        refuse_without_effect(load_preset(name, "cpu", ShapeConfig()), is_cloud=False)


def test_what_a_fit_of_a_shape_cannot_use_is_said_before_it_starts(tmp_path):
    write_mesh(tmp_path / "ball.ply", sphere(subdivisions=2))
    np.savetxt(tmp_path / "cloud.xyz", sphere(subdivisions=2).vertices)
    coarse = ("--encoding", "hash:num_levels=2,max_resolution=16", "--resolution", 64)
    done = command(
        "staf", "fit", "shape", "ball.ply", *coarse, "--steps", 2, "--hidden-features", 8, "--points", 64,
        "--cached-points", 64, cwd=tmp_path, check=False,
    )  # fmt: skip
    said = " ".join(done.stdout.split())
    assert "warning: resolution 64 is much finer than the details that the field can hold" in said
    assert said.index("--resolution 16") < said.index("fitting")
    refused = command("staf", "fit", "shape", "cloud.xyz", "--softness", 0.5, "-o", "out", cwd=tmp_path, check=False)
    assert refused.stdout.strip() == (
        "staf: cloud.xyz: options without effect on a point cloud: softness; leave them at their defaults"
    )
    assert not (tmp_path / "out").exists()
