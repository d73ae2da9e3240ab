"""Photos from one side, from their files to a mesh: a ball before a wall, whose true surface is known."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree

from staf_nerf.jobs.mesh import MakeMesh, make_mesh
from staf_nerf.mesh.triangles import read_mesh
from staf_nerf.plugin import run
from staf_nerf.plugin.mesh_source import source_of
from staf_nerf.plugin.methods import trainer_config
from staf_nerf.presets import load_preset, override
from tests.conftest import pose

RADIUS, WALL, SIDE, FOCAL = 0.6, -1.0, 48, 54.0
"""A ball around the origin, and a wall behind it at this x. Photos of `SIDE` pixels from `pose`'s distance of 3.2."""


def seen(origin, directions):
    """Colours (N, 3) in [0, 1] along unit directions (N, 3) that all go towards the wall."""
    along = directions @ origin
    under = along**2 - origin @ origin + RADIUS**2
    on_ball = origin + (-along - np.sqrt(np.maximum(under, 0)))[:, None] * directions
    on_wall = origin + ((WALL - origin[0]) / directions[:, 0])[:, None] * directions
    ball = 0.5 + 0.5 * np.sin(on_ball * [6.0, 8.0, 7.0] + [0.0, 1.0, 2.0])
    wall = 0.5 + 0.3 * np.sin(3.0 * on_wall[:, [1, 2, 1]]) * np.sin(3.0 * on_wall[:, [2, 2, 1]] + 1.0)
    return np.where((under > 0)[:, None], ball, wall)


def photo(matrix):
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    local = np.stack([(columns - SIDE / 2) / FOCAL, (SIDE / 2 - rows) / FOCAL, -np.ones((SIDE, SIDE))], -1)
    directions = local.reshape(-1, 3) @ matrix[:3, :3].T
    colors = seen(matrix[:3, 3], directions / np.linalg.norm(directions, axis=-1, keepdims=True))
    return Image.fromarray((255 * colors).round().astype(np.uint8).reshape(SIDE, SIDE, 3))


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """21 photos within 70 degrees, at three heights."""
    folder = tmp_path_factory.mktemp("side")
    (folder / "images").mkdir()
    frames = []
    for i, (angle, tilt) in enumerate((a, b) for b in (-0.5, 0.0, 0.4) for a in np.radians(np.linspace(-35, 35, 7))):
        matrix = np.array(pose(angle))
        turn = np.eye(4)  # about the y axis of the world, as all cameras are near its x axis
        turn[:3, :3] = [[math.cos(tilt), 0, -math.sin(tilt)], [0, 1, 0], [math.sin(tilt), 0, math.cos(tilt)]]
        matrix = turn @ matrix
        photo(matrix).save(folder / "images" / f"{i:02d}.png")
        frames.append({"file_path": f"images/{i:02d}.png", "transform_matrix": matrix.tolist()})
    meta = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIDE / 2, "cy": SIDE / 2, "w": SIDE, "h": SIDE, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def test_the_mesh_of_photos_from_one_side_is_whole_and_in_its_place(capture, tmp_path):
    preset = override(load_preset("staf-nerf", "cpu"), {"training": {"steps": 300}})
    config = trainer_config("staf-nerf", preset, "cpu")
    config.pipeline.datamanager.data, config.output_dir = capture, tmp_path
    trainer = run.set_up(config, seed=0)
    run.train(trainer)
    assert run.evaluate(trainer.pipeline.model, trainer.pipeline.datamanager)["psnr"] > 20.0
    source = source_of(trainer.pipeline.model, trainer.pipeline.datamanager, most_pixels=SIDE)
    make_mesh(source, MakeMesh(tmp_path / "ball.ply", resolution=100))
    made = read_mesh(tmp_path / "ball.ply").vertices
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    front = RADIUS * directions[directions[:, 0] > 0.5]  # what most cameras see
    distance = KDTree(made).query(front)[0]
    # A pixel covers 3.2 / 54 = 0.06 of the ball.
    assert (distance < 0.06).mean() > 0.9
    assert np.median(np.abs(np.linalg.norm(made[made[:, 0] > 0.3], axis=-1) - RADIUS)) < 0.06
