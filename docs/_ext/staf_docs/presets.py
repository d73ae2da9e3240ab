"""The presets that are shipped: what each changes, with the comments of its file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from staf_docs.commands import _escaped
from staf_nerf.config import RadianceConfig
from staf_nerf.presets import DEVICES, resource
from staf_nerf.tasks import tasks

DEFAULTS: dict[str, Any] = {"radiance": RadianceConfig(), **{name: task.config for name, task in tasks().items()}}
TITLES = {"radiance": "Radiance fields and surfaces of captures"} | {n: task.title for n, task in tasks().items()}
FIRST = {"radiance": "staf-nerf"}
"""A task's main preset, where it is not called as the task."""
USES = {"radiance": "`ns-train {name}`"} | {n: f"`staf fit {n} FILE --preset {{name}}`" for n in tasks()}
LINE = re.compile(r"^(?P<key>\w+)\s*=\s*(?P<value>.*?)(?:\s+#\s*(?P<comment>.*))?$")
TABLE = re.compile(r"^\[(?P<name>[\w.]+)\]$")


def markdown() -> list[str]:
    """A section a task, and in it one a preset; the task's own comes first."""
    found: dict[str, list[tuple[str, Path, Mapping[str, Any]]]] = {task: [] for task in DEFAULTS}
    for path in sorted(resource("method_configs").glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        found[table.get("task", "radiance")].append((path.stem, path, table))
    lines = []
    for task, presets in found.items():
        lines += [f"## {TITLES[task]}", ""]
        first = FIRST.get(task, task)
        for name, path, table in sorted(presets, key=lambda one: (one[0] != first, one[0])):
            lines += preset(name, task, path.read_text(encoding="utf-8"), table)
    return lines


def preset(name: str, task: str, text: str, table: Mapping[str, Any]) -> list[str]:
    """A section: description, use, comment and changes."""
    lines = [
        f"(preset-{name})=",
        f"### `{name}`",
        "",
        table.get("description", ""),
        "",
        USES[task].format(name=name),
        "",
    ]
    lines += [_escaped(_comment(text)), ""]
    changes = changed(text, table, DEFAULTS[task])
    if not changes:
        return [*lines, "It changes nothing: the defaults are made for it.", ""]
    rows = [["key", "value", "default", "source"], ["---"] * 4]
    rows += [[f"`{key}`", f"`{value}`", f"`{default}`", _escaped(note)] for key, value, default, note in changes]
    width = 4 if any(note for *_, note in changes) else 3
    return [*lines, *(f"| {' | '.join(row[:width])} |" for row in rows), ""]


def _comment(text: str) -> str:
    """The lines of comment at the head of a file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def changed(text: str, table: Mapping[str, Any], defaults: Any) -> list[tuple[str, str, str, str]]:
    """Key, value, default and comment of each line of a preset, as they stand in the file."""
    found, where = [], ""
    for line in text.splitlines():
        if match := TABLE.match(line.strip()):
            where = match["name"]
        elif (match := LINE.match(line.strip())) and match["key"] not in ("task", "description"):
            key = f"{where}.{match['key']}" if where else match["key"]
            value: Any = table
            for part in key.split("."):
                value = value[part]
            found.append((key, _shown(value), _default(defaults, key), match["comment"] or ""))
    return found


def _default(defaults: Any, key: str) -> str:
    parts = key.split(".")
    value = defaults
    for part in parts[1:] if parts[0] in DEVICES else parts:
        if not is_dataclass(value) or part not in {item.name for item in fields(value)}:
            return ""
        value = getattr(value, part)
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


class StafPresets(SphinxDirective):
    """All presets."""

    def run(self) -> list[nodes.Node]:
        for path in resource("method_configs").glob("*.toml"):
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes("\n".join(markdown()), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("staf-presets", StafPresets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
