import dataclasses
import json
import re
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from rich.console import Console

from staf_nerf.errors import IncompleteError
from staf_nerf.jobs.mesh import MakeMesh, make_mesh, report
from staf_nerf.mesh.compare import compare
from staf_nerf.mesh.fuse import fuse, pixel_size
from staf_nerf.mesh.preview import AXES
from staf_nerf.mesh.source import MeshSource
from staf_nerf.mesh.triangles import TriangleMesh, moved, read_mesh, weld
from tests.mesh.shapes import sphere, views_of

CENTER, RADII = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # a quarter about z
SCALE, SHIFT = 7.0, np.array([100.0, -50.0, 20.0])


def ellipsoid(points):
    return ((points - CENTER) / RADII).norm(dim=-1, keepdim=True) - 1.0


def to_world():
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = SCALE * TURN, SHIFT
    return matrix


def source(**changes) -> MeshSource:
    values = {
        "field": ellipsoid,
        "bounds": np.array([[-1.0] * 3, [1.0] * 3]),
        "color": lambda points, normals: 0.5 + 0.5 * normals,
        "to_world": to_world(),
    }
    return MeshSource(**values | changes)


def world_bounds():
    corners = torch.stack([CENTER - RADII, CENTER + RADII]).double().numpy() @ TURN.T * SCALE + SHIFT
    return np.stack([corners.min(0), corners.max(0)])


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_an_ellipsoid_arrives_in_the_world_with_its_size_normals_and_colors(suffix, tmp_path):
    output = tmp_path / f"egg{suffix}"
    found = make_mesh(source(), MakeMesh(output, resolution=96))
    made, voxel = read_mesh(output), SCALE * 2.0 / 96
    np.testing.assert_allclose(made.bounds, world_bounds(), atol=voxel)
    volume = 4 / 3 * np.pi * float(RADII.prod()) * SCALE**3
    assert made.volume == pytest.approx(volume, rel=0.01)  # positive: its triangles face outwards
    centre = TURN @ CENTER.double().numpy() * SCALE + SHIFT
    assert ((made.normals * (made.corners.mean(1) - centre)).sum(-1)[made.areas > 1e-9] > 0).all()
    assert found == json.loads((tmp_path / "egg.report.json").read_text())
    assert found["watertight"]
    assert found["components"] == 1
    assert found["volume"] == pytest.approx(volume, rel=0.01)
    np.testing.assert_allclose(found["model_to_world"], to_world())
    assert (tmp_path / "egg.preview.png").stat().st_size > 1000
    # Colours were asked for in the model's coordinates: red where the model's x grows, which is the world's y.
    assert made.colors is not None
    high = made.vertices[:, 1] > world_bounds()[1, 1] - voxel
    assert made.colors[high, 0].mean() > 0.9


def test_the_model_s_frame_is_there_on_demand(tmp_path):
    make_mesh(source(), MakeMesh(tmp_path / "egg.ply", resolution=48, frame="model"))
    expected = torch.stack([CENTER - RADII, CENTER + RADII]).numpy()
    np.testing.assert_allclose(read_mesh(tmp_path / "egg.ply").bounds, expected, atol=2 / 48)


def test_a_box_in_the_world_crops_in_the_world(tmp_path):
    low, high = world_bounds()
    middle = (low + high) / 2
    box = (*low - 1, middle[0], *high[1:] + 1)
    make_mesh(source(), MakeMesh(tmp_path / "half.ply", resolution=64, box=box))
    made = read_mesh(tmp_path / "half.ply")
    assert made.bounds[1, 0] <= middle[0] + 1e-4  # float32
    assert made.bounds[1, 0] > middle[0] - 2 * SCALE * 2 / 64
    np.testing.assert_allclose(made.bounds[0], low, atol=SCALE * 2 / 64)


