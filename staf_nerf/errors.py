"""Messages of one to three lines for errors that a user can fix: what is wrong, and the remedy."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import sys
import traceback

EXTRAS = {
    "av": "signals",
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
    "pycolmap": "nerf",
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
"""The extra in pyproject.toml that installs each optional module."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "fast_simplification": "fast-simplification",
    "igl": "libigl",
    "yaml": "pyyaml",
}
"""The name on the package index of each optional module that has another one."""

DEBIAN_PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libOpenGL.so.0": "libopengl0",
    "libX11.so.6": "libx11-6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
}
"""The package of Debian and Ubuntu that contains each system library which wheels need."""

NEWEST_PYTHON_WITH_NERFSTUDIO = (3, 12)
"""nerfstudio 1.1.5 needs NumPy 1, which has no wheels for a later Python."""


class IncompleteError(RuntimeError):
    """The main results are written, but some others could not be made."""


def debugging() -> bool:
    """Returns whether errors are shown with their traceback: STAF_DEBUG is set, and not to 0."""
    return os.environ.get("STAF_DEBUG", "0") not in ("", "0")


def explain(error: BaseException) -> str | None:
    """Returns the message for an error, in one to three lines.

    Returns:
        The message, or None for a bug in this package, which needs its traceback.
    """
    if (library := missing_library(error)) is not None:
        return library
    if isinstance(error, ImportError):
        return missing_module(error) or broken_module(error)
    if isinstance(error, pickle.UnpicklingError):
        return f"a file is damaged, or is not a checkpoint: {str(error).splitlines()[0]}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {error}".removesuffix(": ")
    if isinstance(error, ValueError | OSError | RuntimeError) and not isinstance(error, NotImplementedError):
        return str(error) or type(error).__name__
    return None


def missing_module(error: ImportError) -> str | None:
    """Returns a message that names the extra of a missing module, or None if the module belongs to no extra."""
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


def broken_module(error: ImportError) -> str | None:
    """Returns which package of an extra failed during its import, with the remedy, or None if none of them did."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]
    last_of_staf = max((i for i, name in enumerate(packages) if name == "staf_nerf"), default=-1)
    package = next((name for name in packages[last_of_staf + 1 :] if name in EXTRAS), None)
    if package is None:
        return None
    return (
        f"{package} is installed, but cannot be imported: {error}\n"
        f"Install it again (pip install --force-reinstall {DISTRIBUTIONS.get(package, package)}). "
        "`staf doctor` tries all packages."
    )


def missing_library(error: BaseException) -> str | None:
    """Returns a message that names a missing system library and its package, or None for any other error."""
    if not isinstance(error, ImportError | OSError):
        return None
    match = re.search(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file", str(error))
    if match is None:
        return None
    name = match[1]
    package = DEBIAN_PACKAGES.get(name)
    if package is None:
        return f"the system library {name} is missing. Install the package that contains {name}."
    return f"the system library {name} is missing. On Debian or Ubuntu: sudo apt install {package}"


def unusable(module: str) -> str | None:
    """Returns why a module cannot be imported, and the remedy, or None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return explain(error) or f"{module} cannot be imported: {type(error).__name__}: {error}"
    return None
