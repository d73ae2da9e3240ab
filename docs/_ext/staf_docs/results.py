"""Tables of benchmark results, made from the JSON files that `staf bench` wrote.

The directive `results-table` takes YAML:

    file: mlp.json                      # or files: {a: one.json, b: other.json}
    from: rows                          # the list in it; "summary" for means that are there already
    corner: activation                  # heading of the first column
    rows:                               # a label and a filter each
      - ["STAF, 5 sinusoids", {name: "STAF τ=5"}]
    columns:                            # a heading, a filter and a text each
      - ["training step", {measure: train}, "{ratio.median threads=2 :.2f}"]

A cell takes the entries that match both filters. In its text `{path}` is a number of them, `{path key=value :format}`
narrows the filter, and `{mean path}`, `{std path}`, `{min path}`, `{max path}` and `{count path}` are taken over all
entries that match. `/other.path` divides by another number of the same entry, `*1000` scales, and "_" in a path may
stand for a space. Without `mean` and the like exactly one entry must match: a wrong filter stops the build. With
`optional: true` a cell that nothing matches stays empty. The key `file` in a filter chooses among `files`, `from` the
list; `signal` stands for an entry's own key "file".

Under the table stand the files' commands and machines.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from staf_nerf.migrations import migrate_results

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
AGGREGATES = {"mean": statistics.fmean, "std": statistics.stdev, "min": min, "max": max, "count": len}
LONGEST_COMMAND = 260
Entry = Mapping[str, Any]


class ResultsTable(SphinxDirective):
    """A table from one or several files of results."""

    has_content = True
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        folder = Path(self.config.results_folder)
        try:
            spec = yaml.safe_load(text)
            files = spec.get("files") or {"": spec["file"]}
            for name in files.values():
                self.env.note_dependency(str(folder / name))
            results = {key: read_results(folder / name) for key, name in files.items()}
            lines, below = table(spec, results), sources(spec, files, results)
        except (KeyError, TypeError, ValueError, OSError, statistics.StatisticsError) as error:
            raise ExtensionError(f"{self.get_location()}: results-table: {error}") from error
        source = nodes.container(classes=["source"])
        source += self.parse_text_to_nodes(below)
        return [*self.parse_text_to_nodes("\n".join(lines)), source]


def read_results(path: Path) -> Any:
    """The content of a file of results, with the present keys if an earlier version wrote it."""
    return migrate_results(json.loads(path.read_text(encoding="utf-8")))


def table(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table."""
    columns = spec["columns"]
    lines = [[spec.get("corner", ""), *(heading for heading, *_ in columns)], ["---"] * (len(columns) + 1)]
    for label, condition in spec["rows"]:
        cells = []
        for _, narrowed, text in columns:
            found = {**condition, **narrowed}
            key = found.pop("file", next(iter(results)))
            entries = results[key][found.pop("from", spec.get("from", "rows"))]
            cells.append(fill(text, entries, found, optional=spec.get("optional", False)))
        lines.append([label, *cells])
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def fill(text: str, entries: Sequence[Entry], condition: Mapping[str, Any], *, optional: bool = False) -> str:
    """The text with numbers in the place of `{…}`; empty if nothing matches and that is allowed.

    Raises:
        ValueError: If a number is not there, or not the only one.
    """
    if optional and not matching(entries, condition):
        return ""
    filled = PLACEHOLDER.sub(lambda match: number(match[1], entries, condition), text)
    return filled.replace(" ± ", "\u00a0±\u00a0")


def number(expression: str, entries: Sequence[Entry], condition: Mapping[str, Any]) -> str:
    """The text of one number: "mean psnr seed=0 *10 :.2f"."""
    words, _, form = expression.partition(":")
    aggregate, path, divisor, factor, narrowed = None, "", "", 1.0, dict(condition)
    for word in words.split():
        if word in AGGREGATES and not path:
            aggregate = AGGREGATES[word]
        elif word.startswith("*"):
            factor = float(word[1:])
        elif word.startswith("/"):
            divisor = word[1:]
        elif "=" in word:
            key, _, value = word.partition("=")
            narrowed[key] = yaml.safe_load(value)
        else:
            path = word
    found = matching(entries, narrowed)
    if not found:
        raise ValueError(f"{expression!r}: no entry matches {narrowed}")
    if aggregate is len:
        return format(len(found), form)
    if aggregate is None and len(found) > 1:
        raise ValueError(f"{expression!r}: {len(found)} entries match {narrowed}, one is needed")
    values = [look_up(entry, path) for entry in found]
    if divisor:
        values = [value / look_up(entry, divisor) for value, entry in zip(values, found, strict=True)]
    value = values[0] if aggregate is None else aggregate(values)
    if value is None:
        raise ValueError(f"{expression!r}: there is no number, for {narrowed}")
    return format(value if factor == 1.0 else value * factor, form)


def matching(entries: Sequence[Entry], condition: Mapping[str, Any]) -> list[Entry]:
    """The entries whose keys have these values; runs that diverged are left out."""
    wanted = {"file" if key == "signal" else key: value for key, value in condition.items()}
    return [e for e in entries if "failed" not in e or e["failed"] == 0 if _fits(e, wanted)]


def _fits(entry: Entry, wanted: Mapping[str, Any]) -> bool:
    return all(look_up(entry, key, missing=None) == value for key, value in wanted.items())


def look_up(entry: Any, path: str, **default: Any) -> Any:
    """What stands at "a.b.0" in nested dictionaries and lists."""
    for part in path.split("."):
        if isinstance(entry, list):
            entry = entry[int(part)]
        elif part not in entry and part.replace("_", " ") in entry:
            entry = entry[part.replace("_", " ")]
        elif part in entry:
            entry = entry[part]
        elif default:
            return default["missing"]
        else:
            raise ValueError(f"no {path!r} in an entry with {', '.join(entry)}")
    return entry


def sources(spec: Mapping[str, Any], files: Mapping[str, str], results: Mapping[str, Any]) -> str:
    """A paragraph: which file, by which command, on what."""
    lines = []
    for key, name in files.items():
        result = results[key]
        command = spec.get("command") or result.get("command", "")
        versions = ", ".join(f"{k} {v}" for k, v in result.get("versions", {}).items() if k != "staf-nerf")
        where = result.get("gpu") or result.get("cpu") or result.get("machine", "")
        if spec.get("machine"):
            where = spec["machine"]
        made = [_short(" ".join(command.split()))] if command else []
        made += [text for text in (where, versions) if text]
        lines.append(f"`{name}`: {'; '.join(made)}.")
    return "\\\n".join(lines)


def _short(command: str) -> str:
    """A command as code; of a very long one the beginning."""
    if len(command) <= LONGEST_COMMAND:
        return f"`{command}`"
    return f"`{command[: command.rindex(' ', 0, LONGEST_COMMAND)]} …` (in full in the file)"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("results_folder", "", "env", types=[str])
    app.add_directive("results-table", ResultsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