def test_many_triangles_are_decimated_and_a_texture_is_baked(tmp_path):
    found = make_mesh(source(), MakeMesh(tmp_path / "egg.obj", resolution=64, triangles=1500, texture=256))
    assert 1000 < found["triangles"] <= 1500
    assert {path.suffix for path in tmp_path.iterdir()} == {".obj", ".mtl", ".png", ".json"}
    assert "decimation" in found["seconds"]
    assert found["colors"] == "texture"


def test_decimation_leaves_no_box_and_counts_no_part(tmp_path):
    low, high = world_bounds()
    middle = (low + high) / 2
    box = (*low - 1, middle[0], *high[1:] + 1)
    found = make_mesh(source(), MakeMesh(tmp_path / "half.ply", resolution=96, box=box, triangles=60))
    assert found["bounds"][1][0] <= middle[0] + 1e-9
    assert found["parts_left_out"] == 0


def test_voxels_finer_than_the_views_are_said_before_these_are_rendered(tmp_path):
    ball, console = sphere(0.8), Console(record=True, width=1000)
    said: list[str] = []

    def rendered():
        said.append(console.export_text(clear=True))
        return views_of(ball)

    made = dataclasses.replace(
        source(), views=rendered, view_count=24, method="fusion",
        view_pixel=lambda box: float(np.ptp(box, axis=0).max()) / 100,
    )  # fmt: skip
    for resolution in (200, 201):
        make_mesh(made, MakeMesh(tmp_path / "ball.ply", resolution=resolution), console)
    assert "finer than" not in said[0]
    assert "at resolution 201 the voxels are much finer than the views' pixels" in said[1]
    assert "Use --resolution 100, or larger views" in said[1]


def test_views_that_show_no_surface_get_no_advice_on_the_resolution(tmp_path, capsys):
    empty = dataclasses.replace(source(), views=lambda: iter(()), view_pixel=lambda box: np.inf, method="fusion")
    with pytest.raises(ValueError, match="no view shows a surface"):
        make_mesh(empty, MakeMesh(tmp_path / "ball.ply"))
    assert "--resolution" not in capsys.readouterr().out


