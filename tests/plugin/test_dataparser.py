import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType

from staf_nerf.captures.capture import Camera, Capture, CaptureError, Photo, SparsePoints
from staf_nerf.captures.prepare import prepare
from staf_nerf.plugin import dataparser
from staf_nerf.plugin.cameras import refuse_one_place
from staf_nerf.plugin.dataparser import CaptureDataParserConfig
from staf_nerf.plugin.scene import original_transform, place
from staf_nerf.presets import resource
from tests.conftest import data, pose, write_blender, write_capture


def outputs(folder, split="train", **options):
    return CaptureDataParserConfig(data=folder, **options).setup().get_dataparser_outputs(split)


def stock(folder, split="train", **options):
    """What nerfstudio's own data parser makes of a folder."""
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    return NerfstudioDataParserConfig(data=folder, downscale_factor=1, **options).setup().get_dataparser_outputs(split)


@pytest.mark.parametrize("center", ["poses", "focus", "none"])
@pytest.mark.parametrize("orientation", ["up", "vertical", "pca", "none"])
def test_the_shipped_scene_lies_where_nerfstudio_puts_it(center, orientation, tmp_path):
    """Methods of earlier versions mean the same, so that their runs are evaluated as before."""
    folder, options = resource("scenes") / "tin_robot", {"center_method": center, "orientation_method": orientation}
    listing = json.loads((folder / "transforms.json").read_text())
    for frame in listing["frames"]:
        frame.pop("depth_file_path", None)  # nerfstudio wants one for all frames or for none
        frame["file_path"] = str(folder / frame["file_path"])
    for name in ("train_filenames", "val_filenames", "test_filenames"):
        listing[name] = [str(folder / image) for image in listing[name]]
    (tmp_path / "transforms.json").write_text(json.dumps(listing))
    ours, theirs = outputs(folder, "test", **options), stock(tmp_path, "test", **options)
    assert ours.image_filenames == theirs.image_filenames
    found, expected = ours.cameras.camera_to_worlds, theirs.cameras.camera_to_worlds
    tolerance = 1e-6  # float32 in nerfstudio
    if orientation == "pca":
        tolerance = 1e-4  # two axes of a round capture are alike, which magnifies the rounding
        mirrored = torch.linalg.det(expected[:, :, :3]) < 0  # nerfstudio may mirror two poses: its mistake
        assert mirrored.sum() <= 2
        expected = torch.where(mirrored[:, None, None], -expected, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    for name in ("fx", "fy", "cx", "cy", "width", "height", "distortion_params", "camera_type"):
        torch.testing.assert_close(getattr(ours.cameras, name), getattr(theirs.cameras, name))
    assert ours.dataparser_scale == pytest.approx(theirs.dataparser_scale, rel=1e-5)
    if orientation != "pca":  # nerfstudio's own transform is then turned against its poses
        torch.testing.assert_close(ours.dataparser_transform, theirs.dataparser_transform, rtol=1e-6, atol=5e-6)
    assert torch.equal(ours.scene_box.aabb, theirs.scene_box.aabb)


def test_every_parameter_of_a_lens_arrives(tmp_path):
    listing = write_capture(tmp_path, count=4)
    lens = {"k1": 0.1, "k2": -0.2, "k3": 0.3, "k4": 0.4, "p1": 0.01, "p2": -0.02, "camera_model": "OPENCV"}
    frames = [frame | {"fl_x": 30.0 + i, "cy": 7.0 + i} for i, frame in enumerate(listing.pop("frames"))]
    for name in ("fl_x", "cy", "k1"):  # nerfstudio prefers what the file says of all photos
        listing.pop(name)
    (tmp_path / "transforms.json").write_text(json.dumps(listing | lens | {"frames": frames}))
    ours, theirs = (parse(tmp_path, eval_mode="all") for parse in (outputs, stock))
    for name in ("fx", "fy", "cx", "cy", "distortion_params"):
        torch.testing.assert_close(getattr(ours.cameras, name), getattr(theirs.cameras, name))


@pytest.mark.parametrize("options", [
    {"eval_mode": "fraction", "train_split_fraction": 0.7},
    {"eval_mode": "interval", "eval_interval": 4},
    {"eval_mode": "filename"},
    {"eval_mode": "all"},
])  # fmt: skip
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_images_of_a_split_are_nerfstudio_s_in_its_order(options, split, tmp_path):
    listing = write_capture(tmp_path, count=11)
    names = ["frame_9", "b_train_1", "frame_10", "frame_100", "a", "Z", "train", "eval_0", "x eval", "c-eval", "d"]
    for frame, name in zip(listing["frames"], names, strict=True):
        kind = "" if "eval" in name or "train" in name else "_train"
        (tmp_path / frame["file_path"]).rename(tmp_path / "images" / f"{name}{kind}.png")
        frame["file_path"] = f"images/{name}{kind}.png"
    (tmp_path / "transforms.json").write_text(json.dumps(listing))
    assert outputs(tmp_path, split, **options).image_filenames == stock(tmp_path, split, **options).image_filenames


def test_names_decide_the_split_of_reduced_images_too(tmp_path):
    listing = write_capture(tmp_path, count=6)
    for i, frame in enumerate(listing["frames"]):
        name = f"images/{'eval' if i == 3 else 'train'}_{i}.png"
        (tmp_path / frame["file_path"]).rename(tmp_path / name)
        frame["file_path"] = name
    (tmp_path / "transforms.json").write_text(json.dumps(listing))
    parsed = outputs(tmp_path, "test", eval_mode="filename", downscale_factor=2)
    assert len(parsed.image_filenames) == 1
    assert len(outputs(tmp_path, "train", eval_mode="filename", downscale_factor=2).image_filenames) == 5


@pytest.mark.parametrize("orientation", ["up", "none", "pca"])
@pytest.mark.parametrize("center", ["region", "poses", "focus"])
@pytest.mark.parametrize("shift", [(448262.31, 5411932.67, 210.5), (4027881.79, 306998.67, 4919499.36)])
def test_coordinates_of_a_survey_lose_nothing(shift, center, orientation, tmp_path):
    """UTM and geocentric coordinates, in metres: the distances of cameras are those of the files."""
    listing = write_capture(tmp_path, count=9)
    poses = np.array([frame["transform_matrix"] for frame in listing["frames"]])
    poses[:, :3, 3] += shift
    for frame, matrix in zip(listing["frames"], poses, strict=True):
        frame["transform_matrix"] = matrix.tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(listing))
    parsed = outputs(tmp_path, eval_mode="all", center_method=center, orientation_method=orientation)
    world = np.linalg.inv(np.array(parsed.metadata["scene_from_capture"]))
    found = parsed.cameras.camera_to_worlds.double().numpy()
    placed = found[:, :, 3] @ world[:3, :3].T + world[:3, 3]
    # float32 in the scene, whose unit is about 3 m, and float64 of 5e6 m in the matrices
    np.testing.assert_allclose(placed, poses[:, :3, 3], rtol=0, atol=2e-6)
    turned = world[:3, :3] / np.linalg.norm(world[:3, 0]) @ found[:, :, :3]
    np.testing.assert_allclose(turned, poses[:, :3, :3], atol=1e-6)


