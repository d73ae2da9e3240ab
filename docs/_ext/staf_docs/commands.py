"""The options of every `staf` command, from the parser that reads them.

The command's entry point is called with `--help`, as a user does; what tyro is about to print is caught before it is
laid out for a terminal. Where another version of tyro has no such place, the printed help stands on the page instead.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[3]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
DEFAULT = re.compile(r"\s*\((?:default: (?P<default>.*?)|(?P<required>required)|[^()]*)\)\s*$", re.DOTALL)
WIDE = 4000
"""Columns of the terminal that there is not: nothing is broken into lines."""


@dataclass(frozen=True)
class Option:
    """One option or positional argument."""

    invocation: str
    """Such as "--steps INT"."""
    text: str
    default: str | None
    required: bool
    group: str
    """The dataclass that it is of, as tyro calls its prefix: "config.field"; "" for the command's own."""


@dataclass(frozen=True)
class Command:
    """A command with its options and the commands below it."""

    path: tuple[str, ...]
    description: str
    options: tuple[Option, ...]
    groups: dict[str, str] = field(default_factory=dict)
    """What each group is about."""
    children: tuple[Command, ...] = ()
    printed: str | None = None
    """The help as it is printed, where it could not be read otherwise."""

    @property
    def name(self) -> str:
        return " ".join(("staf", *self.path))


class _Caught(Exception):
    """Carries what tyro was about to print."""

    def __init__(self, *found: Any) -> None:
        self.found = found


def entry_point() -> Callable[[], object]:
    """What the command `staf` calls, as pyproject.toml says."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts["staf"].partition(":")
    return getattr(importlib.import_module(module), name)


def read_commands() -> Command:
    """All commands, from `staf` down."""
    return _read(())


def _read(path: tuple[str, ...]) -> Command:
    try:
        prog_spec = _caught(path)
        return _structured(path, *prog_spec)
    except (ImportError, AttributeError, TypeError) as error:
        logger.info("the parser of tyro is another one than expected (%s): its printed help is shown", error)
        return Command(path, "", (), printed=printed_help(path))


def _caught(path: Sequence[str]) -> tuple[Any, Any, Any]:
    from tyro._backends import _tyro_help_formatting

    def catch(prog: str, parser_spec: Any, args: Any, subparser_frontier: Any, *more: Any, **others: Any) -> Any:
        raise _Caught(parser_spec, args, subparser_frontier)

    with mock.patch.object(_tyro_help_formatting, "format_help", catch), _called_with(path):
        try:
            entry_point()()
        except _Caught as caught:
            return caught.found  # pyright: ignore[reportReturnType]
        except SystemExit as error:
            raise AttributeError(f"staf {' '.join(path)} --help ended by itself: {error}") from error
    raise AttributeError(f"staf {' '.join(path)} --help printed nothing")


@contextlib.contextmanager
def _called_with(path: Sequence[str]) -> Iterator[None]:
    """As if `staf path --help` had been called, on a wide terminal without colours."""
    environment = {"COLUMNS": str(WIDE), "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.object(sys, "argv", ["staf", *path, "--help"]), mock.patch.dict(os.environ, environment):
        yield


def printed_help(path: Sequence[str]) -> str:
    """What `staf path --help` prints, for a terminal of 100 columns, without escape codes."""
    out = io.StringIO()
    narrow = mock.patch.dict(os.environ, {"COLUMNS": "100"})
    with _called_with(path), narrow, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        entry_point()()
    return ESCAPES.sub("", out.getvalue()).rstrip()


def _structured(path: tuple[str, ...], spec: Any, arguments: Sequence[Any], frontier: dict[str, Any]) -> Command:
    from tyro._arguments import generate_argument_helptext

    options, groups = [], {}
    for context in arguments:
        argument, source = context.arg, context.source_parser
        if argument.is_suppressed():
            continue
        text = _plain(generate_argument_helptext(argument, argument.lowered, compact=False))
        match = DEFAULT.search(text)
        found, required = (match["default"], match["required"]) if match else (None, None)
        if found is not None or required is not None:
            text = text[: match.start()]  # pyright: ignore[reportOptionalMemberAccess]
        group = "" if argument.is_positional() else source.extern_prefix
        if group:
            groups.setdefault(group, " ".join(source.description.split()))
        invocation = _plain(argument.get_invocation_text()[1]).replace("{None}|", "")  # whatever may be left out
        options.append(Option(invocation, text, found, bool(required), group))
    names = [name for group in frontier.values() for name in group.parser_from_name]
    children = tuple(_read((*path, name)) for name in names)
    return Command(path, spec.description.strip(), tuple(options), groups, children)


def _plain(text: Any) -> str:
    """tyro's own text, or a string, on one line."""
    found = text.as_str_no_ansi() if hasattr(text, "as_str_no_ansi") else str(text)
    return " ".join(ESCAPES.sub("", found).split())