def test_the_pixel_of_a_view_is_as_large_as_what_it_shows_of_the_box():
    view = next(iter(views_of(sphere(0.8))))
    bounds = np.array([[-1.0] * 3, [1.0] * 3])
    depths = [depth for depth in view.depth.ravel().tolist() if depth > 0]
    expected = sorted(depths)[len(depths) // 2] / view.intrinsics[0]
    # The median of an even number of depths lies between two neighbours.
    assert pixel_size(view, bounds) == pytest.approx(expected, rel=1e-3)
    assert pixel_size(view, bounds + 10.0) == np.inf


@pytest.mark.parametrize(
    ("detail", "options", "said"),
    [
        (0.1, {"resolution": 40}, None),  # the box has a side of 2
        (0.1, {"resolution": 41}, "the details that the field can hold, .* Use --resolution 20$"),
        (0.1, {"resolution": 41, "box": (0.0, 0.0, 0.0, 1.0, 0.9, 0.8), "frame": "model"}, "Use --resolution 10$"),
        (None, {"resolution": 48}, None),
        (None, {"resolution": 48, "triangles": 100}, r"100 triangles \(--triangles\) show, .* Use --resolution 17$"),
        (None, {"resolution": 48, "triangles": 0}, None),
    ],
)
def test_a_level_set_much_finer_than_useful_is_said_in_one_line(detail, options, said, tmp_path):
    console = Console(record=True, width=1000)
    make_mesh(source(detail=detail), MakeMesh(tmp_path / "egg.ply", **options), console)
    lines = [line.rstrip() for line in console.export_text().splitlines() if "is much finer than" in line]
    assert len(lines) == (said is not None)
    assert all(re.search(said, line) for line in lines)


def test_a_generous_box_does_not_leave_what_the_field_knows(tmp_path):
    make_mesh(source(), MakeMesh(tmp_path / "egg.ply", resolution=48, box=(-500.0,) * 3 + (500.0,) * 3))
    np.testing.assert_allclose(read_mesh(tmp_path / "egg.ply").bounds, world_bounds(), atol=SCALE * 2 / 48)


def test_a_box_reaches_beyond_the_bounds_up_to_the_limits_of_the_field(tmp_path):
    inner = {"bounds": np.array([[0.0] * 3, [0.2] * 3])}
    box = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
    whole = np.stack([(CENTER - RADII).numpy(), (CENTER + RADII).numpy()])
    for limits, bounds in ((None, inner["bounds"]), (np.array([[-5.0] * 3, [5.0] * 3]), whole)):
        job = MakeMesh(tmp_path / "egg.ply", resolution=64, box=box, frame="model")
        make_mesh(source(limits=limits, **inner), job)
        made = read_mesh(tmp_path / "egg.ply").bounds
        assert (np.abs(made - bounds) < 2 * 2 / 64).any(-1).all()
        assert (made[0] > bounds[0] - 2 / 64).all()
        assert (made[1] < bounds[1] + 2 / 64).all()


@pytest.mark.parametrize(("half_height", "said"), [(1.0, False), (0.15, True)])
def test_a_mesh_that_is_cut_by_the_bounds_is_said_unless_the_box_was_asked_for(half_height, said, tmp_path, capsys):
    bounds = np.array([[-1.0, -1.0, -half_height], [1.0, 1.0, half_height]])
    made = source(bounds=bounds, views=lambda: views_of(sphere(0.8)), view_count=24, method="fusion")
    # Of a ball's zone, 0.3 high, two cells of 2 / 60 at either end are 44 %.
    make_mesh(made, MakeMesh(tmp_path / "ball.ply", resolution=60))
    assert ("of the vertices lie where the mesh is cut" in capsys.readouterr().out.replace("\n", " ")) == said
    make_mesh(made, MakeMesh(tmp_path / "ball.ply", resolution=60, box=tuple(bounds.ravel()), frame="model"))
    assert "where the mesh is cut" not in capsys.readouterr().out.replace("\n", " ")


def test_views_that_show_nothing_in_the_bounds_are_an_error_with_a_remedy(tmp_path):
    bounds = np.array([[2.0] * 3, [2.5] * 3])
    made = source(bounds=bounds, views=lambda: views_of(sphere(0.8)), view_count=24, method="fusion")
    with pytest.raises(ValueError, match=r"no view shows a surface in the box .*--box"):
        make_mesh(made, MakeMesh(tmp_path / "ball.ply"))


def test_floaters_are_left_out(tmp_path):
    def two(points):
        return torch.minimum(ellipsoid(points), 0.2 * ((points + 0.8).norm(dim=-1, keepdim=True) / 0.02 - 1.0))

    egg = tmp_path / "egg.ply"
    found = make_mesh(source(field=two, lipschitz=12.0), MakeMesh(egg, resolution=96, smallest_part=0.1))
    assert found["components"] == 1
    assert found["parts_left_out"] == 1
    found = make_mesh(source(field=two, lipschitz=12.0), MakeMesh(egg, resolution=96, smallest_part=0.0))
    assert found["components"] == 2


def two_balls(points):
    """The larger one has 25/41 of the area."""
    first, second = ((points - torch.tensor([x, 0.0, 0.0])).norm(dim=-1, keepdim=True) for x in (-0.45, 0.5))
    return torch.minimum(first - 0.5, second - 0.4)


def test_all_triangles_belong_to_the_parts_that_are_kept(tmp_path):
    job = MakeMesh(tmp_path / "ball.ply", resolution=64, triangles=1000, keep_parts=1)
    found = make_mesh(source(field=two_balls, lipschitz=1.0), job)
    assert found["components"] == 1
    assert 950 < found["triangles"] <= 1000  # of both parts, about 610 would be the larger one's
    assert found["parts_left_out"] == 1


def test_parts_that_decimation_splits_off_are_not_kept(tmp_path, monkeypatch):
    from staf_nerf.jobs import mesh as module

    def splits(mesh, triangles):
        """Without a ring of triangles: that leaves two parts."""
        assert len(mesh.triangles) > triangles
        middle = np.abs(mesh.corners.mean(1)[:, 0] - 0.1) < 0.1
        return weld(TriangleMesh(mesh.vertices, mesh.triangles[~middle], mesh.colors))

    monkeypatch.setattr(module, "decimated", splits)
    for parts in (2, 1):
        job = MakeMesh(tmp_path / "egg.ply", resolution=48, triangles=2000, keep_parts=parts)
        assert make_mesh(source(), job)["components"] == parts


def test_the_picture_s_axes_are_those_of_the_file(tmp_path):
    """The world's x is the model's -y here, which points down in the picture; the model's own y points up."""
    for frame, name, sign in (("world", 0, 1), ("model", 1, -1)):
        job = MakeMesh(tmp_path / "egg.ply", resolution=32, frame=frame)
        make_mesh(source(), job)
        view = iio.imread(job.picture)[:480, :480]
        rows, columns = np.nonzero((view == AXES[name][1]).all(-1))
        assert sign * (rows.mean() - 0.88 * 480) > 10
        assert columns.mean() == pytest.approx(0.12 * 480, abs=2)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"level": 9.0}, "does not cross the level 9 .* such as"),
        ({"field": lambda x: 1.0 + 0.0 * x[:, :1]}, {}, "does not cross the level 0: it is 1 at all sampled points"),
        ({}, {"resolution": 5000, "memory": 1e8}, "needs memory of"),
        ({}, {"resolution": 0}, "resolution must be >= 1"),
        ({}, {"method": "fusion"}, "method 'fusion' needs cameras"),
        ({}, {"box": (0.0, 0.0, 0.0, -1.0, 1.0, 1.0)}, "box must be the smallest x, y, z and then larger x, y, z"),
        ({}, {"box": (0.0, 0.0, 0.0, 0.1, 0.1, 0.1)}, "lies outside the bounds of the field"),
        ({"color": None}, {"texture": 256}, "a texture needs a field with colours"),
        ({}, {"texture": 10}, "texture must be between 64 and 8192 pixels, got 10"),
        ({}, {"output": Path("a.ply"), "texture": 256}, r"needs a file name that ends in .obj or .glb, got a.ply"),
        ({}, {"triangles": -1}, "triangles must be >= 0, got -1"),
        ({}, {"triangles": 1}, "nothing of the mesh is left after decimation to 1 triangles"),
        ({}, {"level": float("nan")}, "level must be finite, got nan"),
        ({}, {"memory": float("nan")}, "memory must be a positive number of bytes, got nan"),
        ({}, {"hull": True}, "hull needs cameras"),
        ({}, {"smallest_part": 3.0}, "smallest_part must be between 0 and 1"),
        ({}, {"holes": -1.0}, "holes must be between 0 and 1"),
    ],
)
def test_what_cannot_be_made_is_said(changes, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_mesh(source(**changes), MakeMesh(**{"output": tmp_path / "egg.glb", "resolution": 32} | options))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "folder.glb").mkdir()

    def never(points):
        raise AssertionError

    with pytest.raises(OSError, match="folder"):
        make_mesh(source(field=never), MakeMesh(tmp_path / "folder.glb"))
    (tmp_path / "egg.report.json").mkdir()
    with pytest.raises(OSError, match=r"egg\.report"):
        make_mesh(source(field=never), MakeMesh(tmp_path / "egg.glb"))


