"""Formulas as MathML, which browsers draw themselves: the pages need no script, and none from elsewhere.

The translation from LaTeX is docutils' own.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def to_mathml(latex: str, *, block: bool) -> str:
    """A `<math>` element.

    Raises:
        ExtensionError: If the formula cannot be translated.
    """
    try:
        return latex2mathml.tex2mathml(latex.strip(), as_block=block)
    except Exception as error:
        raise ExtensionError(f"cannot translate the formula {latex!r}: {error}") from error


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(to_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{to_mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
