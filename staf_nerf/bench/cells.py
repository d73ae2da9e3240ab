"""A grid of runs that can be stopped and gone on with, and the names of methods in it."""

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

from staf_nerf.bench.record import write
from staf_nerf.presets import override

Row = dict[str, Any]
ConfigT = TypeVar("ConfigT")


def run_missing(
    cells: Sequence[Row],
    run_one: Callable[[Row], Row],
    make_report: Callable[[list[Row]], Row],
    output: Path | None,
    *,
    processes: int = 0,
) -> Row:
    """Runs the cells that the output does not hold yet, and writes it after each; returns the report of all rows.

    Args:
        cells: What tells one run from another.
        run_one: Cell -> what there is to say of that run beside its cell; picklable, if there are processes.
        make_report: Rows -> what is written, with the rows under "rows".
        output: JSON file, if any.
        processes: Runs at a time, each in a process of its own with its share of the threads; 0: one after the other,
            in this one.
    """
    rows: list[Row] = []
    if output is not None and output.is_file():
        rows = json.loads(output.read_text())["rows"]
    missing = [cell for cell in cells if not any(all(row.get(k) == v for k, v in cell.items()) for row in rows)]
    for row in _one_by_one(missing, run_one) if not processes else _side_by_side(missing, run_one, processes):
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        if output is not None:
            write(make_report(rows), output)
    return make_report(rows)


def _one_by_one(cells: Sequence[Row], run_one: Callable[[Row], Row]) -> Iterator[Row]:
    for cell in cells:
        yield {**cell, **run_one(cell)}
        gc.collect()


def _side_by_side(cells: Sequence[Row], run_one: Callable[[Row], Row], processes: int) -> Iterator[Row]:
    start = functools.partial(torch.set_num_threads, max(torch.get_num_threads() // processes, 1))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, start, max_tasks_per_child=1) as pool:
        running = {pool.submit(run_one, cell): cell for cell in cells}
        for done in as_completed(running):
            yield {**running[done], **done.result()}


def parse(text: str) -> Any:
    """A value as JSON has it, or the text itself."""
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(text)
    return text


def changed(config: ConfigT, changes: Sequence[str]) -> ConfigT:
    """A configuration with changes "key.key=value"; a word alone names the field's activation.

    Raises:
        ValueError: If a key or value is not a known or accepted one.
    """
    for change in changes:
        key, _, value = change.partition("=") if "=" in change else ("field.activation", "", change)
        table: Any = parse(value)
        for part in reversed(key.split(".")):
            table = {part: table}
        config = override(config, table)
    return config