def test_a_capture_s_own_file_of_the_same_name_stays(tmp_path):
    (tmp_path / "transforms.json").write_text("the cameras")
    make_mesh(source(), MakeMesh(tmp_path / "transforms.glb", resolution=32))
    assert (tmp_path / "transforms.json").read_text() == "the cameras"


def test_a_report_of_an_open_mesh_has_no_volume():
    ball = sphere(subdivisions=2)
    found = report(TriangleMesh(ball.vertices, ball.triangles[:-3]))
    assert found["volume"] is None
    assert not found["watertight"]


def test_views_of_a_ball_become_the_ball_with_its_colors():
    ball = sphere(0.8, (0.2, -0.1, 0.3))
    bounds = np.array([[-1.0] * 3, [1.3] * 3])
    parts: list[float] = []
    made = fuse(views_of(ball), bounds=bounds, resolution=100, count=24, progress=parts.append)
    voxel = 2.3 / 100
    found = compare(made, ball, points=20_000)
    assert found.chamfer_l1 < voxel
    assert found.normal_consistency > 0.98
    assert made.volume > 0.9 * ball.volume  # it faces outwards
    assert made.colors is not None
    np.testing.assert_allclose(made.colors, 0.5 + 0.4 * (made.vertices - [0.2, -0.1, 0.3]), atol=0.06)
    assert parts[-1] == 1.0


