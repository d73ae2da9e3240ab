"""Imported once by the process from which the commands of the pages are forked; absent packages are left out.

Open3D is not among them, nor what imports it: a child would wait forever for the threads of its parent's OpenMP.
"""

import contextlib
import importlib
import warnings

MODULES = (
    "staf_nerf.cli",
    "igl",
    "nerfstudio.scripts.train",
    "nerfstudio.scripts.eval",
    "nerfstudio.scripts.render",
    "staf_nerf.jobs.demo",
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
