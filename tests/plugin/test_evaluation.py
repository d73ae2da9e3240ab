"""The evaluation of a run: on all held-out views or some, by `ns-eval` and by `staf eval`."""

import json
import shutil
import statistics
import subprocess
import sys

import pytest
import torch
import yaml

from staf_nerf.jobs.evaluate import Evaluate, evaluate
from staf_nerf.plugin import run
from staf_nerf.plugin.held_out import HeldOutViews, spread
from tests.conftest import write_capture
from tests.plugin.conftest import command
from tests.plugin.test_checkpoints import trainer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a run of one step, with eight held-out views."""
    folder = tmp_path_factory.mktemp("saved")
    meta = write_capture(folder / "capture", count=16)
    names = [frame["file_path"] for frame in meta["frames"]]
    splits = {"train_filenames": names[1::2], "val_filenames": names[::2], "test_filenames": names[::2]}
    (folder / "capture" / "transforms.json").write_text(json.dumps(meta | splits))
    made = trainer(folder)
    made.save_checkpoint(0)
    return made.config.get_base_dir()


def test_views_are_spread_evenly_and_include_both_ends():
    assert spread(9, 3) == [0, 4, 8]
    assert spread(200, 20)[:3] == [0, 10, 21]
    assert len(spread(200, 20)) == 20
    assert spread(5, 1) == [0]
    assert spread(3, 20) == [0, 1, 2]


def test_a_run_is_measured_as_each_of_its_views_is(saved):
    found = evaluate(Evaluate(saved))
    assert [view["file"] for view in found["views"]] == [f"{i:03d}.png" for i in range(0, 16, 2)]
    opened = run.open_saved(saved)
    camera, batch = opened.manager.fixed_indices_eval_dataloader.get_camera(3)
    opened.model.eval()
    with torch.no_grad():
        error = opened.model.get_outputs_for_camera(camera)["rgb"] - batch["image"][..., :3]
    # Float32 sums over 384 pixels in another order.
    assert found["views"][3]["psnr"] == pytest.approx(float(-10 * error.square().mean().log10()), abs=1e-3)
    each = [view["psnr"] for view in found["views"]]
    assert found["metrics"]["psnr"] == pytest.approx(sum(each) / 8)
    assert found["standard_deviations"]["psnr"] == pytest.approx(statistics.stdev(each))
    assert found["held_out"] == 8


def test_some_views_are_measured_as_they_are_among_all(saved):
    every = {view["file"]: view["psnr"] for view in evaluate(Evaluate(saved / "config.yml"))["views"]}
    some = evaluate(Evaluate(saved, views=3))
    assert [view["file"] for view in some["views"]] == ["000.png", "008.png", "014.png"]
    assert some["views"] == [view | {"psnr": pytest.approx(every[view["file"]])} for view in some["views"]]
    assert some["held_out"] == 8
    assert evaluate(Evaluate(saved, views=1))["standard_deviations"]["psnr"] is None


@pytest.mark.parametrize(
    ("options", "named"),
    [({"resolution": 3}, "--resolution"), ({"device": "cpu"}, "--device"), ({"file": "x"}, "--file")],
)
def test_options_of_fields_are_refused_for_a_run(saved, options, named):
    with pytest.raises(ValueError, match=f"{named} has no effect on a run"):
        evaluate(Evaluate(saved, **options))


def test_options_of_runs_are_refused_for_a_field(tmp_path):
    with pytest.raises(ValueError, match="--views has no effect on a fitted field"):
        evaluate(Evaluate(tmp_path / "field.safetensors", views=2))
    with pytest.raises(ValueError, match="views must be >= 1, got 0"):
        Evaluate(tmp_path, views=0)
    with pytest.raises(ValueError, match="number of views must be >= 1"):
        HeldOutViews(None, 0)


def test_a_run_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.config.yml does not exist"):
        evaluate(Evaluate(tmp_path / "none" / "config.yml"))


def test_staf_eval_writes_what_it_measured(saved, tmp_path):
    line = [sys.executable, "-m", "staf_nerf", "eval", saved, "--views", 2, "-o", tmp_path / "new" / "eval.json"]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 8" in done.stdout
    assert "±" in done.stdout
    found = json.loads((tmp_path / "new" / "eval.json").read_text())
    assert len(found["views"]) == 2
    assert found["metrics"]["psnr"] == pytest.approx(sum(view["psnr"] for view in found["views"]) / 2)


def test_ns_eval_measures_the_views_that_the_run_is_limited_to_and_says_how_far_it_is(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    file = tmp_path / "run" / "config.yml"
    config = yaml.load(file.read_text(), Loader=yaml.Loader)
    config.pipeline.eval_views = 3
    file.write_text(yaml.dump(config))
    result = command("ns-eval", "--load-config", file, "--output-path", tmp_path / "eval.json", cwd=tmp_path)
    said = [line for line in result.stdout.splitlines() if line.startswith("evaluated")]
    assert said == [f"evaluated {done} of 3 views" for done in (1, 2, 3)]
    psnr = json.loads((tmp_path / "eval.json").read_text())["results"]["psnr"]
    # Each view is a float32 sum over 384 pixels, once in another process.
    assert psnr == pytest.approx(evaluate(Evaluate(saved, views=3))["metrics"]["psnr"], abs=1e-3)
