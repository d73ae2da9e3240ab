"""Templates of exported files: shaders, scripts and a page. A line `//{{NAME}}` includes another template."""

from __future__ import annotations

import functools
import re
from pathlib import Path

INCLUDED = re.compile(r"^//\{\{(.+)\}\}$", re.MULTILINE)


@functools.cache
def template(name: str) -> str:
    """Returns the text of a template, with the templates that it includes."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return INCLUDED.sub(lambda found: template(found[1]), text)
