"""What our ways around nerfstudio rely on, in the installed nerfstudio, and that they work there."""

import re
import sys
from pathlib import Path

import nerfstudio
import pytest
import yaml
from nerfstudio.utils.eval_utils import eval_setup

from staf_nerf.plugin.workarounds import config_being_read, unreadable_run
from tests.plugin.conftest import command
from tests.plugin.test_checkpoints import trainer

FOLDER = Path(nerfstudio.__file__).parent


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [
        ("utils/eval_utils.py", 68, "def eval_setup("),
        ("utils/eval_utils.py", 90, "config = yaml.load(config_path.read_text()"),
        ("utils/eval_utils.py", 91, "assert isinstance(config, TrainerConfig)"),
        ("utils/eval_utils.py", 102, "config.load_dir = config.get_checkpoint_dir()"),
        ("scripts/viewer/run_viewer.py", 71, "config.viewer = self.viewer.as_viewer_config()"),
        ("configs/base_config.py", 135, 'websocket_host: str = "0.0.0.0"'),
    ],
)
def test_nerfstudio_still_forces_what_we_do(file, line, text):
    assert text in (FOLDER / file).read_text().splitlines()[line - 1]


@pytest.fixture
def saved(tmp_path) -> Path:
    """The folder of a tiny run with a checkpoint, which was moved after the training."""
    made = trainer(tmp_path)
    made.save_checkpoint(0)
    return made.config.get_base_dir().rename(tmp_path / "moved")


def test_a_moved_run_is_found_beside_its_configuration(saved):
    config, _, checkpoint, _ = eval_setup(saved / "config.yml")
    assert config.get_base_dir() == saved
    assert checkpoint.parent.parent == saved
    assert config_being_read() is None


def test_a_configuration_does_not_save_where_it_was_read_from(saved):
    config, *_ = eval_setup(saved / "config.yml")
    assert config.config_file == saved / "config.yml"
    config.load_dir = None
    assert "config_file" not in yaml.dump(config)
    assert str(saved) not in yaml.dump(config)


@pytest.mark.parametrize(
    ("arguments", "host"), [([], "127.0.0.1"), (["--viewer.websocket-host", "0.0.0.0"], "0.0.0.0")]
)
def test_ns_viewer_listens_on_all_networks_only_if_the_command_line_says_so(saved, monkeypatch, arguments, host):
    from nerfstudio.scripts.viewer import run_viewer

    started = []
    monkeypatch.setattr(sys, "argv", ["ns-viewer", *arguments])
    monkeypatch.setattr(run_viewer, "_start_viewer", lambda config, *_: started.append(config.viewer.websocket_host))
    run_viewer.RunViewer(saved / "config.yml").main()
    assert started == [host]


NOT_A_RUN = [
    (b"a: 1\n", "it is not a config.yml of ns-train"),
    (b"\xff\xfe\x00", "it is not a config.yml of ns-train"),
    (b"a: [1\n", "expected ',' or ']', but got '<stream end>', in line 2"),
    (b"!!python/object:nowhere.Config\na: 1\n", "cannot find module 'nowhere'.*, in line 1"),
    (None, "No such file or directory"),
]


@pytest.mark.parametrize(("content", "reason"), NOT_A_RUN)
def test_what_is_not_a_run_is_named_with_the_reason(tmp_path, content, reason):
    file = tmp_path / "config.yml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Exception) as raised:  # noqa: PT011 (nerfstudio's errors are of many kinds)
        eval_setup(file)
    message = unreadable_run(raised.value)
    assert message is not None
    assert message.startswith(f"cannot load the run {file}: ")
    assert re.search(reason, message)
    assert message.count("\n") == 0


def test_a_method_that_is_not_installed_is_named(saved):
    file = saved / "config.yml"
    file.write_text(file.read_text().replace("method_name: staf-nerf", "method_name: gone-nerf"))
    with pytest.raises(KeyError) as raised:
        eval_setup(file)
    assert unreadable_run(raised.value) == f"cannot load the run {file}: its method 'gone-nerf' is not installed"


def test_an_error_in_what_a_run_sets_up_is_left_to_its_method(saved):
    (saved / "config.yml").write_text((saved / "config.yml").read_text().replace("model: ", "modell: ", 1))
    with pytest.raises(Exception) as raised:  # noqa: PT011 (as of a bug in any method)
        eval_setup(saved / "config.yml")
    assert unreadable_run(raised.value) is None


@pytest.mark.parametrize(
    ("name", "kind", "output"),
    [("ns-export", "pointcloud", "--output-dir"), ("ns-render", "interpolate", "--output-path")],
)
def test_nerfstudio_s_commands_say_in_one_line_what_is_not_a_run(tmp_path, name, kind, output):
    (tmp_path / "config.yml").write_text("a: 1\n")
    result = command(name, kind, "--load-config", "config.yml", output, "out", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert "staf-nerf: cannot load the run config.yml: it is not a config.yml of ns-train" in result.stdout