def test_a_capture_that_says_what_is_up_is_turned_and_keeps_its_coordinates():
    rng = np.random.default_rng(0)
    camera = Camera(24, 16, 20.0, 20.0, 12.0, 8.0)
    standing = [np.array(pose(angle)) for angle in np.linspace(0, 6, 9)]
    upright = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    lying = np.eye(4)
    lying[:3, :3] = upright.T
    photos = [Photo(Path(f"{i}.png"), lying @ p, camera, has_alpha=False) for i, p in enumerate(standing)]
    points = SparsePoints(rng.uniform(-0.5, 0.5, (100, 3)) @ upright)
    made = Capture("colmap", tuple(photos), (), {}, {}, points=points, upright=upright)
    scene = place(made, orientation="none", center="poses", auto_scale=False, scale_factor=1.0)
    middle = np.mean(standing, 0)[:3, 3]
    for own, placed, first in zip(photos, scene.poses, standing, strict=True):
        np.testing.assert_allclose(scene.matrix @ own.pose, placed, atol=1e-6)
        np.testing.assert_allclose(placed[:3, :3], first[:3, :3], atol=1e-6)
        np.testing.assert_allclose(placed[:3, 3], first[:3, 3] - middle, atol=1e-6)
    transform, scale = original_transform(scene, {})
    np.testing.assert_allclose(transform, scene.matrix[:3])
    assert scale == 1.0


@pytest.mark.parametrize("orientation", ["up", "vertical"])
def test_a_survey_flown_to_and_fro_stays_as_it_is(orientation):
    """The upward directions of its pictures cancel out, and nerfstudio divides by their mean."""
    camera, photos = Camera(24, 16, 20.0, 20.0, 12.0, 8.0), []
    for row, heading in ((0.0, 1.0), (5.0, -1.0)):
        for column in range(6):
            down = np.diag([heading, heading, 1.0, 1.0])
            down[:3, 3] = 4.0 * column, row, 30.0
            photos.append(Photo(Path(f"{row}{column}.png"), down, camera, has_alpha=False))
    made = Capture("transforms", tuple(photos), (), {}, {})
    scene = place(made, orientation=orientation, center="region", auto_scale=True, scale_factor=1.0)
    np.testing.assert_allclose(scene.matrix[:3, :3] / scene.scale, np.eye(3), atol=1e-6)
    assert scene.region.cameras == "strips"


