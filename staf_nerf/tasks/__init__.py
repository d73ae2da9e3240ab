"""Kinds of signals: each module defines one, as the object `TASK`. A new module needs no registration."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from staf_nerf.tasks.task import Metrics, Problem, Task

__all__ = ["Metrics", "Problem", "Task", "find_task", "tasks"]


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all kinds of signals by their names."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    kinds: list[Task] = [module.TASK for module in modules if hasattr(module, "TASK")]
    return {task.name: task for task in kinds}


def find_task(name: str) -> Task:
    """Returns the kind of signal with that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in tasks():
        raise ValueError(f"task must be one of {sorted(tasks())}, got {name!r}")
    return tasks()[name]
