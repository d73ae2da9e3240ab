"""Options of dataclasses, with the text under each field: read from the source, so that nothing needs to be imported.

That way the options of the nerfstudio plugin stand in the docs also where nerfstudio is not installed.
"""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from staf_docs.commands import ROOT, _escaped, _sentence


@dataclass(frozen=True)
class Field:
    """A field of a dataclass, as its source has it."""

    name: str
    annotation: str
    default: str
    text: str


def read_fields(path: Path, name: str) -> tuple[str, list[Field]]:
    """The docstring of a class, and its documented fields: those of its bases in the file first, as in a dataclass.

    Raises:
        ValueError: If there is no such class.
    """
    classes = {node.name: node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise ValueError(f"{path} has no class {name}")
    fields: dict[str, Field] = {}
    for base in reversed(classes[name].bases):
        if isinstance(base, ast.Name) and base.id in classes:
            fields |= {field.name: field for field in read_fields(path, base.id)[1]}
    fields |= {field.name: field for field in _fields(classes[name])}
    return ast.get_docstring(classes[name]) or "", list(fields.values())


def _fields(node: ast.ClassDef) -> list[Field]:
    found = []
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
            continue
        text, annotation = " ".join(str(after.value.value).split()), ast.unparse(item.annotation)
        if not annotation.startswith("ClassVar"):
            found.append(Field(item.target.id, annotation, _default(item.value), text))
    return found


def _default(value: ast.expr | None) -> str:
    """The default as one would write it; of a dataclass nothing, its fields have their own."""
    if value is None or (isinstance(value, ast.Call) and any(k.arg == "default_factory" for k in value.keywords)):
        return ""
    text = ast.unparse(value)
    return "" if text in ("None", "Path()") else text.strip("'")


def metavar(annotation: str) -> str:
    """A type as commands show it: INT, {a,b}, [INT ...]; nothing for a dataclass."""
    if annotation.endswith("one_flag()]"):
        return "NAME[:OPTION=VALUE,...]"
    kind = annotation.removesuffix(" | None")
    if kind.endswith("Config"):
        return ""
    if not kind.startswith("Literal["):
        kind = literal(kind) or kind
    if kind.startswith("Literal["):
        return "{" + ",".join(re.findall(r"['\"](.*?)['\"]", kind)) + "}"
    if kind.startswith("tuple["):
        return f"[{kind[len('tuple[') :].split(',')[0].upper()} ...]"
    return {"bool": "{True,False}"}.get(kind, kind.upper())


@functools.cache
def literal(name: str) -> str | None:
    """What a name of the package stands for, if that is a choice of texts."""
    for path in sorted((ROOT / "staf_nerf").rglob("*.py")):
        if match := re.search(rf"^{name} = (Literal\[[^\]]*\])", path.read_text(encoding="utf-8"), re.MULTILINE):
            return match[1]
    return None


class DataclassOptions(SphinxDirective):
    """A list of options: `{dataclass-options} staf_nerf/config.py FieldConfig`, with what stands before their names."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"prefix": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        file, _, name = self.arguments[0].partition(" ")
        self.env.note_dependency(str(ROOT / file))
        try:
            _, found = read_fields(ROOT / file, name)
        except (OSError, ValueError) as error:
            raise ExtensionError(f"{self.get_location()}: {error}") from error
        prefix = self.options.get("prefix", "").strip('"')
        lines = []
        for item in found:
            default = f" *Default:* `{item.default}`" if item.default else ""
            text = f"{_escaped(_sentence(item.text))}{default}"
            if item.annotation == "CameraOptimizerConfig":
                text += " The options are nerfstudio's own."
            elif item.annotation.endswith("Config"):
                text += " Its options follow below."
            name = f"{prefix}{item.name.replace('_', '-')} {metavar(item.annotation)}".strip()
            lines += [f"`{name}`", f": {text}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("dataclass-options", DataclassOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