def test_each_photo_has_its_own_lens(monkeypatch, tmp_path):
    write_capture(tmp_path, count=3)
    made = prepare(tmp_path)
    lenses = ("perspective", "fisheye", "equirectangular")
    photos = tuple(
        dataclasses.replace(photo, camera=dataclasses.replace(photo.camera, lens=lens))
        for photo, lens in zip(made.capture.photos, lenses, strict=True)
    )
    world = {"fisheye_crop_radius": 7.0}
    changed = dataclasses.replace(made, capture=dataclasses.replace(made.capture, photos=photos, world=world))
    monkeypatch.setattr(dataparser, "prepare", lambda *_, **__: changed)
    parsed = outputs(tmp_path, eval_mode="all")
    kinds = [CameraType.PERSPECTIVE, CameraType.FISHEYE, CameraType.EQUIRECTANGULAR]
    assert parsed.cameras.camera_type[:, 0].tolist() == [kind.value for kind in kinds]
    assert parsed.cameras.metadata == {"fisheye_crop_radius": 7.0}


def one_sided(folder, count=12):
    """A capture whose cameras stand within 80 degrees around the origin."""
    listing = write_capture(folder, count=count)
    for i, frame in enumerate(listing["frames"]):
        frame["transform_matrix"] = pose(math.radians(80) * (i / (count - 1) - 0.5))
    (folder / "transforms.json").write_text(json.dumps(listing))


def test_what_one_sided_cameras_look_at_lies_in_the_middle_of_the_scene(tmp_path):
    one_sided(tmp_path)
    parsed = outputs(tmp_path)
    matrix = np.array(parsed.metadata["scene_from_capture"])
    np.testing.assert_allclose(matrix[:3, 3], 0.0, atol=1e-6)  # the origin is what they look at
    scale = np.linalg.norm(matrix[:3, 0])
    positions = outputs(tmp_path, eval_mode="all").cameras.camera_to_worlds[:, :, 3]
    assert float(positions.abs().max()) == pytest.approx(1.0)  # float32
    region, bounds = parsed.metadata["region"], np.array(parsed.metadata["mesh_bounds"])
    assert region.cameras == "one-sided"
    assert region.radius == pytest.approx(8 / 21 * 3 * math.sqrt(1.16) * scale, rel=1e-5)  # half the pictures' height
    assert (bounds[0] < -region.radius).all()
    assert (bounds[1] > region.radius).all()
    assert all(outputs(tmp_path, split).metadata["focus"] == region.focus for split in ("train", "test"))
    # By the middle of the cameras, what they look at is at the wall of the cube.
    old = outputs(tmp_path, center_method="poses")
    assert np.abs(np.array(old.metadata["scene_from_capture"])[:3, 3]).max() > 0.9
    assert old.metadata["mesh_bounds"] is None


def test_cameras_in_one_place_are_said_and_not_blown_up(tmp_path, capsys):
    listing = write_capture(tmp_path, count=8)
    for frame in listing["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] = -row[2]  # outwards
            row[3] = 0.25 + 1e-17 * row[0]
    (tmp_path / "transforms.json").write_text(json.dumps(listing))
    parsed = outputs(tmp_path)
    assert parsed.dataparser_scale == 1.0
    assert float(parsed.cameras.camera_to_worlds[:, :, 3].abs().max()) < 1e-6
    assert "depth cannot be found from there" in capsys.readouterr().out
    with pytest.raises(CaptureError, match="all cameras of the capture are in one place"):
        refuse_one_place(parsed.metadata)


def test_one_line_says_what_was_found_and_notes_follow(monkeypatch, tmp_path, capsys):
    one_sided(tmp_path)
    made = prepare(tmp_path)
    noted = dataclasses.replace(made, capture=dataclasses.replace(made.capture, notes=("Paths were mended.", "So [b]")))
    monkeypatch.setattr(dataparser, "prepare", lambda *_, **__: noted)
    outputs(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path.name}: 12 photos (transforms) of 24 x 16; the cameras stand on one side of what they look at; "
        "region of interest: 2.46 wide around (0.00, 0.00, 0.00), from the cameras alone",
        "Paths were mended.",
        "So [b]",
    ]


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
