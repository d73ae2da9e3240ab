import json

import numpy as np
import open3d
import pytest
import trimesh

from staf_nerf.mesh.export import check_output, write_mesh
from staf_nerf.mesh.preview import AXES, four_views, save_preview, with_axes
from staf_nerf.mesh.texture import bake, with_vertex_colors
from staf_nerf.mesh.triangles import TriangleMesh, linear_from_srgb, read_mesh, srgb_from_linear
from tests.mesh.shapes import sphere


def painted(points, normals):
    """Red grows along x, green along y; blue where the normal points up."""
    return np.stack([0.5 + 0.4 * points[:, 0], 0.5 + 0.4 * points[:, 1], 0.5 + 0.4 * normals[:, 2]], -1)


@pytest.fixture
def ball() -> TriangleMesh:
    return with_vertex_colors(sphere(subdivisions=3), painted)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_a_file_read_back_has_the_vertices_triangles_and_colors(ball, suffix, tmp_path):
    (path,) = write_mesh(tmp_path / f"ball{suffix}", ball)
    stored = read_mesh(path)
    assert len(stored.triangles) == len(ball.triangles)
    assert stored.volume == pytest.approx(ball.volume, rel=1e-5)  # float32
    assert stored.colors is not None
    # 8 bits; linear ones in GLB are up to 13 times coarser where it is dark.
    np.testing.assert_allclose(stored.colors, painted(stored.vertices, stored.vertices), atol=0.02)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_a_survey_s_coordinates_keep_their_millimetres(suffix, tmp_path):
    far = sphere(10.0, center=(448_000.0, 5_411_000.0, 120.0), subdivisions=2)
    before = far.bounds.copy()
    (path,) = write_mesh(tmp_path / f"far{suffix}", far)
    np.testing.assert_allclose(read_mesh(path).bounds, before, rtol=0, atol=1e-4)
    np.testing.assert_allclose(trimesh.load(path, force="mesh").bounds, before, rtol=0, atol=1e-4)
    stored = np.asarray(open3d.io.read_triangle_mesh(path).vertices)
    np.testing.assert_allclose([stored.min(0), stored.max(0)], before, rtol=0, atol=1e-4 if suffix != ".obj" else 0.5)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_open3d_reads_the_same_mesh(ball, suffix, tmp_path):
    (path,) = write_mesh(tmp_path / f"ball{suffix}", ball)
    stored = open3d.io.read_triangle_mesh(path)
    assert len(stored.triangles) == len(ball.triangles)
    np.testing.assert_allclose(stored.get_max_bound(), ball.bounds[1], atol=1e-6)
    colors = np.asarray(stored.vertex_colors)
    assert len(colors) == len(stored.vertices)
    expected = painted(np.asarray(stored.vertices), np.asarray(stored.vertices))
    np.testing.assert_allclose(srgb_from_linear(colors) if suffix == ".glb" else colors, expected, atol=0.02)


def test_glb_holds_linear_colors_and_normals(ball, tmp_path):
    (path,) = write_mesh(tmp_path / "ball.glb", ball)
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    (primitive,) = json.loads(content[20 : 20 + length])["meshes"][0]["primitives"]
    assert {"POSITION", "NORMAL", "COLOR_0"} <= set(primitive["attributes"])
    raw = trimesh.load(path, process=False, force="mesh").visual.vertex_colors[:, :3] / 255
    np.testing.assert_allclose(raw.mean(0), linear_from_srgb(ball.colors).mean(0), atol=0.01)


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_a_baked_texture_has_the_surface_s_colors(suffix, tmp_path):
    mesh = sphere(subdivisions=3)
    files = write_mesh(tmp_path / f"ball{suffix}", mesh, bake(mesh, painted, size=256))
    assert sorted(path.suffix for path in files) == ([".glb"] if suffix == ".glb" else [".mtl", ".obj", ".png"])
    assert all(path.is_file() for path in files)
    assert all(path.stem == "ball" for path in files)  # two meshes in one folder keep their own
    stored = trimesh.load(files[0], process=False, force="mesh")
    assert len(stored.faces) == len(mesh.triangles)
    points, index = trimesh.sample.sample_surface(stored, 2000, seed=0)
    corners = stored.triangles[index]
    weights = trimesh.triangles.points_to_barycentric(corners, points)
    uv = (stored.visual.uv[stored.faces[index]] * weights[..., None]).sum(1)
    material = stored.visual.material
    if suffix == ".obj":  # a renderer multiplies the picture by Kd
        assert {"Kd 1.00000000 1.00000000 1.00000000", "Ks 0.00000000 0.00000000 0.00000000"} <= set(
            files[0].with_suffix(".mtl").read_text().splitlines()
        )
    picture = material.baseColorTexture if suffix == ".glb" else material.image
    colors = trimesh.visual.color.uv_to_color(uv, picture)[:, :3] / 255
    error = np.abs(colors - painted(points, points))
    # A pixel is about .02 wide, so red and green are within .01 and rounding; blue jumps at the equator.
    assert error[:, :2].max() < 0.03
    assert (error[:, 2] > 0.05).mean() < 0.03
    other = open3d.io.read_triangle_model(str(files[0]))
    assert [len(part.mesh.triangle_uvs) for part in other.meshes] == [3 * len(mesh.triangles)]
    assert np.array_equal(np.asarray(other.materials[0].albedo_img)[..., :3], np.asarray(picture.convert("RGB")))


