"""Ways around nerfstudio 1.1.5, for what its commands offer no way for. Each function says what forces it.

`tests/plugin/test_workarounds.py` fails if nerfstudio changes what they rely on.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import yaml
from nerfstudio.configs.base_config import ViewerConfig

from staf_nerf.errors import debugging, explain

EVAL_SETUP = "eval_setup"
"""The function that reads the config.yml of a run: nerfstudio/utils/eval_utils.py, line 68."""
ALL_NETWORKS = ViewerConfig().websocket_host
"""The address by which nerfstudio's viewer listens on all networks: nerfstudio/configs/base_config.py, line 135."""

LIBRARIES = r"(nerfstudio|torch|torchmetrics|torchvision)(\.|$)"
"""Modules that warn about each other, which a user cannot act on."""


def config_being_read() -> Path | None:
    """Returns the config.yml that nerfstudio is reading at this moment, or None.

    `eval_setup` (line 90) makes the configuration from the text of the file, and then asks it for the folder of its
    checkpoints (line 102). It does not say where the file lies, and the folder may have been moved since the file was
    written. So the path is taken from the stack frame of `eval_setup`. Our own commands do not need this: they give
    `eval_setup` a function that says where the file lies.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == EVAL_SETUP and isinstance(path := frame.f_locals.get("config_path"), Path):
            return path.absolute()
        frame = frame.f_back
    return None


def options_of_ns_train(*, but: Collection[str]) -> list[str] | None:
    """Returns the words that followed the method in the command line of `ns-train`, without the options in `but`.

    A configuration does not tell which of its values the command line set. So a command that repeats a run can only be
    made of the words.

    Returns:
        The words, or None if this is not `ns-train`, or a file gave all settings (`--load-config`).
    """
    words = sys.argv[2:]
    if Path(sys.argv[0]).stem != "ns-train" or any(_option(word) == "load-config" for word in words):
        return None
    kept, is_value = [], False
    for word in words:
        is_left_out = _option(word) in but
        if not (is_left_out or is_value):
            kept.append(word)
        is_value = is_left_out and "=" not in word
    return kept


def _option(word: str) -> str | None:
    """Returns the name of an option, or None for another word."""
    return word.removeprefix("--").partition("=")[0].replace("_", "-") if word.startswith("--") else None


def local_unless_named(viewer: ViewerConfig) -> ViewerConfig:
    """Returns the viewer's settings, for this machine alone unless the command line sets the address.

    `ns-viewer` replaces the settings of a run by its own defaults (nerfstudio/scripts/viewer/run_viewer.py, line 71),
    which listen on all networks. Whether a user asked for that can only be seen in the command line.
    """
    named = any("websocket-host" in word.replace("_", "-") for word in sys.argv)
    if named or viewer.websocket_host != ALL_NETWORKS:
        return viewer
    return dataclasses.replace(viewer, websocket_host="127.0.0.1")


def unreadable_run(error: BaseException) -> str | None:
    """Returns the message for a file that is not the config.yml of a run, or None for any other error.

    `eval_setup` reports such a file by an assertion (line 91), by an error of the parser, or by that of a search.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    start = next((i for i, frame in enumerate(frames) if frame.f_code.co_name == EVAL_SETUP), None)
    if start is None or not all(_reads_runs(frame.f_globals.get("__name__", "")) for frame in frames[start:]):
        return None
    return f"cannot load the run {frames[start].f_locals.get('config_path')}: {_reason(error)}"


def _reads_runs(module: str) -> bool:
    """Returns whether a module takes part in reading a config.yml. What is set up by it afterwards does not."""
    return module == "nerfstudio.utils.eval_utils" or module.partition(".")[0] in ("yaml", "pathlib", "codecs")


def _reason(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        place = "" if error.problem_mark is None else f", in line {error.problem_mark.line + 1}"
        return f"{error.problem}{place}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, KeyError):
        return f"its method {error} is not installed"
    if isinstance(error, IndexError):
        return "it has no checkpoint"
    said = str(error) if isinstance(error, AssertionError) else ""
    return said or "it is not a config.yml of ns-train"


@contextmanager
def without_library_warnings() -> Iterator[None]:
    """Context that hides the libraries' warnings about each other."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=LIBRARIES)
        yield


def name_unreadable_runs() -> None:
    """Makes nerfstudio's commands name a file that is not the config.yml of a run, without a traceback.

    It must be called before a configuration is read, so when nerfstudio loads the methods. Other errors are shown as
    before: they may be those of another method.
    """
    _show_errors(unreadable_run)


def keep_messages_short() -> None:
    """Makes nerfstudio's commands show errors that a user can fix in a few lines, without a traceback.

    It also hides the libraries' warnings about each other. nerfstudio catches no errors in its commands, so this is
    done in Python's own hook. It has no effect in other programs that use the plugin, and with STAF_DEBUG=1.
    """
    if _in_a_command():
        warnings.filterwarnings("ignore", module=LIBRARIES)
        _show_errors(lambda error: unreadable_run(error) or explain(error))


def _in_a_command() -> bool:
    """Returns whether this process is one of nerfstudio's commands, and errors are to be short."""
    return Path(sys.argv[0]).name.startswith("ns-") and not debugging()


def _show_errors(explained: Callable[[BaseException], str | None]) -> None:
    """Makes a command of nerfstudio show the messages of errors for which there is one."""
    if not _in_a_command():
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = explained(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"staf-nerf: {message}", file=sys.stderr)

    sys.excepthook = show
