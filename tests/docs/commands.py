"""Commands of documentation pages, shortened, each run in a process of its own.

The processes are forked from one that has imported nerfstudio, torch and this package: a command then starts at once,
and what it leaves behind in its process touches no other. `staf` and `ns-…` are the functions behind the console
scripts, with the words of the page in `sys.argv`.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import multiprocessing
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

TIMEOUT = 300.0
"""Seconds after which a command is stopped."""

FIT = {"--steps": "10"}
SHORTER: dict[str, dict[str, str]] = {
    "staf demo": {"--steps": "5", "--frames": "2"},
    "staf fit shape": {"--steps": "300", "--points": "1024", "--cached-points": "20000"}
    | {"--hidden-features": "64", "--hidden-layers": "2", "--resolution": "32"},
    "staf fit": FIT,
    "staf mesh": {"--resolution": "32", "--triangles": "2000"},
    "staf compare": {"--points": "2000"},
    "staf ntk": {"--size": "8", "--steps": "10"},
    "ns-train": {"--max-num-iterations": "5", "--vis": "tensorboard"},
    "ns-render interpolate": {"--interpolation-steps": "1"},
    "ns-export pointcloud": {"--num-points": "200", "--num-rays-per-batch": "256"},
}
"""Options that make a command quick; they replace those of the page."""

ONLY_READ: dict[str, str] = {
    "staf bench": "it takes minutes to hours",
    "staf capture": "it takes minutes, and photos that overlap",
    "ns-viewer": "it runs until it is stopped",
    "torchrun": "it starts several processes",
}
"""Commands whose options are read by the real parser and which are not run, with the reason."""

ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    words: tuple[str, ...]
    code: int | None
    printed: str

    def __str__(self) -> str:
        return f"{shlex.join(self.words)}\nended with {self.code}:\n{self.printed[-4000:]}"


def commands_of(source: str) -> list[list[str]]:
    """The commands of a bash block as words, without comments; variables that the block sets are put in."""
    found, variables = [], {}
    for line in source.replace("\\\n", " ").splitlines():
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        words = shlex.split(line, comments=True)
        settings = list(itertools.takewhile(ASSIGNMENT.match, words))
        if len(settings) == len(words):
            variables |= dict(setting.split("=", 1) for setting in settings)
        else:  # what stands before a command is for its environment, and changes how fast it is
            found.append(words[len(settings) :])
    return found


def is_known(words: list[str]) -> bool:
    """Whether a command is one that can be run, or at least read, here."""
    return words[0] in {"staf", "torchrun"} or words[0].startswith("ns-")


def is_only_read(words: list[str]) -> bool:
    return any(_starts(words, prefix) for prefix in ONLY_READ)


def needs_nerfstudio(words: list[str]) -> bool:
    return (
        words[0].startswith("ns-")
        or words[:2] == ["staf", "demo"]
        or any(word.endswith("config.yml") for word in words)
    )


def shortened(words: list[str]) -> list[str]:
    """The command with the options of `SHORTER`: in the place of those it has, else before its other options."""
    options = next((short for prefix, short in SHORTER.items() if _starts(words, prefix)), {})
    if any(word.endswith(".xyz") for word in words):  # points have no cache
        options = {name: value for name, value in options.items() if name != "--cached-points"}
    if "--load-dir" in words:  # the number of steps counts those of the run that goes on
        options = options | {"--max-num-iterations": "10"}
    found = list(words)
    if "--steps" in options:  # in the place of another budget
        found = _without(found, "--minutes", "--epochs")
    if _starts(words, "staf demo") and (len(words) == 2 or words[2].startswith("-")):
        found.insert(2, "scene")
    missing = []
    for name, value in options.items():
        if name in found:
            found[found.index(name) + 1] = value
        else:
            missing += [name, value]
    if not missing:
        return found
    if found[0] == "ns-train":  # its options stand before the data's, which follow the data parser's name
        return [*found[:2], *missing, *found[2:]]
    return [*found, *missing]


def _without(words: list[str], *names: str) -> list[str]:
    """The words without these options and their values."""
    return [
        word for word, before in zip(words, ["", *words], strict=False) if word not in names and before not in names
    ]


def expanded(words: list[str], folder: Path) -> list[str]:
    """The words with "…" and "*" replaced by what the folder holds: by the newest path, or by all."""
    found: list[str] = []
    for word in words:
        end = "/" if word.endswith("…") else ""  # the folder of a run, and not a file in it
        pattern = str(folder / word.replace("…", "**")) + end
        paths = glob.glob(pattern, recursive=True) if "…" in word or "*" in word else []
        if "…" in word and paths:
            found.append(os.path.relpath(max(paths, key=os.path.getmtime), folder))
        elif paths:
            found += sorted(os.path.relpath(path, folder) for path in paths)
        else:
            found.append(word)
    return found


class Commands:
    """Runs commands; its server process starts with the first."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.docs.preload"])
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # of the server: its children have none of its threads
        try:
            forkserver.ensure_running()
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            if before is not None:
                os.environ["OMP_NUM_THREADS"] = before

    def run(self, words: list[str], folder: Path, *, only_read: bool = False) -> Result:
        """Runs a command in a folder, or has its options read and nothing more."""
        if words[0] == "torchrun":
            words, only_read = words[words.index("--no-python") + 1 :], True
        log = folder / ".printed"
        process: Any = self.context.Process(target=_run, args=(words, folder, log, self.environment, only_read))
        process.start()
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
        printed = log.read_text(errors="replace") if log.is_file() else ""
        return Result(tuple(words), process.exitcode, printed)


def _starts(words: list[str], prefix: str) -> bool:
    start = prefix.split()
    return words[: len(start)] == start


def _run(words: list[str], folder: Path, log: Path, environment: dict[str, str], only_read: bool) -> None:
    """The child: its output goes to a file, so that what libraries print from C is there too."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = list(words)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)  # tests may run beside others, and threads that wait for each other's cores are slow
    (script,) = entry_points(group="console_scripts", name=words[0])
    main = script.load()
    if only_read:
        _leave_after_reading()
    sys.exit(main())


def _leave_after_reading() -> None:
    """Makes tyro read the arguments, with all checks of the options, and then end the process."""
    import tyro

    read, read_subcommands = tyro.cli, tyro.extras.subcommand_cli_from_dict

    def cli(*arguments: Any, **options: Any) -> None:
        read(*arguments, **options)
        sys.exit(0)

    def subcommand_cli(subcommands: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        read_subcommands({name: _doing_nothing(function) for name, function in subcommands.items()}, **options)
        sys.exit(0)

    tyro.cli = cli
    if sys.argv[0].startswith("ns-"):
        # Options of `ns-process-data` are checked together with the programs that it needs.
        from nerfstudio.utils import install_checks

        install_checks.check_colmap_installed = install_checks.check_ffmpeg_installed = lambda *_: None
    else:
        tyro.extras.subcommand_cli_from_dict = subcommand_cli


def _doing_nothing(function: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(function)
    def nothing(*_: Any, **__: Any) -> None:
        return None

    return nothing
