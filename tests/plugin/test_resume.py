"""A run that goes on from a checkpoint: how many steps it does, what it says, and what it leaves behind."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from staf_nerf.plugin import run
from staf_nerf.plugin.workarounds import options_of_ns_train
from tests.conftest import write_capture
from tests.plugin.conftest import command
from tests.plugin.test_checkpoints import checkpoints, trainer
from tests.plugin.test_methods import configured

SMALL = (
    "--experiment-name", "small", "--pipeline.datamanager.train-num-rays-per-batch", "32",
    "--pipeline.model.field.encoding", "hash:num_levels=2,log2_table_size=8",
)  # fmt: skip

QUIET = (*SMALL, "--vis", "tensorboard")


def steps(total: int) -> dict:
    return {"training": {"steps": total}}


def interrupted(folder: Path, at: int, total: int):
    """A run of some steps that Ctrl-C ends at one of them."""
    made = trainer(folder, changes=steps(total))

    def interrupt(_, step):
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(made, interrupt)
    return made


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys):
    made = interrupted(tmp_path, 4, 50)
    assert [path.name for path in checkpoints(made)] == ["step-000000004.ckpt"]
    printed = capsys.readouterr().out
    expected = f"ns-train staf-nerf --data {tmp_path / 'capture'} --load-dir {made.checkpoint_dir}"
    assert f"{expected} --max-num-iterations 50" in printed
    assert trainer(tmp_path, changes=steps(50), load_dir=made.checkpoint_dir)._start_step == 5


def test_a_run_that_goes_on_does_the_steps_that_are_left_with_the_rates_of_an_uninterrupted_one(tmp_path):
    rates: dict[str, list[tuple[int, float]]] = {"whole": [], "parts": []}

    def recorded(made, name: str, to: int) -> None:
        def record(trained, step):
            rates[name].append((step, trained.optimizers.optimizers["network"].param_groups[0]["lr"]))
            if step == to:
                raise KeyboardInterrupt

        run.train(made, record)

    recorded(trainer(tmp_path / "whole", changes=steps(12)), "whole", -1)
    first = trainer(tmp_path / "parts", changes=steps(12))
    with pytest.raises(KeyboardInterrupt):
        recorded(first, "parts", 4)
    second = trainer(tmp_path / "parts", changes=steps(12), load_dir=first.config.get_base_dir())
    recorded(second, "parts", -1)
    assert [step for step, _ in rates["parts"]] == list(range(12))
    # The schedule is a function of the step: rounding of the stored base rate is all that may differ.
    assert rates["parts"] == [(step, pytest.approx(rate, rel=1e-6)) for step, rate in rates["whole"]]
    assert checkpoints(second)[-1].name == "step-000000011.ckpt"
    assert second.config.max_num_iterations == 12


def test_percent_and_time_left_count_all_steps(tmp_path):
    first = interrupted(tmp_path, 4, 12)
    second = trainer(tmp_path, changes=steps(12), load_dir=first.checkpoint_dir)
    seen = []

    def record(_, step):
        seen.append((step, run.writer.GLOBAL_BUFFER["max_iter"]))

    run.train(second, record)
    assert [100 * step / total for step, total in seen] == [100 * step / 12 for step in range(5, 12)]


@pytest.mark.parametrize("total", [5, 3])
def test_a_finished_run_says_which_number_to_give_and_writes_nothing(tmp_path, total):
    first = interrupted(tmp_path, 4, 12)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=rf"nothing is left .* has 5 steps[^$]*--max-num-iterations {5 + total}$"):
        trainer(tmp_path, changes=steps(total), load_dir=first.checkpoint_dir)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_checkpoint_of_any_name_goes_on_too(tmp_path):
    first = interrupted(tmp_path, 4, 12)
    other = checkpoints(first)[0].rename(tmp_path / "other.ckpt")

    def config(total: int):
        made = trainer(tmp_path, changes=steps(total))
        made.config.load_checkpoint = other
        made._choose_checkpoint()
        made._load_checkpoint()
        return made

    assert config(9)._start_step == 5
    with pytest.raises(ValueError, match="nothing is left to train"):
        config(5)


def test_an_interrupt_within_a_step_saves_the_step_before(tmp_path, monkeypatch):
    first = interrupted(tmp_path, 4, 12)
    second = trainer(tmp_path, changes=steps(12), load_dir=first.checkpoint_dir)

    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(second.pipeline, "get_train_loss_dict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.train(second)
    (saved,) = checkpoints(second)
    assert saved.name == "step-000000004.ckpt"
    assert torch.load(saved, weights_only=True)["schedulers"]["network"]["last_epoch"] == 5


def test_an_interrupt_before_any_step_saves_nothing(tmp_path, monkeypatch):
    made = trainer(tmp_path)

    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(made.pipeline, "get_train_loss_dict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.train(made)
    assert not checkpoints(made)


def test_a_load_dir_without_checkpoints_is_named(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint \(step-\*.ckpt\) in .*nothing"):
        trainer(tmp_path, load_dir=tmp_path / "nothing")
    (tmp_path / "file.ckpt").touch()
    with pytest.raises(ValueError, match=r"file.ckpt is a file; --load-checkpoint takes"):
        trainer(tmp_path, load_dir=tmp_path / "file.ckpt")


def test_a_run_as_long_as_the_method_s_needs_no_options_for_its_schedule(tmp_path, monkeypatch):
    made = trainer(tmp_path, changes=steps(3800))
    monkeypatch.setattr("staf_nerf.plugin.trainer.detect_device", lambda: "cpu")
    assert made.resume_command().endswith("--max-num-iterations 3800")
    assert "--max-num-iterations 7600" in made.resume_command(7600)


def test_the_command_of_a_run_with_another_schedule_brings_it_to_ns_train(tmp_path):
    made = trainer(tmp_path, changes=steps(20))
    _, *arguments = shlex.split(made.resume_command())
    config = configured(*arguments)
    assert config.max_num_iterations == 20
    assert config.load_dir == made.checkpoint_dir
    schedules = {name: options["scheduler"].max_steps for name, options in config.optimizers.items()}
    assert schedules == dict.fromkeys(made.config.optimizers, 20)


def test_the_options_of_ns_train_are_kept_except_those_that_are_replaced(monkeypatch):
    words = "ns-train m --data a --load_dir b --vis wandb --data=c --x -1 staf-capture --data d --masks ignore"
    monkeypatch.setattr(sys, "argv", shlex.split(words))
    assert " ".join(options_of_ns_train(but=("data", "load-dir")) or []) == (
        "--vis wandb --x -1 staf-capture --masks ignore"
    )
    monkeypatch.setattr(sys, "argv", ["ns-train", "m", "--load-config", "config.yml"])
    assert options_of_ns_train(but=()) is None
    monkeypatch.setattr(sys, "argv", ["staf", "demo", "--steps", "5"])
    assert options_of_ns_train(but=()) is None


def test_the_command_that_ctrl_c_prints_ends_where_the_run_would_have(tmp_path):
    write_capture(tmp_path / "my capture")
    line = [str(Path(sys.executable).parent / "ns-train"), "staf-nerf", "--data", "my capture"]
    line += ["--max-num-iterations", "400", *QUIET, "staf-capture", "--downscale-factor", "2"]
    process = subprocess.Popen(
        line, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for text in process.stdout:
        if re.search(r"^\D*\d+ \(\d+\.\d+%\)", text):  # the first steps are done
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    printed_line = next(text for text in printed.splitlines() if text.startswith("ns-train staf-nerf"))
    _, *arguments = shlex.split(printed_line)
    assert arguments[-3:] == ["staf-capture", "--downscale-factor", "2"]
    result = command("ns-train", *arguments, cwd=tmp_path)
    saved = sorted(tmp_path.rglob("*.ckpt"))
    assert saved[-1].name == "step-000000399.ckpt"
    assert len(saved) == 2  # one of the interrupted run, one of this
    state = torch.load(saved[-1], weights_only=True)
    assert state["schedulers"]["network"]["last_epoch"] == 400
    percents = [float(found) for found in re.findall(r"\((\d+\.\d+)%\)", result.stdout)]
    assert 97.0 < max(percents) < 100.0
    assert not re.search(r"\d+ h, ", result.stdout)


def test_ns_train_with_the_viewer_has_its_folder_in_time(tmp_path):
    write_capture(tmp_path / "capture")
    command(
        "ns-train", "staf-nerf", "--data", "capture", *SMALL, "--vis", "viewer+tensorboard",
        "--viewer.quit-on-train-completion", True, "--max-num-iterations", 2, "--timestamp", "now", cwd=tmp_path,
    )  # fmt: skip
    folder = tmp_path / "outputs" / "small" / "staf-nerf" / "now"
    assert (folder / "config.yml").is_file()
    assert (folder / "nerfstudio_models" / "step-000000001.ckpt").is_file()


def test_ns_train_on_a_folder_without_a_capture_leaves_no_folder(tmp_path):
    (tmp_path / "wrong").mkdir()
    result = command("ns-train", "staf-nerf", "--data", "wrong", *QUIET, cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    assert str(tmp_path / "wrong") in result.stdout.replace("\n", "")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "wrong"]


def test_ns_train_on_a_capture_that_cannot_be_read_leaves_no_folder(tmp_path):
    write_capture(tmp_path / "capture")
    (tmp_path / "capture" / "transforms.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    result = command("ns-train", "staf-nerf", "--data", "capture", *QUIET, cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert "transforms.json" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before
