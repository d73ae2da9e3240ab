"""Docstrings as they are written here: plain text with `code`, which reStructuredText would read as markup."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

SIGNS = re.compile(r"[*|\\]|(?<=\w)_(?=\W|$)")


_escaped: dict[str, list[str]] = {}
"""Of attributes, between the two calls below."""


def escape(text: str) -> str:
    """The text with reStructuredText's signs escaped outside of `code`, which becomes literal."""
    parts = text.replace("``", "`").split("`")
    return "``".join(part if i % 2 else SIGNS.sub(lambda m: f"\\{m[0]}", part) for i, part in enumerate(parts))


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escapes a docstring's lines in place; `code` may go over the end of a line."""
    lines[:] = escape("\n".join(lines)).split("\n")
    if what in ("attribute", "data", "property"):
        _escaped[name] = list(lines)


def keep_attribute(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Undoes napoleon's reading of the text under a field as "type: text"."""
    if what in ("attribute", "data", "property"):
        lines[:] = _escaped.pop(name, lines)


FOR_TYRO = re.compile(r"~?[\w.]*Annotated\[(.*?), ~?tyro\..*?_action=None\)\]")


def signature(app: Sphinx, what: str, name: str, obj: Any, options: Any, text: str | None, result: str | None) -> Any:
    """Writes a dataclass's default that a function makes as "...": Sphinx cannot read "<factory>".

    It leaves out what a type says to the command line.
    """
    return (FOR_TYRO.sub(r"\1", text.replace("<factory>", "...")), result) if text else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)  # napoleon has 500
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", keep_attribute, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
