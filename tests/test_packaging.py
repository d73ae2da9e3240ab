"""What the wheel and the sdist hold, what their metadata say, and where the C library is in them."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

from staf_nerf.kernels import library
from tests.conftest import ROOT
from tests.plugin.conftest import command

LEFT_OUT = shutil.ignore_patterns(".*", "*.so", "*.egg-info", "__pycache__", "build", "dist", "outputs", "_build")
"""What a checkout may hold beside its files."""
NATIVE = "staf_nerf/kernels/_native"


@dataclass(frozen=True)
class Built:
    """A wheel that was built from the sdist with a C compiler, and one that was built from the tree without."""

    sdist: set[str]
    from_sdist: Path
    from_tree: Path


def build_wheel(source: Path, folder: Path, **environment: str) -> Path:
    """Builds a wheel of a folder or an sdist."""
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    result = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("packages")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=tree, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    return Built(held, build_wheel(sdist, folder / "with"), build_wheel(tree, folder / "without", CC="/bin/false"))


def names(wheel: Path) -> set[str]:
    """Of the files in a wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path) -> Message:
    """The core metadata of a wheel."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(file.read(name))


def files(folder: str, pattern: str) -> set[str]:
    """Of the checkout, relative to it."""
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob(pattern))
    return {path.as_posix() for path in found if not {"__pycache__", "_build"} & set(path.parts)}


def test_the_wheel_holds_every_module_preset_and_template_and_nothing_else(built):
    found = names(built.from_tree)
    templates = files("staf_nerf/export/templates", "*.[jgh]*")
    assert len(templates) == 11
    presets = {f"staf_nerf/{name}" for name in files("method_configs", "*.toml")}
    pages = {"staf_nerf/captures/cameras.html"}
    expected = files("staf_nerf", "*.py") | presets | templates | pages | {"staf_nerf/py.typed"}
    extra = {name for name in found - expected if ".dist-info/" not in name}
    assert expected <= found
    assert not extra, "such as scenes, tests, docs, C sources"


def test_a_wheel_from_the_sdist_equals_one_from_the_tree_but_for_the_library(built):
    native = {name for name in names(built.from_sdist) if name.startswith(NATIVE)}
    assert names(built.from_sdist) - native == names(built.from_tree)


def test_it_installs_without_a_compiler_and_with_one_holds_the_library(built):
    assert not any(name.startswith(NATIVE) for name in names(built.from_tree))
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc"))):
        pytest.skip("there is no C compiler here")
    (native,) = (name for name in names(built.from_sdist) if name.startswith(NATIVE))
    assert "cp311-abi3" in built.from_sdist.name, "one wheel serves Python 3.11 and later"
    content = zipfile.ZipFile(built.from_sdist).read(native)
    assert b"PyInit__native" in content
    assert b".debug_info" not in content


def test_an_installation_is_small(built):
    size = sum(file.file_size for file in zipfile.ZipFile(built.from_sdist).infolist())
    assert size < 5 * 2**20


def test_the_sdist_holds_what_is_needed_to_build_test_and_read_it(built):
    sources = files("staf_nerf", "*.[ch]")
    assert len(sources) == 10
    text = files("docs", "*.md") | files("docs", "*.py") | files("docs", "*.jpg") | files("docs", "*.png")
    scripts = files("tools", "*.sh") | files("tools", "*.py")
    scene = files("scenes", "*.png") | files("scenes", "*.json") | files("scenes", "*.ply")
    assert len(files("scenes", "*.png")) == 90 + 20
    wanted = sources | files("method_configs", "*.toml") | scene | files("tests", "*.py") | text | scripts
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"):
        wanted.add(name)
    assert not wanted - built.sdist
    assert not any(name.endswith((".so", ".pyc")) for name in built.sdist)


def test_metadata_name_where_to_look_and_what_each_extra_brings(built):
    about = metadata(built.from_tree)
    assert {line.partition(",")[0] for line in about.get_all("Project-URL", [])} >= {
        "Homepage", "Documentation", "Source", "Issues", "Paper",
    }  # fmt: skip
    classifiers = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} | {"Typing :: Typed"}
    assert classifiers <= set(about.get_all("Classifier", []))
    assert set(about.get_all("Provides-Extra", [])) == {"signals", "mesh", "nerf", "export", "all", "docs", "dev"}
    core = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split(r"[<>=! ;]", line)[0] for line in core) == ["numpy", "safetensors", "torch"]
    assert about["Description-Content-Type"] == "text/markdown"


def test_one_version_is_named_everywhere(built, tmp_path):
    with open(ROOT / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert metadata(built.from_tree)["Version"] == version
    line = [sys.executable, "-c", "import staf_nerf; print(staf_nerf.__version__)"]  # beside no build's leftovers
    installed = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert installed == version, "the installation is older than the checkout: install it again"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    released = re.findall(r"^## \[?(\d[^\] ]*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released[0] == version


def test_the_library_is_no_module_and_importing_it_as_one_is_a_plain_error():
    if library.library() is None:
        pytest.skip("there was no C compiler when this was installed")
    assert library.library().PyInit__native is not None
    code = """
import staf_nerf.kernels.library as library
try:
    import staf_nerf.kernels._native
except (ImportError, SystemError) as error:
    print(type(error).__name__)
assert library.call("staf_version") == library.VERSION
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in ("ImportError", "SystemError")


def test_readme_s_images_show_on_other_sites_once_the_address_is_given(tmp_path):
    text = (
        "![a](docs/a.jpg) [page](docs/page.md#part) ![b](https://example.org/b.png)\n"
        '<img src="docs/c.png" width="9">\n[top](#install) `![code](docs/d.png)`\n'
        "```\n![block](docs/e.png)\n```\n[![badge](./f.svg)](docs/g.md) [`h`](docs/h.md)\n"
    )
    (tmp_path / "README.md").write_text(text)
    line = [sys.executable, ROOT / "tools/pypi_readme.py", "https://h.org/x", "--file", tmp_path / "README.md"]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "README.md").read_text() == (
        "![a](https://h.org/x/docs/a.jpg) [page](https://h.org/x/docs/page.md#part) ![b](https://example.org/b.png)\n"
        '<img src="https://h.org/x/docs/c.png" width="9">\n[top](#install) `![code](docs/d.png)`\n'
        "```\n![block](docs/e.png)\n```\n"
        "[![badge](https://h.org/x/f.svg)](https://h.org/x/docs/g.md) [`h`](https://h.org/x/docs/h.md)\n"
    )


def test_doctor_names_the_device_the_kernels_and_the_methods(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("COLUMNS", "300")
    printed = command("staf", "doctor", cwd=tmp_path).stdout
    assert torch.__version__ in printed
    assert "staf-nerf-mlp" in printed
    assert ("native" in printed) == (library.library() is not None)
    assert re.search(r"linear layers.*(torch's own|1 x 1 convolutions): as convolutions they take \d+\.\d\d", printed)


def test_the_scene_is_small_enough_to_ship():
    size = sum(path.stat().st_size for path in (ROOT / "scenes").rglob("*") if path.is_file())
    assert size < 12 * 2**20
