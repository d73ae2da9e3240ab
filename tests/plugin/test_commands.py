"""nerfstudio's own commands, unmodified, on our checkpoints: offline, on any device, without environment variables."""

import json
import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from staf_nerf.machine.device import detect_device
from staf_nerf.presets import load_preset
from tests.plugin.conftest import SCENE, STEPS, command

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def test_ns_train_saves_a_checkpoint_that_safe_loading_accepts(trained):
    (checkpoint,) = (trained.folder / "nerfstudio_models").glob("*.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] == STEPS - 1
    assert state["schedulers"].keys() >= {"encoding", "network", "activation"}


def test_the_absence_of_tiny_cuda_nn_prints_at_most_one_line(trained):
    assert sum("tiny-cuda-nn" in line for line in trained.printed.splitlines()) <= 1
    assert "Could not load tinycudann" not in trained.printed


def test_ns_eval_scores_the_held_out_views_without_lpips(trained):
    output = trained.folder / "eval.json"
    command("ns-eval", "--load-config", trained.config, "--output-path", output, cwd=trained.folder.parents[3])
    results = json.loads(output.read_text())["results"]
    assert "lpips" not in results  # its weights are not on this disk, and nothing is downloaded
    # A constant image of the photos' mean colour has 16.6 dB at this size; 150 steps give about 20.
    assert results["psnr"] > 18.0
    assert results["ssim"] > 0.4


def test_a_moved_run_is_evaluated_from_another_folder(trained, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.folder, moved)
    hidden = trained.folder.with_name("hidden")
    trained.folder.rename(hidden)
    try:
        command("ns-eval", "--load-config", moved / "config.yml", "--output-path", tmp_path / "eval.json", cwd=tmp_path)
    finally:
        hidden.rename(trained.folder)
    assert json.loads((tmp_path / "eval.json").read_text())["results"]["psnr"] > 18.0


def test_ns_train_resumes_where_it_stopped(trained, tmp_path):
    command(
        "ns-train", "staf-nerf", "--data", SCENE, "--vis", "tensorboard", "--max-num-iterations", STEPS + 5,
        "--load-dir", trained.folder, "--output-dir", tmp_path, "--timestamp", "second",
        "staf-capture", "--downscale-factor", 4,
        cwd=tmp_path,
    )  # fmt: skip
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] == STEPS + 4
    before = torch.load(next(trained.folder.rglob("*.ckpt")), weights_only=True)
    adam, old = (s["optimizers"]["encoding"]["state"][0]["step"] for s in (state, before))
    assert int(adam) == int(old) + 5


@needs_ffmpeg
def test_ns_render_makes_pictures_along_a_path(trained, tmp_path):
    command(
        "ns-render", "interpolate", "--load-config", trained.config, "--output-path", tmp_path / "path",
        "--output-format", "images", "--image-format", "png", "--interpolation-steps", 1, "--pose-source", "eval",
        cwd=tmp_path,
    )  # fmt: skip
    assert len(list(tmp_path.rglob("*.png"))) >= 19


@needs_ffmpeg
def test_ns_render_makes_a_film(trained, tmp_path):
    command(
        "ns-render", "spiral", "--load-config", trained.config, "--output-path", tmp_path / "spiral.mp4",
        "--seconds", 0.2, "--frame-rate", 10,
        cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "spiral.mp4").stat().st_size > 500


def test_ns_export_writes_cameras_and_a_point_cloud_on_the_scene(trained, tmp_path):
    import numpy as np
    import open3d as o3d

    command("ns-export", "cameras", "--load-config", trained.config, "--output-dir", tmp_path, cwd=tmp_path)
    assert len(json.loads((tmp_path / "transforms_train.json").read_text())) == 60
    command(
        "ns-export", "pointcloud", "--load-config", trained.config, "--output-dir", tmp_path, "--num-points", 2000,
        "--normal-method", "open3d", "--num-rays-per-batch", 1024,
        cwd=tmp_path,
    )  # fmt: skip
    points = np.asarray(o3d.io.read_point_cloud(str(tmp_path / "point_cloud.ply")).points)
    assert len(points) >= 1000
    assert np.isfinite(points).all()


def test_tensorboard_has_losses_learning_rates_and_histograms_of_the_frequencies(trained):
    board = EventAccumulator(str(trained.folder)).Reload()
    scalars, histograms = board.Tags()["scalars"], board.Tags()["histograms"]
    assert any("rgb_loss" in name for name in scalars)
    assert {"learning_rate/activation", "learning_rate/encoding"} <= set(scalars)
    layers = [name for name in histograms if name.startswith("frequency/")]
    assert len(layers) == len([name for name in histograms if name.startswith("amplitude/")]) > 1
    assert (
        board.Histograms(layers[0])[-1].histogram_value.num
        == load_preset("staf-nerf", detect_device()).field.activation.options["num_frequencies"]
    )


def test_ns_train_lists_the_methods_and_the_dataparser():
    from nerfstudio.configs.dataparser_configs import all_dataparsers
    from nerfstudio.configs.method_configs import all_methods

    assert {"staf-nerf", "staf-nerf-mlp", "staf-nerf-sdf", "siren-nerf", "paper-nerf"} <= set(all_methods)
    assert "staf-capture" in all_dataparsers
    for name in ("staf-nerf", "staf-nerf-mlp", "staf-nerf-sdf", "siren-nerf", "paper-nerf"):
        assert all_methods[name].viewer.websocket_host == "127.0.0.1"
        assert all_methods[name].machine.device_type == ("cuda" if torch.cuda.is_available() else "cpu")
