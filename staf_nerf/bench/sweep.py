"""A resumable grid of benchmark runs, and the syntax for methods with changes."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import torch

from staf_nerf.config import FieldConfig
from staf_nerf.jobs.output import write_json
from staf_nerf.migrations import MOVED, RENAMED, migrate_results, option_value
from staf_nerf.presets import override

Row = dict[str, Any]
ConfigT = TypeVar("ConfigT")


def run_missing(
    cells: Sequence[Row],
    run_cell: Callable[[Row], Row],
    make_report: Callable[[list[Row]], Row],
    output: Path | None,
    *,
    processes: int = 0,
) -> Row:
    """Does the runs that the output does not contain yet and returns the report of all rows.

    The output file is written after each run.

    Args:
        cells: The settings of each run.
        run_cell: Maps the settings of a run to its results. It must be picklable if `processes` is not 0.
        make_report: Maps rows (runs with results) to the content of the file, with the rows under "rows".
        output: JSON file, if any.
        processes: Number of runs at a time, each in its own process with an equal share of the threads. 0: one after
            the other in this process.
    """
    rows: list[Row] = []
    if output is not None and output.is_file():
        rows = migrate_results(json.loads(output.read_text()))["rows"]
    missing = [cell for cell in cells if not any(all(row.get(k) == v for k, v in cell.items()) for row in rows)]
    for row in _in_processes(missing, run_cell, processes) if processes else _in_turn(missing, run_cell):
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        if output is not None:
            write_json(make_report(rows), output)
    return make_report(rows)


def _in_turn(cells: Sequence[Row], run_cell: Callable[[Row], Row]) -> Iterator[Row]:
    for cell in cells:
        yield {**cell, **run_cell(cell)}
        gc.collect()


def _in_processes(cells: Sequence[Row], run_cell: Callable[[Row], Row], processes: int) -> Iterator[Row]:
    start = functools.partial(torch.set_num_threads, max(torch.get_num_threads() // processes, 1))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, start, max_tasks_per_child=1) as pool:
        running = {pool.submit(run_cell, cell): cell for cell in cells}
        for done in as_completed(running):
            yield {**running[done], **done.result()}


def parse(text: str) -> Any:
    """Parses a value as JSON, or returns the text itself."""
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(text)
    return text


def changed(config: ConfigT, changes: Sequence[str]) -> ConfigT:
    """Returns a configuration with changes "key.key=value". A name alone is the field's activation, as in "relu".

    Keys may have their names of earlier versions, as they stand in files of results.

    Raises:
        ValueError: If a key is unknown or a value is not accepted.
    """
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or ":" in key:
            key, value = "field.activation", change
        config = override(config, _table(config, key.split("."), parse(value)))
    return config


def _table(config: Any, path: Sequence[str], value: Any) -> Row:
    """Returns the nested table that sets one key."""
    first, *rest = path
    first = RENAMED.get(first, first)
    if rest:
        return {first: _table(getattr(config, first, None), rest, value)}
    if first in MOVED and isinstance(config, FieldConfig):
        return _moved(config, first, value)
    return {first: value}


def _moved(config: FieldConfig, key: str, value: Any) -> Row:
    """Returns the table for an option of a field before format 3. It had no effect if nothing has it."""
    kind, names = MOVED[key]
    name = getattr(config, kind).name
    return {kind: {names[name]: option_value(key, value)}} if name in names else {}
