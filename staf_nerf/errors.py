"""Errors that a user can mend, told in one to three lines: what is wrong, and what to do about it."""

from __future__ import annotations

import importlib
import os
import re
import sys

EXTRAS = {
    "av": "nerf",
    "cv2": "signals",
    "fast_simplification": "mesh",
    "igl": "mesh",
    "imageio": "signals",
    "matplotlib": "signals",
    "nerfstudio": "nerf",
    "onnx": "export",
    "open3d": "mesh",
    "PIL": "signals",
    "platformdirs": "nerf",
    "rich": "signals",
    "scipy": "signals",
    "soundfile": "signals",
    "torchmetrics": "signals",
    "torchvision": "nerf",
    "trimesh": "mesh",
    "tyro": "signals",
    "xatlas": "mesh",
    "yaml": "nerf",
}
"""The extra in pyproject.toml that brings a module which the core does without."""

DEBIAN_PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
}
"""The package of Debian and Ubuntu that holds a system library which a wheel expects."""

NEWEST_PYTHON_WITH_NERFSTUDIO = (3, 12)
"""nerfstudio 1.1.5 needs NumPy 1, which has no wheels for a later Python."""


class IncompleteError(RuntimeError):
    """The main result is written, but something that belongs to it could not be made."""


def debugging() -> bool:
    """Whether errors keep their traceback: STAF_DEBUG is set, and not to 0."""
    return os.environ.get("STAF_DEBUG", "0") not in ("", "0")


def explain(error: BaseException) -> str | None:
    """Says in one to three lines what went wrong.

    Returns:
        The message, or None for an error that is a fault of ours: that one needs its traceback.
    """
    if (library := missing_library(error)) is not None:
        return library
    if isinstance(error, ImportError):
        return missing_module(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {error}".removesuffix(": ")
    if isinstance(error, ValueError | OSError | RuntimeError) and not isinstance(error, NotImplementedError):
        return str(error) or type(error).__name__
    return None


def missing_module(error: ImportError) -> str | None:
    """Which extra brings the module that could not be imported; None if it belongs to none."""
    module = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module not in EXTRAS:
        return None
    newest = NEWEST_PYTHON_WITH_NERFSTUDIO
    if module == "nerfstudio" and sys.version_info[:2] > newest:
        return (
            f"nerfstudio is not installed. It needs Python {newest[0]}.{newest[1]} or older, and this is Python "
            f"{sys.version_info.major}.{sys.version_info.minor}."
        )
    return f'{module} is not installed. To get it: pip install "staf-nerf[{EXTRAS[module]}]"'


def missing_library(error: BaseException) -> str | None:
    """Which system library could not be loaded, and the package that holds it; None if that is not the error."""
    if not isinstance(error, ImportError | OSError):
        return None
    found = re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file", str(error))
    if found is None:
        return None
    name = found[1]
    package = DEBIAN_PACKAGES.get(name)
    if package is None:
        return f"the system library {name} is missing. Install the package that holds {name}."
    return f"the system library {name} is missing. On Debian or Ubuntu: sudo apt install {package}"


def unusable(module: str) -> str | None:
    """Why a module cannot be imported, and what to do; None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return explain(error) or f"{module} cannot be imported: {type(error).__name__}: {error}"
    return None
