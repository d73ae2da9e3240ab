"""Help texts as a user sees them: each command is rendered on a wide terminal, and each text is checked."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest

pytest.importorskip("tyro")
pytest.importorskip("open3d")

from staf_nerf.bench.commands import BENCHMARKS
from staf_nerf.tasks import tasks

COMMANDS = (
    "", "demo", "eval", "export", "mesh", "compare", "ntk", "doctor",
    "fit", *(f"fit {name}" for name in tasks()),
    "bench", *(f"bench {name}" for name in (*BENCHMARKS, *tasks())),
)  # fmt: skip

BANNED = (
    r"^Of ", r"manyth", r"no number", r"\bpass(es)?\b(?!`)", r"[Ff]oret", r"told apart", r"by looking", r"one long",
    r"in parts of", r"so many", r"what there is", r"nobody", r"let go of", r"is over", r"holds? already", r"put right",
    r"asked for\b", r"are there\b", r"[Hh]ow it was learned", r"What is learned", r"as many as fit",
)  # fmt: skip
"""Words and constructions of our own: the field has words for them, or they need a second reading."""

BOX = re.compile(r"[│╭╰][^│╭╰╮╯]*[│╮╯]")
"""A line of a box, or of each of several boxes side by side."""
SUFFIX = re.compile(r" *\((default: .*|required|optional|repeatable)\)$")


def parse_help(text: str) -> dict[str, list[str]]:
    """The lines of each entry's help text by the entry's name, and the descriptions of the groups."""
    columns: dict[int, list[str]] = {}
    for line in text.splitlines():
        for cell in BOX.finditer(line):
            columns.setdefault(cell.start(), []).append(cell[0])
    found: dict[str, list[str]] = {}
    for cells in columns.values():
        group: list[str] = []
        name = ""
        for cell in cells:
            content = cell[2:-2].rstrip()
            if cell[0] == "╭":
                group, name = [], content.strip("─ ")
            elif cell[0] == "╰":
                continue
            elif content and not content.strip("─"):  # the line below the description of a group
                lines = [line for entry in group for line in (entry.rpartition(" (")[0], *found.pop(entry))]
                found[f"{name} ({len(found)})"] = lines
            elif content.startswith(" "):
                found[group[-1]].append(content.strip())
            else:
                entry, _, rest = re.sub(" {2,}", "\n", content, count=1).partition("\n")
                group.append(f"{entry} ({len(found)})")
                found[group[-1]] = [rest.strip()] if rest else []
    return found


def complaints(text: str) -> list[str]:
    """What is wrong with the help texts of a rendered help page."""
    found = []
    for name, lines in parse_help(text).items():
        if name.startswith(("-h, --help", "─")):
            continue
        lines = [*lines[:-1], *([SUFFIX.sub("", lines[-1])] if lines else [])]
        lines = [line for line in lines if line]
        whole = " ".join(lines) or name
        if name.startswith(("-", "[", "{")) and not lines:
            found.append(f"{name}: no help")
        found += [
            f"{name}: a line ends within a sentence: {x!r}" for x in lines[:-1] if not re.search(r'[.:?!]["`)]*$', x)
        ]
        found += [f"{name}: {word!r} in {whole!r}" for word in BANNED if re.search(word, whole)]
    return found


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")


def printed(call: Callable[[], object], monkeypatch) -> str:
    """What a call prints on a terminal that knows the characters of boxes, before it exits."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        with pytest.raises(SystemExit) as stopped:
            call()
    assert not stopped.value.code
    screen.seek(0)
    return screen.read()


def help_of(command: str, monkeypatch) -> str:
    from staf_nerf import cli

    monkeypatch.setattr(sys, "argv", ["staf", *command.split(), "--help"])
    return printed(cli.main, monkeypatch)


def test_boxes_side_by_side_are_read_one_by_one():
    text = (
        "╭─ options ──────────╮╭─ others ───────────╮\n"
        "│ -h, --help  help   ││ What they are for. │\n"
        "│ --size INT  Size   ││ ────────────────── │\n"
        "│             in mm. ││ --near FLOAT FLOAT │\n"
        "╰────────────────────╯│             Near.  │\n"
        "                      ╰────────────────────╯\n"
    )
    found = {re.sub(r" \(\d+\)$", "", name): lines for name, lines in parse_help(text).items()}
    assert found["--size INT"] == ["Size", "in mm."]
    assert found["--near FLOAT FLOAT"] == ["Near."]
    assert ["What they are for."] in found.values()


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_plain_and_breaks_between_sentences(command, monkeypatch):
    text = help_of(command, monkeypatch)
    if command.split()[-1:] != ["doctor"]:
        assert len(parse_help(text)) > 1
    assert complaints(text) == []


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("module", "name"),
    [("model", "StafModelConfig"), ("surface_model", "StafSurfaceModelConfig"), ("pipeline", "StafPipelineConfig"),
     ("dataparser", "CaptureDataParserConfig")],
)  # fmt: skip
def test_the_methods_own_options_have_plain_help(module, name, monkeypatch):
    pytest.importorskip("nerfstudio")
    import importlib

    import tyro

    config = getattr(importlib.import_module(f"staf_nerf.plugin.{module}"), name)
    text = printed(lambda: tyro.cli(config, args=["--help"]), monkeypatch)
    own = [key for cls in config.__mro__ if cls.__module__.startswith("staf_nerf") for key in cls.__annotations__]
    flags = tuple(f"--{key.replace('_', '-')}" for key in own if not key.startswith("_"))
    found = [line for line in complaints(text) if line.startswith(flags)]
    assert found == []
