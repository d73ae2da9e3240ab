"""Texts that exported files are made of: shaders, scripts and a page. `//{{NAME}}` in one stands for another."""

from __future__ import annotations

import functools
import re
from pathlib import Path

INCLUDED = re.compile(r"^//\{\{(.+)\}\}$", re.MULTILINE)


@functools.cache
def template(name: str) -> str:
    """The text of a file in this folder, with those that it includes."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return INCLUDED.sub(lambda found: template(found[1]), text)