# --- as Markdown -----------------------------------------------------------------------------------------------------


def markdown(command: Command, level: int = 2) -> list[str]:
    """Sections for a command and what is below it."""
    lines = []
    if command.path:
        lines += [f"({anchor(command.path)})=", f"{'#' * level} `{command.name}`", ""]
    lines += [_sentence(command.description), ""] if command.path and command.description else []
    if command.printed is not None:
        return [*lines, "```text", command.printed, "```", ""]
    children = command.children
    common = _common(children) if len(command.path) == 1 else []
    if children and command.path:
        lines += [*overview(command), ""]
    lines += _usage(command) if not children else []
    lines += _options(command.options, command.groups)
    if common:
        lines += [f"{'#' * (level + 1)} Options of every `{command.name} …`", ""]
        lines += _shared(children, common)
    for child in children:
        own = tuple(o for o in child.options if _key(o) not in common)
        lines += markdown(Command(child.path, child.description, own, child.groups, child.children, child.printed),
                          level + 1 if command.path else level)  # fmt: skip
    return lines


def overview(command: Command) -> list[str]:
    """A table of what is below a command."""
    rows = [f"| [`{c.name}`](#{anchor(c.path)}) | {_escaped(_sentence(c.description))} |" for c in command.children]
    return ["| command | |", "|---|---|", *rows]


def anchor(path: Sequence[str]) -> str:
    return "-".join(("staf", *path))


def _usage(command: Command) -> list[str]:
    positional = [option.invocation for option in command.options if not option.invocation.startswith("-")]
    return ["```text", " ".join([command.name, *positional, "[OPTIONS]"]), "```", ""]


def _key(option: Option) -> tuple[str, str, str]:
    return option.invocation, option.text, option.group


def _common(children: Sequence[Command]) -> list[tuple[str, str, str]]:
    """Options that all of them have, by the same name and meaning."""
    if len(children) < 2:
        return []
    sets = [{_key(option) for option in child.options} for child in children]
    return [_key(option) for option in children[0].options if all(_key(option) in found for found in sets)]


def _shared(children: Sequence[Command], common: Sequence[tuple[str, str, str]]) -> list[str]:
    """Their list, with each command's default where these differ."""
    options, groups = [], {}
    for key in common:
        found = {c.path[-1]: next(o for o in c.options if _key(o) == key) for c in children}
        defaults = {name: option.default for name, option in found.items()}
        first = next(iter(found.values()))
        default = first.default
        if len(set(defaults.values())) > 1:
            default = "; ".join(f"{name} {value}" for name, value in defaults.items())
        options.append(Option(first.invocation, first.text, default, first.required, first.group))
    for child in children:
        groups |= child.groups
    return _options(tuple(options), groups)


def _options(options: Sequence[Option], groups: dict[str, str]) -> list[str]:
    lines: list[str] = []
    for group in dict.fromkeys(option.group for option in options):
        if group:
            lines += [f"**{group}**: {_escaped(_sentence(groups.get(group, '')))}", ""]
        for option in (option for option in options if option.group == group):
            lines += [f"`{option.invocation}`", f": {_escaped(_sentence(option.text)) or '—'}{_default(option)}", ""]
    return lines


def _default(option: Option) -> str:
    if option.required:
        return " *Required.*"
    if option.default in (None, "None", ""):
        return ""
    return f" *Default:* `{option.default}`"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?:" else f"{text}."


def _escaped(text: str) -> str:
    """Markdown's signs as they are, but for `code`."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([\\*_\[\]<>|{}$#])", r"\\\1", part) for i, part in enumerate(parts))


class StafCommands(SphinxDirective):
    """All commands and their options."""

    def run(self) -> list[nodes.Node]:
        command = read_commands()
        sections = self.parse_text_to_nodes("\n".join(markdown(command)), allow_section_headings=True)
        return [*self.parse_text_to_nodes("\n".join(overview(command))), *sections]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("staf-commands", StafCommands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
