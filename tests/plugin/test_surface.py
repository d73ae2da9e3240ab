import json

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from staf_nerf.encodings import HashGrid
from staf_nerf.mesh.compare import compare
from staf_nerf.mesh.fuse import fuse, pixel_size
from staf_nerf.mesh.surface import Surface
from staf_nerf.mesh.triangles import read_mesh
from staf_nerf.plugin.dataparser import CaptureDataParserConfig
from staf_nerf.plugin.mesh_source import detail, to_world, view_pixel, views
from tests.conftest import write_capture
from tests.plugin.conftest import SCENE, command

APPLIED = [[0.0, 1.0, 0.0, 0.3], [1.0, 0.0, 0.0, -0.1], [0.0, 0.0, -1.0, 0.7]]


class TrueScene:
    """Renders the scene's own mesh, by rays: what a model would give that had learned it perfectly."""

    device = torch.device("cpu")

    def __init__(self, mesh, world):
        inverse = np.linalg.inv(world)
        vertices = mesh.vertices @ inverse[:3, :3].T + inverse[:3, 3]
        self.surface = Surface(type(mesh)(vertices, mesh.triangles))

    def get_outputs_for_camera(self, camera):
        rays = camera.generate_rays(camera_indices=0, keep_shape=True)
        shape = rays.origins.shape[:2]
        hits = self.surface.first_hit(*(x.double().numpy().reshape(-1, 3) for x in (rays.origins, rays.directions)))
        distance = torch.from_numpy(hits.distance).float().reshape(*shape, 1)
        met = distance.isfinite()
        return {
            "rgb": met.expand(*shape, 3).float(),
            "depth": distance.nan_to_num(posinf=0.0),
            "accumulation": met.float(),
        }


def test_a_perfect_model_s_views_fuse_to_the_scene_s_mesh_in_the_scene_s_coordinates():
    parsed = CaptureDataParserConfig(data=SCENE).setup().get_dataparser_outputs("train")
    world = to_world(parsed)
    truth = read_mesh(SCENE / "tin_robot.ply")
    seen = views(TrueScene(truth, world), parsed.cameras, most_pixels=192)
    inverse = np.linalg.inv(world)
    corners = truth.vertices @ inverse[:3, :3].T + inverse[:3, 3]
    box = np.stack([corners.min(0) - 0.02, corners.max(0) + 0.02])
    made = fuse(seen, bounds=box, resolution=150)
    placed = type(made)(made.vertices @ world[:3, :3].T + world[:3, 3], made.triangles)
    found = compare(placed, truth, points=30_000)
    voxel = np.ptp(box, axis=0).max() / 150 * np.linalg.norm(world[0, :3])
    # What is made lies on the truth; parts of the truth (the underside) are seen by no camera.
    assert found.precision[0] > 0.9  # within a voxel
    assert found.precision[1] > 0.97
    assert np.median(np.linalg.norm(placed.vertices - Surface(truth).closest(placed.vertices)[0], axis=-1)) < voxel / 2


def test_few_pixels_tell_how_large_those_of_the_views_are():
    parsed = CaptureDataParserConfig(data=SCENE).setup().get_dataparser_outputs("train")
    model, cameras = TrueScene(read_mesh(SCENE / "tin_robot.ply"), to_world(parsed)), parsed.cameras[:4]
    box = np.array([[-1.0] * 3, [1.0] * 3])
    expected = min(pixel_size(view, box) for view in views(model, cameras, most_pixels=128))
    # 256 pixels see the median depth less exactly than 16384 do: within a tenth of the distance, by the robot's size.
    assert view_pixel(model, cameras, box, most_pixels=128) == pytest.approx(expected, rel=0.1)
    photo = max(int(cameras.width[0]), int(cameras.height[0]))
    assert view_pixel(model, cameras, box, most_pixels=10 * photo) == view_pixel(
        model, cameras, box, most_pixels=photo
    )  # views are not larger than the photos


@pytest.mark.parametrize("applied", [{}, {"applied_transform": APPLIED, "applied_scale": 0.5}])
def test_the_world_is_that_of_the_listed_poses(applied, tmp_path):
    listing = write_capture(tmp_path / "capture")
    path = tmp_path / "capture" / "transforms.json"
    path.write_text(json.dumps(listing | applied))
    parsed = CaptureDataParserConfig(data=tmp_path / "capture").setup().get_dataparser_outputs("train")
    found = parsed.cameras.camera_to_worlds[:, :, 3].double().numpy()
    world = to_world(parsed)
    placed = found @ world[:3, :3].T + world[:3, 3]
    listed = np.array([frame["transform_matrix"] for frame in listing["frames"]])[:, :3, 3]
    for position in placed:
        assert np.linalg.norm(listed - position, axis=-1).min() < 1e-5


def test_staf_mesh_makes_a_coloured_mesh_of_a_run(trained, tmp_path):
    for method in ("fusion", "surface"):
        output = tmp_path / f"{method}.glb"
        command(
            "staf", "mesh", trained.config, "--output", output, "--resolution", 64,
            "--method", method, "--view-pixels", 48,
            cwd=tmp_path,
        )  # fmt: skip
        found = json.loads(output.with_suffix(".report.json").read_text())
        assert found["triangles"] > 100
        made = read_mesh(output)
        assert made.colors is not None
        assert np.ptp(made.colors, axis=0).min() > 0.1
        truth = read_mesh(SCENE / "tin_robot.ply")
        # The world's frame: the robot stands in the middle of what was reconstructed.
        assert (made.bounds[0] < truth.bounds.mean(0)).all()
        assert (made.bounds[1] > truth.bounds.mean(0)).all()


@pytest.mark.parametrize(("cells", "expected"), [(64, 2 / 64 * 1.5), (4096, 2.0 / 300)])
def test_a_surface_has_details_down_to_a_cell_of_its_grid_or_a_pixel_of_the_nearest_photo(cells, expected):
    poses = torch.eye(4)[:3].repeat(3, 1, 1)
    poses[:, 2, 3] = torch.tensor([3.0, 2.0, 4.0])  # distances from the origin
    cameras = Cameras(poses, fx=300.0, fy=300.0, cx=50.0, cy=50.0, width=100, height=100)
    assert detail(HashGrid(3, max_resolution=cells), 1.5, cameras, np.zeros(3)) == pytest.approx(expected)
    assert detail(torch.nn.Linear(3, 1), 1.5, cameras, np.zeros(3)) is None


def test_a_run_that_is_not_there_is_named(tmp_path):
    result = command("staf", "mesh", "nowhere/config.yml", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "the run nowhere/config.yml does not exist" in result.stdout
    (tmp_path / "other.yml").write_text("a: 1\n")
    result = command("staf", "mesh", "other.yml", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "cannot load the run" in result.stdout