def test_fusion_sees_only_what_lies_in_the_box():
    ball = sphere(0.8)
    made = fuse(views_of(ball), bounds=np.array([[-1.0, -1.0, 0.0], [1.0, 1.0, 1.0]]), resolution=60)
    assert made.bounds[0, 2] > -5 * 2 / 60
    with pytest.raises(ValueError, match="no view shows a surface in the box"):
        fuse(views_of(ball, 2), bounds=np.array([[5.0] * 3, [6.0] * 3]), resolution=10)


def test_moving_there_and_back_changes_nothing():
    ball = sphere(subdivisions=2)
    back = moved(moved(ball, to_world()), np.linalg.inv(to_world()))
    np.testing.assert_allclose(back.vertices, ball.vertices, atol=1e-12)


@pytest.mark.parametrize("stage", ["decimated", "with_vertex_colors", "bake", "save_preview"])
def test_a_stage_that_fails_still_leaves_a_mesh(tmp_path, monkeypatch, stage):
    from staf_nerf.jobs import mesh as module

    def fails(*arguments, **options):
        raise ModuleNotFoundError("No module named 'xatlas'", name="xatlas")

    monkeypatch.setattr(module, stage, fails)
    job = MakeMesh(tmp_path / "egg.glb", resolution=32, triangles=500, texture=256 if stage == "bake" else 0)
    with pytest.raises(IncompleteError):
        make_mesh(source(), job)
    np.testing.assert_allclose(read_mesh(tmp_path / "egg.glb").bounds, world_bounds(), atol=SCALE * 4.0 / 32)
    found = json.loads(job.report.read_text())
    assert list(found["failed"].values()) == ['xatlas is not installed. To get it: pip install "staf-nerf[mesh]"']
    assert found["colors"] == (None if stage == "with_vertex_colors" else "vertices")
    assert job.picture.is_file() == (stage != "save_preview")


def test_a_picture_of_an_earlier_mesh_does_not_stay_beside_a_new_one(tmp_path, monkeypatch):
    from staf_nerf.jobs import mesh as module

    job = MakeMesh(tmp_path / "egg.glb", resolution=16)
    make_mesh(source(), job)
    assert job.picture.is_file()

    def fails(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "save_preview", fails)
    with pytest.raises(IncompleteError):
        make_mesh(source(), job)
    assert not job.picture.exists()


def test_a_view_that_shows_one_pixel_of_the_box_does_not_stop_the_fusion():
    first, *others = views_of(sphere(), count=12)
    seen = np.zeros_like(first.depth)
    seen[61, 61] = first.depth[61, 61]  # not one of those that Open3D looks at
    assert seen.any()
    bounds = np.array([[-1.2] * 3, [1.2] * 3])
    mesh = fuse([dataclasses.replace(first, depth=seen), *others], bounds=bounds, resolution=32)
    assert len(mesh.triangles) > 100
    with pytest.raises(ValueError, match="no view shows a surface in the box"):
        fuse([dataclasses.replace(first, depth=seen)], bounds=bounds, resolution=32)
