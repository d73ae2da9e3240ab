import numpy as np
import open3d
import pytest

from staf_nerf.mesh.points import PointCloud, read_points


@pytest.fixture
def cloud():
    random = np.random.default_rng(0)
    points = random.standard_normal((50, 3))
    return points, points / np.linalg.norm(points, axis=-1, keepdims=True)


@pytest.mark.parametrize("oriented", [True, False])
@pytest.mark.parametrize("suffix", ["ply", "xyz", "npz"])
def test_each_format_gives_the_points_and_their_normals(cloud, suffix, oriented, tmp_path):
    points, normals = cloud
    path = tmp_path / f"a.{suffix}"
    if suffix == "ply":
        made = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
        if oriented:
            made.normals = open3d.utility.Vector3dVector(normals)
        open3d.io.write_point_cloud(str(path), made)
    elif suffix == "xyz":
        np.savetxt(path, np.concatenate([points, 3 * normals], -1) if oriented else points)
    else:
        np.savez(path, points=points, **({"normals": 3 * normals} if oriented else {}))
    stored = read_points(path)
    np.testing.assert_allclose(stored.points, points, atol=1e-12)
    if oriented:
        np.testing.assert_allclose(stored.normals, normals, atol=1e-12)
    else:
        assert stored.normals is None


def test_a_point_may_have_no_normal(cloud, tmp_path):
    points, normals = cloud
    some = normals * (np.arange(50) != 7)[:, None]
    np.savez(tmp_path / "a.npz", points=points, normals=some)
    np.savetxt(tmp_path / "a.xyz", np.concatenate([points, some], -1))
    for name in ("a.npz", "a.xyz"):
        stored = read_points(tmp_path / name)
        np.testing.assert_allclose(stored.normals, some, atol=1e-12)
        assert stored.lines() == ["1 of 50 points have no normal"]
    np.savez(tmp_path / "a.npz", points=points, normals=0 * normals)
    assert read_points(tmp_path / "a.npz").normals is None


def test_normals_that_point_inwards_are_named(cloud):
    points, normals = cloud
    assert not PointCloud(points, normals).lines()
    assert "point inwards" in PointCloud(points, -normals).lines()[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", "1 2\n3 4\n", "rows must have 3 or 6 numbers, got 2"),
        ("a.xyz", "a b c\n", "cannot read points"),
        ("a.xyz", "", "contains no points"),
        ("a.xyz", "1 2 3\n4 5 6\n", "a surface needs at least 4 points, got 2"),
        ("a.xyz", "1 2 3\n4 5 nan\n1 1 1\n2 2 2\n", "points must be finite, got 1 of 4 that are not"),
        ("a.xyz", "1 2 3 255 0 0\n4 5 6 10 20 5\n7 8 9 0 0 1\n1 1 1 5 5 5\n", "must be normals of equal length"),
        ("a.ply", "nonsense", "is not a PLY file"),
        ("a.npz", "nonsense", "cannot read points"),
        ("a.npz", "", "cannot read points"),
        ("a.npz", "PK\x03\x04broken", "cannot read points"),
        ("a.las", "", "must be one of .ply, .xyz, .npz, got a.las"),
    ],
)
def test_files_that_are_no_clouds_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_points(tmp_path / name)


def test_a_cloud_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.xyz"):
        read_points(tmp_path / "b.xyz")
    np.savez(tmp_path / "c.npz", vertices=np.eye(3))
    with pytest.raises(ValueError, match="must contain an array 'points', got \\['vertices'\\]"):
        read_points(tmp_path / "c.npz")


def test_normals_must_be_as_many_as_the_points():
    with pytest.raises(ValueError, match=r"normals must have shape \(5, 3\), got \(4, 3\)"):
        PointCloud(np.zeros((5, 3)), np.zeros((4, 3)))
