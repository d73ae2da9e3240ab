"""Imported once by the process from which the commands of the pages are forked; absent packages are left out."""

import contextlib
import importlib
import warnings

MODULES = (
    "staf_nerf.cli",
    "open3d",
    "igl",
    "nerfstudio.scripts.train",
    "nerfstudio.scripts.eval",
    "nerfstudio.scripts.render",
    "nerfstudio.scripts.exporter",
    "staf_nerf.plugin.demo",
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
