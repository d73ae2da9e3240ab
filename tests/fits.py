"""Fits as tests ask for them: the settings of a kind of signal by its name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from staf_nerf.jobs.fit import Advanced, Fit
from staf_nerf.presets import load_preset
from staf_nerf.tasks import find_task


def fit_job(
    task: str, files: Path | tuple[Path, ...], output: Path | None = None, *, config: Any = None, **others: Any
) -> Fit:
    """Returns a fit. Its configuration defaults to the preset; options of its results may be among the others."""
    kind = find_task(task)
    names = {field.name for field in dataclasses.fields(kind.options)}
    options = dataclasses.replace(kind.options, **{name: others.pop(name) for name in names & set(others)})
    names = {field.name for field in dataclasses.fields(Advanced)}
    advanced = Advanced(**{name: others.pop(name) for name in names & set(others)})
    config = load_preset(task, "cpu", kind.config) if config is None else config
    files = (files,) if isinstance(files, Path) else files
    return Fit(files, config, options, output, advanced=advanced, **others)
