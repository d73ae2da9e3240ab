"""What the pages' code blocks find: small files of each kind, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from staf_nerf.activations import ACTIVATIONS
from staf_nerf.presets import resource
from tests.docs.commands import Commands

PHOTOS, HELD_OUT, FACTOR = 8, 2, 4
"""Photos of the small capture, those of them to evaluate on, and by how much they are smaller than the scene's."""


@pytest.fixture(autouse=True)
def activations_of_the_package() -> Iterator[None]:
    """Forgets the activations that a page gives a name."""
    before = dict(ACTIVATIONS)
    yield
    ACTIVATIONS.clear()
    ACTIVATIONS.update(before)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photo.jpg, clip.flac, bunny.obj, points.xyz, a capture in scene/ and the like."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    write_pictures(folder, rng)
    write_film(folder)
    write_sounds(folder)
    write_shapes(folder)
    write_scene(folder / "scene")
    return folder


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands({"XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp() / "cache"), "COLUMNS": "160"})


def write_pictures(folder: Path, rng: np.random.Generator) -> None:
    """Pictures of 48 x 32 pixels: waves in colour; grain.png is noisy."""
    y, x = np.mgrid[0:32, 0:48] / 32.0
    waves = np.stack([np.sin(9 * x) * np.cos(5 * y), np.sin(7 * y + x), np.cos(12 * x * y)], -1)
    for name in ("photo.jpg", "photo.png", "a.png", "b.png"):
        Image.fromarray((127.5 + 100 * waves).astype(np.uint8)).save(folder / name)
    noisy = 127.5 + 100 * waves + 15 * rng.standard_normal(waves.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / "grain.png")


def write_film(folder: Path) -> None:
    """Six frames of waves that move."""
    from staf_nerf.tasks.video import write_video

    y, x = np.mgrid[0:32, 0:48] / 32.0
    waves = [np.stack([np.sin(9 * x + 0.5 * t), np.cos(5 * y - t), np.sin(7 * x * y + t)], -1) for t in range(6)]
    write_video(folder / "film.mp4", (127.5 + 100 * np.stack(waves)).astype(np.uint8), 10.0)


def write_sounds(folder: Path) -> None:
    """A quarter of a second of a chirp, in two channels."""
    import soundfile

    time = np.arange(2000) / 8000.0
    chirp = np.stack([np.sin(2 * np.pi * (200 + 400 * time) * time), np.cos(700 * time)], -1)
    for name in ("clip.flac", "clip.wav"):
        soundfile.write(folder / name, 0.5 * chirp, 8000)


def write_shapes(folder: Path) -> None:
    """A closed mesh, the same as another file, and points on it with normals."""
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.vertices *= 1.0 + 0.15 * np.sin(3 * mesh.vertices[:, :1])
    mesh.export(folder / "bunny.obj")
    mesh.export(folder / "scan.ply")
    np.savetxt(folder / "points.xyz", np.hstack([mesh.vertices, mesh.vertex_normals]), fmt="%.6f")


def write_scene(folder: Path) -> None:
    """Every so many photos of the repository's scene, at a quarter of their size."""
    source = resource("scenes") / "tin_robot"
    meta = json.loads((source / "transforms.json").read_text())
    (folder / "images").mkdir(parents=True)
    frames = meta["frames"][:: len(meta["frames"]) // PHOTOS][:PHOTOS]
    for number, frame in enumerate(frames):
        with Image.open(source / frame["file_path"]) as image:
            image.reduce(FACTOR).save(folder / "images" / f"{number:03d}.png")
        frame["file_path"] = f"images/{number:03d}.png"
    numbers = {name: meta[name] / FACTOR for name in ("fl_x", "fl_y", "cx", "cy") if name in meta}
    sizes = {name: meta[name] // FACTOR for name in ("w", "h") if name in meta}
    names = [frame["file_path"] for frame in frames]
    splits = {
        "train_filenames": names[HELD_OUT:],
        "val_filenames": names[:HELD_OUT],
        "test_filenames": names[:HELD_OUT],
    }
    listing = {**numbers, **sizes, **splits, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(listing))
