"""Presets: TOML files with values for the dataclasses of `staf_nerf.config`.

A preset lists only the values that differ from the defaults. Its tables [cpu], [cuda] and [mps] hold the values that
differ on that device, and have the same tables inside. An unknown key or a value of the wrong type is an error that
names the accepted ones.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from staf_nerf.config import RadianceConfig, known_keys
from staf_nerf.migrations import RENAMED

Device = Literal["cpu", "cuda", "mps"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda", "mps")

ConfigT = TypeVar("ConfigT")


def resource(folder: str) -> Path:
    """Returns a folder that is shipped with the package: beside it in a checkout, inside it in an installation.

    Raises:
        FileNotFoundError: If the installation lacks the folder.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / folder, package.parent / folder):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the folder {folder!r} is missing from this installation of staf_nerf ({package})")


def preset_names(task: str = "radiance") -> list[str]:
    """Returns the names of the presets that are shipped for a task, sorted."""
    paths = resource("method_configs").glob("*.toml")
    return sorted(p.stem for p in paths if tomllib.loads(p.read_text("utf-8")).get("task", "radiance") == task)


@overload
def load_preset(name_or_path: str | Path, device: Device) -> RadianceConfig: ...
@overload
def load_preset(name_or_path: str | Path, device: Device, defaults: ConfigT) -> ConfigT: ...
def load_preset(name_or_path: str | Path, device: Device, defaults: Any = None) -> Any:
    """Reads a preset for a device and returns its configuration.

    Args:
        name_or_path: The name of a shipped preset, or a path that ends in .toml.
        device: "cpu", "cuda" or "mps". For "mps" the table [cpu] is used if the preset has no table [mps].
        defaults: The configuration that the preset changes. Defaults to that of a radiance field.

    Raises:
        ValueError: If the preset or a key is unknown, a value is not accepted, or the preset is for another task.
    """
    defaults = RadianceConfig() if defaults is None else defaults
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = resource("method_configs") / f"{name_or_path}.toml"
        if not path.is_file():
            known = preset_names(defaults.task)
            raise ValueError(f"preset must be one of {known} or a .toml file, got {str(name_or_path)!r}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    by_device = {key: table.pop(key) for key in DEVICES if key in table}
    fallback = by_device.get("cpu", {}) if device == "mps" else {}
    try:
        for key, value in by_device.items():
            if not isinstance(value, Mapping):
                raise ValueError(f"{key} must be a table, got {value!r}")
        if (task := table.get("task", "radiance")) != defaults.task:
            raise ValueError(f"the preset is for the task {task!r}, a preset for {defaults.task!r} is needed")
        config = override(defaults, table)
        return override(config, by_device.get(device, fallback))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def override(config: ConfigT, table: Mapping[str, Any], where: str = "") -> ConfigT:
    """Returns a copy of a dataclass with the values of `table`, which may hold tables for nested dataclasses.

    Raises:
        ValueError: If a key is unknown, or a value has the wrong type or is out of range.
    """
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known_keys(config):
            inside = f" in [{where}]" if where else ""
            if (name := RENAMED.get(key)) in known_keys(config):
                raise ValueError(f"unknown key {key!r}{inside}; it is called {name!r} now")
            raise ValueError(f"unknown key {key!r}{inside}; the known keys are {', '.join(known_keys(config))}")
        path = f"{where}.{key}" if where else key
        changes[key] = _convert(getattr(config, key), value, path)
    try:
        return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise ValueError(f"[{where}] {error}" if where and not str(error).startswith("[") else str(error)) from error


def _convert(old: Any, new: Any, path: str) -> Any:
    """Returns a value of a table after checking it against the type of the value that it replaces."""
    if dataclasses.is_dataclass(old):
        if not isinstance(new, Mapping):
            raise ValueError(f"{path} must be a table, got {new!r}")
        return override(old, new, path)
    if isinstance(old, tuple) and isinstance(new, list):
        return tuple(_convert(old[0], item, path) for item in new)
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if type(new) is not type(old):
        raise ValueError(f"{path} must be of type {type(old).__name__}, got {new!r}")
    return new
