"""The order of imports, as the test of it has it."""

from __future__ import annotations

import ast
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from staf_docs.commands import ROOT

TEST = ROOT / "tests" / "test_layers.py"


def order(path: Path = TEST) -> list[list[str]]:
    """The modules of each level, from the lowest up.

    Raises:
        ValueError: If the test says it in another way.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER":
            return [sorted(level) for level in ast.literal_eval(node.value)]
    raise ValueError(f"{path} has no ORDER")


class ImportOrder(SphinxDirective):
    """A table of levels."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(TEST))
        try:
            levels = order()
        except (OSError, ValueError) as error:
            raise ExtensionError(f"{self.get_location()}: {error}") from error
        lines = ["| level | modules |", "|---|---|"]
        lines += [f"| {i} | {', '.join(f'`{name}`' for name in names)} |" for i, names in enumerate(levels, 1)]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("import-order", ImportOrder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
