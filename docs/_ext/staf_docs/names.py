"""The package's public names, each with its first sentence and a link; and what of a module is documented."""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from staf_docs.commands import _escaped


def rows() -> list[tuple[str, str, str]]:
    """Name, where it is defined, first sentence, of everything in `staf_nerf.__all__`."""
    import staf_nerf

    found = []
    for name in sorted(staf_nerf.__all__, key=str.lower):
        value = getattr(staf_nerf, name)
        where = getattr(value, "__module__", None)
        if where is not None:
            found.append((name, f"{where}.{name}", first_sentence(value)))
    return found


def first_sentence(value: Any) -> str:
    """Of a docstring."""
    paragraph = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    head, _, _ = paragraph.partition(". ")
    return head if head.endswith((".", ":")) or not head else f"{head}."


class PublicNames(SphinxDirective):
    """A table of what `from staf_nerf import …` gives."""

    def run(self) -> list[nodes.Node]:
        lines = ["| name | |", "|---|---|"]
        lines += [f"| {{py:obj}}`{name} <{where}>` | {_escaped(text)} |" for name, where, text in rows()]
        return self.parse_text_to_nodes("\n".join(lines))


def skip_data(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves a module's constants and type names out: a reader of the API looks for classes and functions."""
    if what == "module" and not (inspect.isclass(obj) or inspect.isroutine(obj)):
        return True
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("staf-public-names", PublicNames)
    app.connect("autodoc-skip-member", skip_data)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
