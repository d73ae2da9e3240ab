"""Sphinx: `sphinx-build -W --keep-going -n -b html docs OUTPUT`, with what `pip install -e ".[docs]"` brings.

What the pages say about commands, options, presets, the API and most benchmark results is made from the package and its
files at each build. Nothing is fetched, unless STAF_DOCS_ONLINE=1 asks for links into the documentation of Python,
NumPy and torch. `sphinx-build -b linkcheck docs OUTPUT` tries all external links, and needs the internet too.
"""

import importlib.util
import os
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT)]

_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
version = release = _project["version"]
author = "the staf-nerf authors"
copyright = author
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "staf_docs.commands",
    "staf_docs.configs",
    "staf_docs.docstrings",
    "staf_docs.layers",
    "staf_docs.mathml",
    "staf_docs.names",
    "staf_docs.presets",
    "staf_docs.results",
]
exclude_patterns = ["_build", "_ext"]
results_folder = str(ROOT / "benchmarks" / "results")

# --- Markdown ---

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_dmath_allow_digits = False
myst_links_external_new_tab = False

# --- docstrings ---

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# What an extra brings is not needed to read a docstring.
autodoc_mock_imports = [
    name
    for name in ("fast_simplification", "igl", "onnx", "open3d", "trimesh", "xatlas")
    if importlib.util.find_spec(name) is None
]

# --- links ---

nitpicky = True
nitpick_ignore_regex = [
    # Names of other packages: there is no inventory of them without the internet (see STAF_DOCS_ONLINE).
    (r"py:.*", r"(torch|nn|np|numpy|npt|abc|collections|typing|pathlib|os|optional)(\..*)?"),
    (r"py:.*", r"(Tensor|Generator|Module|Linear|Parameter|NDArray)"),
    (r"py:.*", r"(Path|Any|Callable|Hashable|Mapping|Sequence|Iterator|Literal)"),
    # Types of ours that are no class: a choice of texts, a union, an array of some precision.
    (r"py:.*", r"(staf_nerf\..*\.)?(Floats|Integers|Initialization|Sharing|Implementation|Device|ConfigT)"),
    (r"py:.*", r"(Metrics|Figure)"),
    # What a type says to the command line; see `staf_docs.docstrings`.
    (r"py:class", r".*Annotated\[.*"),
    # Imported for type checkers only.
    (r"py:class", r"Stages"),
    # A base class of ours that is private: its members stand with the classes that have it.
    (r"py:class", r"staf_nerf\..*\._\w+"),
]
if os.environ.get("STAF_DOCS_ONLINE") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False  # pages that scripts make have none in their text
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost)", r"https://example\.org/"]

# --- pages ---

html_theme = "furo"
html_title = f"staf-nerf {release}"
html_static_path = ["_static"]
html_css_files = ["staf.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7fb4f0", "color-brand-content": "#7fb4f0"},
}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
