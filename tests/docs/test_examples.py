"""The code blocks of README.md and of all pages in docs/, run as a reader would: top to bottom, a folder a page.

Python blocks run as they stand. Bash blocks run command by command; `tests/docs/commands.py` holds the options that
make each short, and the commands that are only read. "…" in a path stands for the newest one, as a run's date does.
A comment before a block changes that: `<!-- test: skip, why -->` leaves it out, `<!-- test: parse, why -->` has its
commands' options read and nothing more. README's blocks after `<!-- demo -->` and `<!-- tests -->` install the package:
they are run on a bare machine instead.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.conftest import ROOT
from tests.docs.commands import Commands, commands_of, expanded, is_known, is_only_read, needs_nerfstudio, shortened

SHOWN = {"text", "toml", "json", "glsl", "html", "bibtex", "c"}
"""Languages of blocks that are there to be read."""
MARK = re.compile(r"<!--\s*test:\s*(?P<what>skip|parse)\s*,\s*(?P<why>[^>]*?\S)\s*-->\s*\Z")
INSTALLS = re.compile(r"<!--\s*(demo|tests)\s*-->\s*\Z")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block and what the comment before it says."""

    page: Path
    example: Example
    language: str
    what: str
    """"run", "skip", "parse", or "installs"."""

    @property
    def source(self) -> str:
        return str(self.example.parsed)

    @property
    def name(self) -> str:
        return f"{name_of(self.page)}:{self.example.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page that name a language; its Python blocks share a namespace."""
    document = Document(page.read_text(encoding="utf-8"), str(page))
    for region in FencedCodeBlockLexer(r"[\w+-]+")(document):
        region.parsed, region.evaluator = region.lexemes["source"], PythonEvaluator()
        document.add(region)
    found = []
    for example in document.examples():
        before = document.text[: example.start]
        mark = MARK.search(before)
        what = mark["what"] if mark else "installs" if INSTALLS.search(before) else "run"
        found.append(Block(page, example, example.region.lexemes["language"], what))
    return found


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.what in ("run", "parse") and block.language in ("python", "bash")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_block_is_run_or_says_why_not(page: Path):
    text = page.read_text(encoding="utf-8")
    blocks = [block for block in BLOCKS if block.page == page]
    directives = re.findall(r"^\s*(?:`{3,}|~{3,})\{([\w-]+)", text, re.MULTILINE)
    assert not {"code-block", "code"} & set(directives), "write ```python or ```bash"
    assert len(FENCE.findall(text)) == 2 * (len(blocks) + len(directives)), "a block names no language"
    for block in blocks:
        assert block.language in {"python", "bash"} | SHOWN, f"{block.name}: blocks in {block.language!r} are not run"
        assert block.what != "installs" or page.name == "README.md", f"{block.name}: this mark is README's"
        if block.language == "bash" and block.what in ("run", "parse"):
            unknown = [words[0] for words in commands_of(block.source) if not is_known(words)]
            assert not unknown, f"{block.name}: {unknown} cannot be run here; mark the block <!-- test: skip, why -->"


@pytest.fixture(scope="module")
def folders(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The working folder of a page, which all its blocks share."""

    @functools.cache
    def folder_of(page: Path) -> Path:
        return Path(shutil.copytree(inputs, tmp_path_factory.mktemp(page.stem), dirs_exist_ok=True))

    return folder_of


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.name)
def test_block(block: Block, commands: Commands, folders: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch):
    folder = folders(block.page)
    with_nerfstudio = find_spec("nerfstudio") is not None
    if block.language == "python":
        if "nerfstudio" in block.source and not with_nerfstudio:
            pytest.skip("nerfstudio is not installed")
        monkeypatch.chdir(folder)
        torch.manual_seed(0)
        block.example.evaluate()
        return
    for words in commands_of(block.source):
        assert is_known(words), f"{words[0]} is not run"
        if needs_nerfstudio(words) and not with_nerfstudio:
            continue
        lacks_ffmpeg = words[0] == "ns-render" and shutil.which("ffmpeg") is None
        only_read = block.what == "parse" or is_only_read(words) or lacks_ffmpeg
        words = words if only_read else expanded(shortened(words), folder)
        result = commands.run(words, folder, only_read=only_read)
        assert result.code == 0, str(result)
