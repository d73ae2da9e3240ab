"""Presets: TOML files with values for the dataclasses of `staf_nerf.config`.

A preset lists only the values that differ from the defaults. Its tables [cpu], [cuda] and [mps] hold the values that
differ on that device, and have the same tables inside. An unknown key or a value of the wrong type is an error that
names the accepted ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from staf_nerf.config import (
    BUDGETS,
    ENCODINGS,
    ActivationConfig,
    Choice,
    EncodingConfig,
    FieldConfig,
    FitConfig,
    RadianceConfig,
    known_keys,
)
from staf_nerf.migrations import MOVED, RENAMED, as_it_is_written_now

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
    """Returns the names of the presets of a task, sorted. The task's own name stands for its defaults."""
    paths = resource("method_configs").glob("*.toml")
    names = {p.stem for p in paths if tomllib.loads(p.read_text("utf-8")).get("task", "radiance") == task}
    return sorted(names if task == "radiance" else names | {task})


@overload
def load_preset(name_or_path: str | Path, device: Device) -> RadianceConfig: ...
@overload
def load_preset(name_or_path: str | Path, device: Device, defaults: ConfigT) -> ConfigT: ...
def load_preset(name_or_path: str | Path, device: Device, defaults: Any = None) -> Any:
    """Reads a preset for a device and returns its configuration.

    Args:
        name_or_path: The name of a shipped preset, or a path that ends in .toml. The name of a task without a preset
            of that name stands for `defaults`.
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
            if name_or_path == defaults.task != "radiance":
                return defaults
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
        if (task := table.pop("task", "radiance")) != defaults.task:
            raise ValueError(f"the preset is for the task {task!r}, a preset for {defaults.task!r} is needed")
        if "description" not in known_keys(defaults):
            table.pop("description", None)
        config = override(defaults, table)
        return override(config, by_device.get(device, fallback))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def override(config: ConfigT, table: Mapping[str, Any], where: str = "") -> ConfigT:
    """Returns a copy of a dataclass with the values of `table`, which may hold tables for nested dataclasses.

    The options of an encoding or an activation are kept if its name stays, and are otherwise the defaults of the new
    one. A budget of a fit replaces another one.

    Raises:
        ValueError: If a key is unknown, or a value has the wrong type or is out of range.
    """
    changes: dict[str, Any] = {}
    if isinstance(config, FitConfig) and any(name in table for name in BUDGETS):
        changes = dict.fromkeys(BUDGETS)
    for key, value in table.items():
        if key not in known_keys(config):
            raise ValueError(_unknown(config, key, value, where))
        if not (value is None and key in BUDGETS):  # in files of fields
            changes[key] = _convert(config, key, value, f"{where}.{key}" if where else key)
    try:
        return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise ValueError(f"[{where}] {error}" if where and not str(error).startswith("[") else str(error)) from error


def _unknown(config: Any, key: str, value: Any, where: str) -> str:
    """Returns the message for an unknown key: its present name, or the known keys."""
    message = f"unknown key {key!r}{f' in [{where}]' if where else ''}"
    if (name := RENAMED.get(key)) in known_keys(config):
        return f"{message}; it is called {name!r} now"
    if key in MOVED and isinstance(config, FieldConfig):
        kind, options = as_it_is_written_now(key, value)
        return f"{message}; it is written {kind} = {_inline(options)} now"
    return f"{message}; the known keys are {', '.join(known_keys(config))}"


def _inline(table: Mapping[str, Any]) -> str:
    """Returns an inline table of TOML."""
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + "}"


def _convert(config: Any, key: str, new: Any, path: str) -> Any:
    """Returns a value of a table after checking it against the kind of value that the configuration has."""
    old = getattr(config, key)
    if isinstance(old, ActivationConfig):
        return _activation(old, _named(new, path), path)
    if isinstance(old, EncodingConfig):
        return _encoding(old, _named(new, path), path)
    if dataclasses.is_dataclass(old):
        if not isinstance(new, Mapping):
            raise ValueError(f"{path} must be a table, got {new!r}")
        return override(old, new, path)
    if isinstance(old, tuple) and isinstance(new, list):
        return tuple(_of_type(type(old[0]), item, path) for item in new)
    return _of_type(float if key == "minutes" else int if key in BUDGETS else type(old), new, path)


def _of_type(kind: type, value: Any, path: str) -> Any:
    """Returns a value of that type. A whole number is also a float."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{path} must be of type {kind.__name__}, got {value!r}")
    return value


def _named(new: Any, path: str) -> dict[str, Any]:
    """Returns the table of an encoding or an activation, which may be written as a text: "hash:num_levels=16"."""
    if isinstance(new, str):
        name, _, options = new.partition(":")
        pairs = [option.partition("=") for option in options.split(",") if option]
        if bad := [key for key, equals, _ in pairs if not equals]:
            raise ValueError(
                f"{path} must be NAME or NAME:OPTION=VALUE,OPTION=VALUE, got {new!r}; {bad[0]!r} has no value"
            )
        return {"name": name} | {key.strip(): _parsed(value.strip()) for key, _, value in pairs}
    if not isinstance(new, Mapping):
        raise ValueError(f"{path} must be a name or a table, got {new!r}")
    return dict(new)


def _parsed(text: str) -> Any:
    """Returns a number or a truth value that a text is, or the text."""
    with contextlib.suppress(ValueError):
        if isinstance(value := json.loads(text), (bool, int, float)):
            return value
    return text


def _activation(old: ActivationConfig, table: dict[str, Any], path: str) -> ActivationConfig:
    """Returns an activation with the options of a table. Of files it has all options, in a table of their own."""
    name = table.pop("name", old.name)
    if isinstance(complete := table.get("options"), Mapping):
        return ActivationConfig(name, complete)
    if bad := [key for key, value in table.items() if not isinstance(value, (bool, int, float, str))]:
        raise ValueError(f"{path}.{bad[0]} must be a number, a truth value or a text, got {table[bad[0]]!r}")
    return ActivationConfig(name, {**old.options, **table} if name == old.name else table)


def _encoding(old: EncodingConfig, table: dict[str, Any], path: str) -> EncodingConfig:
    """Returns an encoding with the options of a table."""
    name = table.pop("name", old.name)
    if name not in ENCODINGS:
        raise ValueError(f"{path} must be one of {', '.join(ENCODINGS)}, got {name!r}")
    base = old if name == old.name else ENCODINGS[name]()
    known = [key for key in known_keys(base) if key != "name"]
    if unknown := [key for key in table if key not in known]:
        accepted = f"must be among {', '.join(known)}" if known else "do not exist"
        raise ValueError(f"options of the encoding {name!r} {accepted}, got {', '.join(unknown)}")
    return override(base, table, path)


def resolved(config: ConfigT, defaults: ConfigT) -> ConfigT:
    """Returns a configuration of the command line with an encoding or activation in place of each `Choice`.

    Args:
        config: The configuration.
        defaults: That of the preset, whose options a choice changes.

    Raises:
        ValueError: If a name or an option is unknown, or a value is not accepted.
    """
    changes: dict[str, Any] = {}
    for key in known_keys(config):
        value, default = getattr(config, key), getattr(defaults, key)
        if isinstance(value, Choice):
            changes[key] = _convert(defaults, key, value.text, key)
        elif dataclasses.is_dataclass(default) and (found := resolved(value, default)) != value:
            changes[key] = found
    return dataclasses.replace(config, **changes) if changes else config  # pyright: ignore[reportArgumentType]
