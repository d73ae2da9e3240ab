"""The rules of the house: imports point one way, and importing the package is light and without effect."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "staf_nerf"

ORDER = [
    {"_torch_compat", "errors", "machine", "migrations"},
    {"captures", "config", "kernels", "initialization", "mesh"},
    {"presets", "layers", "encodings", "progress"},
    {"activations"},
    {"mlp"},
    {"fields"},
    {"signals", "theory"},
    {"fitting", "export", "files", "metrics"},
    {"figures"},
    {"sfm", "tasks"},
    {"checkpoint"},
    {"plugin"},
    {"jobs"},
    {"bench"},
    {"cli"},
    {"__main__"},
]
NEEDS_THE_PLUGIN = PACKAGE / "jobs" / "demo.py"
"""The one module outside the plugin that imports it at its top. So others import this module inside functions alone."""
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(tree: ast.AST, *, inside_functions: bool) -> set[str]:
    """Names of modules that a file imports, at its top level or anywhere."""
    nodes = ast.walk(tree) if inside_functions else _top_level(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _top_level(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from _top_level(node)


def part(name: str) -> str:
    return name.split(".")[1] if name.startswith("staf_nerf.") else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in LEVEL, f"{own} has no place in the order of layers"
    for name in imports(ast.parse(path.read_text()), inside_functions=True):
        other = part(name)
        if other in LEVEL and other != own:
            assert LEVEL[other] < LEVEL[own], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_plugin_and_nerfstudio_stay_apart(path):
    own = path.relative_to(PACKAGE).parts[0]
    if own == "plugin":
        return
    tree = ast.parse(path.read_text())
    at_the_top, everywhere = (imports(tree, inside_functions=inside) for inside in (False, True))
    if path != NEEDS_THE_PLUGIN:
        assert not any(part(name) == "plugin" for name in at_the_top)
        assert not any(name.startswith("staf_nerf.jobs.demo") for name in at_the_top)
    if own not in ("jobs", "bench", "cli.py"):
        assert not any(part(name) == "plugin" for name in everywhere)
    if own != "bench":
        assert not any(name.split(".")[0] == "nerfstudio" for name in everywhere)


@pytest.mark.parametrize("name", ["staf_nerf", "staf_nerf.config", "staf_nerf.presets", "staf_nerf.migrations"])
def test_the_package_and_its_configuration_import_without_torch(name):
    code = f"import sys, {name}; assert not {{'torch', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_is_light_silent_and_leaves_the_environment_alone():
    code = (
        "import os, sys, torch; before = dict(os.environ); import staf_nerf; "
        "heavy = {'nerfstudio', 'open3d', 'tyro', 'matplotlib', 'cv2', 'rich', 'torch._dynamo'} & set(sys.modules); "
        "assert not heavy, heavy; assert before == dict(os.environ)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}  # imports set some
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert result.stdout == ""
