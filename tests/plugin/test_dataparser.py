import json
import math
import re

import pytest
import torch

from staf_nerf.plugin.dataparser import CaptureDataParserConfig
from staf_nerf.presets import resource
from tests.conftest import data, write_blender, write_capture


def outputs(folder, split="train", **options):
    return CaptureDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def test_it_parses_what_the_stock_parser_parses_to_the_same_cameras(tmp_path):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    write_capture(tmp_path, count=20)
    ours = outputs(tmp_path)
    stock = NerfstudioDataParserConfig(data=tmp_path).setup().get_dataparser_outputs("train")
    assert [path.name for path in ours.image_filenames] == [path.name for path in stock.image_filenames]
    for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "distortion_params"):
        torch.testing.assert_close(getattr(ours.cameras, name), getattr(stock.cameras, name))
    assert ours.dataparser_scale == stock.dataparser_scale
    assert torch.equal(ours.dataparser_transform, stock.dataparser_transform)


def test_train_and_held_out_images_are_disjoint_and_complete(tmp_path):
    write_capture(tmp_path, count=20)
    train, test = (set(outputs(tmp_path, split).image_filenames) for split in ("train", "test"))
    assert (len(train), len(test)) == (18, 2)
    assert not train & test


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_capture_of_a_few_photos_holds_one_out(tmp_path, count):
    write_capture(tmp_path, count=count)
    assert [len(outputs(tmp_path, split).image_filenames) for split in ("train", "test")] == [count - 1, 1]


def test_the_split_of_the_capture_is_used_unless_another_is_asked_for(tmp_path):
    meta = write_capture(tmp_path, count=8)
    names = [frame["file_path"] for frame in meta["frames"]]
    lists = {"train_filenames": names[:5], "val_filenames": names[5:6], "test_filenames": names[6:]}
    (tmp_path / "transforms.json").write_text(json.dumps({**meta, **lists}))
    assert len(outputs(tmp_path, "train").image_filenames) == 5
    assert len(outputs(tmp_path, "val").image_filenames) == 1
    assert len(outputs(tmp_path, "train", eval_mode="interval", eval_interval=4).image_filenames) == 6
    assert len(outputs(tmp_path, "test", eval_mode="all").image_filenames) == 8


def test_missing_images_are_counted_and_named_in_one_line(tmp_path, capsys):
    write_capture(tmp_path, count=8)
    for i in (1, 2, 4, 6):
        (tmp_path / "images" / f"{i:03d}.png").unlink()
    outputs(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"(\d+) of \d+ listed images are used. 4 do not exist and are skipped: 001.png, 002.png, 004.png, …", printed
    )


@pytest.fixture(params=["made", "chair_200"])
def blender(request, tmp_path):
    """A blender scene's folder, its numbers of views to train on and to test, and the cameras' distance."""
    if request.param == "chair_200":
        return data("chair_200"), 100, 200, 4.0311
    write_blender(tmp_path)
    return tmp_path, 8, 4, 3 * math.sqrt(1.16)


def test_a_blender_scene_is_bounded_stays_where_it_is_and_has_transparency(blender):
    folder, _, _, distance = blender
    parsed = outputs(folder, "test")
    assert parsed.metadata["has_alpha"]
    assert parsed.metadata["bounded"]
    assert parsed.dataparser_scale == 1.0
    radius = parsed.cameras.camera_to_worlds[:, :, 3].norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, distance), atol=1e-3, rtol=0)


def test_every_fourth_view_of_a_blender_scene_is_trained_on_and_all_are_tested(blender):
    folder, train, test, _ = blender
    whole, thin = (outputs(folder, "train", train_every=every) for every in (1, 4))
    assert [len(whole.image_filenames), len(thin.image_filenames)] == [train, train // 4]
    assert thin.image_filenames == whole.image_filenames[::4]
    torch.testing.assert_close(thin.cameras.camera_to_worlds, whole.cameras.camera_to_worlds[::4])
    assert len(outputs(folder, "test", train_every=4).image_filenames) == test
    with pytest.raises(ValueError, match="train_every must be >= 1, got 0"):
        outputs(folder, "train", train_every=0)


def test_the_shipped_scene_has_sixty_ten_and_twenty_views_with_depth_and_a_mesh():
    folder = resource("scenes") / "tin_robot"
    counts = [len(outputs(folder, split).image_filenames) for split in ("train", "val", "test")]
    assert counts == [60, 10, 20]
    assert len(list((folder / "depth").glob("test_*.png"))) == 20
    assert (folder / "tin_robot.ply").is_file()


def test_depth_of_the_shipped_scene_is_that_of_its_mesh():
    """Rays through pixels on the robot, at the stored depth, end on its surface."""
    import numpy as np
    import open3d as o3d
    from PIL import Image

    folder = resource("scenes") / "tin_robot"
    meta = json.loads((folder / "transforms.json").read_text())
    mesh = o3d.t.geometry.TriangleMesh.from_legacy(o3d.io.read_triangle_mesh(str(folder / "tin_robot.ply")))
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh)
    frame = next(frame for frame in meta["frames"] if frame["file_path"].endswith("test_003.png"))
    depth = np.asarray(Image.open(folder / frame["depth_file_path"])) * meta["depth_unit_scale_factor"]
    rows, columns = np.mgrid[60:180:6, 100:156:6]
    local = np.stack(
        [(columns + 0.5 - meta["cx"]) / meta["fl_x"], -(rows + 0.5 - meta["cy"]) / meta["fl_y"], -np.ones(rows.shape)],
        -1,
    )
    pose = np.array(frame["transform_matrix"])
    rays = np.concatenate([np.broadcast_to(pose[:3, 3], local.shape), local @ pose[:3, :3].T], -1)
    hits = scene.cast_rays(o3d.core.Tensor(rays.reshape(-1, 6).astype(np.float32)))["t_hit"].numpy()
    stored = depth[rows, columns].ravel()
    on_robot = np.isfinite(hits) & (hits < stored + 0.05)
    assert on_robot.mean() > 0.5
    np.testing.assert_allclose(hits[on_robot], stored[on_robot], atol=3e-3)  # the image's steps are 2e-4


def test_a_bad_capture_is_a_clear_error_through_nerfstudio_too(tmp_path):
    with pytest.raises(ValueError, match="contains no capture"):
        outputs(tmp_path)
