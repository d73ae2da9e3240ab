"""The pages: links resolve, and what is generated from the package holds all of it."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

PAGES = [*sorted(DOCS.rglob("*.md")), *(p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.is_file())]
FENCE = re.compile(r"^(`{3,}|~{3,}|:{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]*)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
TARGET = re.compile(r"^\(([\w-]+)\)=\s*$|<a (?:id|name)=\"([^\"]+)\"", re.MULTILINE)


def prose(page: Path) -> str:
    """A page's text without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The names under which parts of a page can be linked: of headings as GitHub and MyST make them, and targets."""
    text = prose(page)
    headings = [re.sub(r"[`*_]", "", found) if "`" not in found else found.replace("`", "") for found in
                HEADING.findall(text)]  # fmt: skip
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | {one or other for one, other in TARGET.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_of_a_page_resolves(page):
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A `b` title\n\n[x](missing.md) [y](#a-b-title) [z](#nothing) ![p](p.png)\n")
    assert LINK.findall(prose(page)) == ["missing.md", "#a-b-title", "#nothing", "p.png"]
    assert anchors(page) == {"a-b-title"}


def test_every_option_that_help_prints_stands_on_the_page_of_commands():
    pytest.importorskip("tyro")
    pytest.importorskip("sphinx")
    from staf_docs import commands

    root = commands.read_commands()
    page = "\n".join(commands.markdown(root))
    assert "\x1b" not in page

    def leaves(command):
        assert command.printed is None, "tyro's parser could not be read"
        return [leaf for child in command.children for leaf in leaves(child)] or [command]

    names = {leaf.name for leaf in leaves(root)}
    assert {"staf demo", "staf mesh", "staf fit image", "staf fit shape", "staf bench mlp"} <= names
    for leaf in leaves(root):
        assert f"({commands.anchor(leaf.path)})=" in page
        printed = commands.printed_help(leaf.path)
        for flag in set(re.findall(r"(?<=[│ ])--[a-z][a-z0-9-]*", printed)) - {"--help", "--help-verbose"}:
            assert re.search(rf"`[^`]*{flag}\b[^`]*`", page), f"{leaf.name}: {flag}"


def test_defaults_of_commands_are_those_of_the_parser():
    pytest.importorskip("tyro")
    pytest.importorskip("sphinx")
    from staf_docs import commands

    found = {option.invocation.split()[0]: option for option in commands._read(("fit", "image")).options}
    assert (found["--minutes"].default, found["--minutes"].group) == ("1.0", "config.fit")
    assert found["--hidden-features"].default == "256"


def test_every_preset_and_each_of_its_keys_stands_on_the_page_of_presets():
    pytest.importorskip("sphinx")
    from staf_docs import presets

    page = "\n".join(presets.markdown())
    paths = sorted((ROOT / "method_configs").glob("*.toml"))
    assert paths
    for path in paths:
        section = page.partition(f"### `{path.stem}`\n")[2].partition("\n### ")[0]
        assert section, path.stem
        keys = re.findall(r"^(\w+)\s*=", path.read_text(encoding="utf-8"), re.MULTILINE)
        for key in set(keys) - {"task", "description"}:
            assert re.search(rf"\| `[\w.]*\b{key}` \|", section), f"{path.stem}: {key}"


def test_options_that_are_read_from_the_source_are_those_of_the_dataclass():
    pytest.importorskip("sphinx")
    from staf_docs.configs import read_fields

    from staf_nerf import config

    for name in ("FieldConfig", "ColorConfig", "SamplingConfig", "SurfaceConfig", "TrainingConfig"):
        _, found = read_fields(ROOT / "staf_nerf" / "config.py", name)
        fields = {item.name: item.default for item in dataclasses.fields(getattr(config, name))}
        assert [item.name for item in found] == list(fields)
        assert all(item.text for item in found)
        simple = [item for item in found if item.default[:1] != "(" and fields[item.name] is not dataclasses.MISSING]
        assert all(str(fields[item.name]) == item.default.strip("'") for item in simple)


def test_the_table_of_the_imports_order_is_that_of_its_test():
    pytest.importorskip("sphinx")
    from staf_docs.layers import order

    from tests.test_layers import ORDER

    assert [set(level) for level in order()] == ORDER


def results_tables():
    for page in sorted((DOCS / "benchmarks").glob("*.md")):
        for number, block in enumerate(re.findall(r"```\{results-table\}\n(.*?)```", page.read_text(), re.DOTALL)):
            yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("block", list(results_tables()))
def test_every_cell_of_a_table_of_results_has_its_number(block):
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("sphinx")
    from staf_docs import results

    spec = yaml.safe_load(block)
    files = spec.get("files") or {"": spec["file"]}
    folder = ROOT / "benchmarks" / "results"
    lines = results.table(spec, {key: results.read_results(folder / name) for key, name in files.items()})
    assert len(lines) == len(spec["rows"]) + 2
    assert all(any(char.isdigit() for char in line.partition("|")[2]) for line in lines[2:])


def test_numbers_in_tables_are_the_only_ones_that_match_or_means_of_all():
    pytest.importorskip("sphinx")
    from staf_docs.results import fill

    rows = [{"a": 1, "m": {"x": 2.0}}, {"a": 1, "m": {"x": 4.0}}, {"a": 2, "m": {"x": 9.0}, "n": 3.0}]
    assert fill("{mean m.x :.1f} ± {std m.x :.2f}", rows, {"a": 1}) == "3.0\u00a0±\u00a01.41"
    assert fill("{m.x /n *10 :.0f} ({count m.x})", rows, {"a": 2}) == "30 (1)"
    assert fill("{m.x a=3}", rows, {"a": 3}, optional=True) == ""
    for text, condition in (("{m.x}", {"a": 1}), ("{m.x}", {"a": 3}), ("{m.y}", {"a": 2})):
        with pytest.raises(ValueError, match=r"m\.[xy]"):
            fill(text, rows, condition)


def test_every_formula_can_be_drawn_without_a_script():
    pytest.importorskip("sphinx")
    from staf_docs.mathml import to_mathml

    count = 0
    for page in PAGES:
        if page.parent.name == "explanation":
            text = prose(page)
            blocks = re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL)
            inline = re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL))
            for latex in [*blocks, *inline]:
                assert to_mathml(latex, block=latex in blocks).startswith("<math")
                count += 1
    assert count > 5


def test_the_pages_build_without_a_warning(tmp_path):
    for name in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", str(DOCS)]
    result = subprocess.run([*command, str(tmp_path / "html")], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-4000:]
    pages = {path.relative_to(tmp_path / "html").as_posix() for path in (tmp_path / "html").rglob("*.html")}
    assert {"index.html", "reference/commands.html", "benchmarks/images.html", "explanation/theory.html"} <= pages
    assert not re.search(r"<script[^>]+src=\"https?:", (tmp_path / "html" / "explanation" / "theory.html").read_text())