def test_a_texture_does_not_go_to_ply(tmp_path):
    mesh = sphere(subdivisions=2)
    with pytest.raises(ValueError, match=r"a texture needs a file name that ends in .obj or .glb, got a.ply"):
        write_mesh(tmp_path / "a.ply", mesh, bake(mesh, painted, size=64))


def test_a_texture_of_a_vast_mesh_is_refused_before_the_work():
    vast = TriangleMesh(np.eye(3), np.zeros((400_001, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="at most 400000 triangles, got 400001"):
        bake(vast, painted)


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"the name of a mesh file must end in one of .ply, .obj, .glb, got a.fbx"):
        check_output(tmp_path / "a.fbx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        check_output(tmp_path / "file" / "a.ply")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(OSError, match=r"folder\.ply"):
        check_output(tmp_path / "folder.ply")
    check_output(tmp_path / "new" / "a.ply")
    assert not (tmp_path / "new" / "a.ply").exists()


def test_a_preview_shows_the_mesh_from_four_sides(ball, tmp_path):
    picture = four_views(ball, size=64)
    assert picture.shape == (128, 128, 3)
    assert (picture[0, 0] == 255).all()  # the background
    covered = (picture < 255).any(-1).reshape(2, 64, 2, 64).mean((1, 3))
    # The box's diagonal is the picture's width: a ball covers pi/4 / 3 of it.
    np.testing.assert_allclose(covered, np.pi / 12, atol=0.01)
    save_preview(tmp_path / "a.png", ball, size=32)
    assert (tmp_path / "a.png").stat().st_size > 0
    with pytest.raises(ValueError, match="must have triangles"):
        four_views(TriangleMesh(np.eye(3), np.zeros((0, 3), dtype=np.int64)))


def offset_of(color: tuple[int, ...], view: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """How far to the right and downwards from a point of a view the pixels of a colour lie, on average."""
    rows, columns = np.nonzero((view == color).all(-1))
    return np.array([columns.mean(), rows.mean()]) - origin


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("axis", range(3))
def test_an_axis_of_a_preview_points_to_where_the_mesh_goes_on_it(axis, up):
    far, near = sphere(0.2, 2.0 * np.eye(3)[axis], 2), sphere(0.2, -2.0 * np.eye(3)[axis], 2)
    mesh = TriangleMesh(
        np.concatenate([far.vertices, near.vertices]),
        np.concatenate([far.triangles, near.triangles + len(far.vertices)]),
    )
    size = 200
    plain = four_views(mesh, size=size, up=up)
    goes_on = four_views(TriangleMesh(mesh.vertices, far.triangles), size=size, up=up) < 255
    drawn = with_axes(plain, np.eye(3), up=up)
    renamed = with_axes(plain, np.roll(np.eye(3), 1, axis=0), up=up)
    for corner in ((0, 0), (0, size), (size, 0), (size, size)):
        view = np.s_[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
        away = offset_of((True,) * 3, goes_on[view], np.array([size, size]) / 2)
        origin = size * np.array([0.12, 0.88])
        pointed = offset_of(AXES[axis][1], drawn[view], origin)
        # The letter at the end makes the mean of an axis's pixels a little uneven.
        assert pointed @ away > 0.95 * np.linalg.norm(pointed) * np.linalg.norm(away)
        same = offset_of(AXES[(axis + 1) % 3][1], renamed[view], origin)
        np.testing.assert_allclose(same, pointed, atol=2.0)  # with another letter


@pytest.mark.parametrize(("up", "axis"), [("y", 1), ("z", 2)])
def test_up_is_up_in_a_preview(up, axis):
    offsets = np.zeros(3)
    offsets[axis] = 2.0
    high, low = sphere(0.5, offsets, 2), sphere(0.2, -offsets, 2)
    both = TriangleMesh(
        np.concatenate([high.vertices, low.vertices]),
        np.concatenate([high.triangles, low.triangles + len(high.vertices)]),
    )
    view = (four_views(both, size=100, up=up) < 255).any(-1)[:100, :100]
    assert view[:50].sum() > 3 * view[50:].sum() > 0
