"""What a checkpoint survives, and what is said of one that cannot be used."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from staf_nerf.plugin import run
from staf_nerf.plugin.methods import trainer_config
from staf_nerf.plugin.trainer import check_readable, plain
from staf_nerf.presets import load_preset, override
from tests.conftest import write_capture
from tests.plugin.conftest import command

GRID = {"num_levels": 2, "log2_table_size": 8, "max_resolution": 32}
TINY = {
    "field": {"hidden_features": 8},
    "color": {"hidden_features": 8},
    "proposal": {"encoding": GRID, "hidden_features": 8},
    "sampling": {"proposal_samples": [8, 8], "field_samples": 8},
    "training": {"steps": 3, "rays_per_step": 32},
}


def trainer(folder: Path, method: str = "staf-nerf", changes: dict | None = None, load_dir: Path | None = None):
    """A trainer on a tiny capture, ready to train."""
    data = folder / "capture"
    if not data.exists():
        write_capture(data)
    preset = override(load_preset(method, "cpu"), TINY)
    if preset.field.encoding.name == "hash":
        preset = override(preset, {"field": {"encoding": GRID}})
    preset = override(preset, changes or {})
    config = trainer_config(method, preset, "cpu")
    config.pipeline.datamanager.data = data
    config.output_dir, config.experiment_name, config.load_dir = folder, "tiny", load_dir
    return run.set_up(config, seed=0)


def checkpoints(made) -> list[Path]:
    return sorted(made.checkpoint_dir.glob("*"))


def test_numpy_scalars_become_plain_numbers_at_any_depth():
    state = {"a": [np.float64(0.5), (np.int64(3),)], "b": {"c": torch.ones(2)}}
    result = plain(state)
    assert type(result["a"][0]) is float
    assert type(result["a"][1][0]) is int
    assert result["b"]["c"] is state["b"]["c"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        made = trainer(disk)
        made.save_checkpoint(1)
        (before,) = checkpoints(made)
        content = before.read_bytes()
        (disk / "filler").write_bytes(b"0" * 1_300_000) if len(content) < 100_000 else None
        free = _free(disk)
        (disk / "rest").write_bytes(b"0" * max(free - len(content) // 2, 0))
        with pytest.raises(OSError, match=r"could not save .*step-000000002.ckpt.*kept: step-000000001.ckpt"):
            made.save_checkpoint(2)
        assert checkpoints(made) == [before]
        assert before.read_bytes() == content
        assert not list(made.checkpoint_dir.parent.glob("*.partial"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _free(folder: Path) -> int:
    import os

    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def test_only_the_latest_checkpoint_is_kept_and_it_is_whole(tmp_path):
    made = trainer(tmp_path)
    made.save_checkpoint(1)
    made.save_checkpoint(2)
    (kept,) = checkpoints(made)
    assert kept.name == "step-000000002.ckpt"
    check_readable(kept)


def test_a_truncated_checkpoint_is_named(tmp_path):
    made = trainer(tmp_path)
    made.save_checkpoint(1)
    (path,) = checkpoints(made)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"step-000000001.ckpt is truncated or not a checkpoint \(5000 bytes\)"):
        trainer(tmp_path, load_dir=made.checkpoint_dir)


def test_ns_eval_says_that_a_checkpoint_is_truncated(trained, tmp_path):
    import shutil

    shutil.copytree(trained.folder, tmp_path / "run")
    (path,) = (tmp_path / "run").rglob("*.ckpt")
    path.write_bytes(path.read_bytes()[:5000])
    result = command(
        "ns-eval", "--load-config", tmp_path / "run" / "config.yml", "--output-path", tmp_path / "eval.json",
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "is truncated or not a checkpoint" in " ".join(result.stdout.split())
    assert not (tmp_path / "eval.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("_model.format_version"), "not from a STAF method"),
        (
            lambda state: state.update({"_model.format_version": torch.tensor(99)}),
            "format version 99, .* install a newer",
        ),
    ],
)
def test_checkpoints_of_other_methods_and_newer_versions_are_refused(tmp_path, change, message):
    made = trainer(tmp_path)
    state = made.pipeline.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        made.pipeline.load_pipeline(state, 1)


def test_a_checkpoint_of_another_of_our_methods_is_refused(tmp_path):
    siren = trainer(tmp_path, "siren-nerf")
    siren.save_checkpoint(1)
    with pytest.raises(ValueError, match="does not match this method and its configuration"):
        trainer(tmp_path, "staf-nerf-mlp", load_dir=siren.checkpoint_dir)
