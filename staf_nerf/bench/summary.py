"""Summaries of benchmark rows: one entry per method and budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from staf_nerf.bench.sweep import Row

MEANS = ("parameters", "steps", "seconds", "rays_per_second", "psnr_of_best")
"""Quantities whose mean over runs is given, where rows contain them."""


@dataclass(frozen=True)
class Grouping:
    """How the rows of a benchmark are grouped, and by which metrics they are compared."""

    settings: tuple[str, ...]
    """Keys that runs must share to be averaged over signals and seeds: the method, the budget, …"""
    signal: str
    """Key that names the signal of a row. Means over signals are means of the means over seeds."""
    metrics: tuple[str, ...]
    """Metrics, higher is better. The first one decides the order."""


def summarize(rows: Sequence[Row], grouping: Grouping) -> list[Row]:
    """Returns one entry per method and budget, best first.

    Metrics are means over signals of the means over seeds. Deviations ("…_std") are standard deviations over seeds,
    averaged over signals. "wins" counts the signals on which no method with the same settings is better, "signals" is
    the number of signals. Methods with diverged runs ("failed") come last.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in grouping.settings), []).append(row)
    first = grouping.metrics[0]
    leading = {key: _by_signal(group, grouping.signal, first) for key, group in groups.items()}
    summary = []
    for key, group in groups.items():
        done = [row for row in group if "failed" not in row]
        entry = {**dict(zip(grouping.settings, key, strict=True)), "runs": len(group)}
        entry |= {"failed": len(group) - len(done), "signals": len(leading[key])}
        if done:
            rivals = [leading[rival] for rival in groups if rival[1:] == key[1:]]
            for metric in grouping.metrics:
                values = _by_signal(group, grouping.signal, metric).values()
                entry[metric] = statistics.fmean(mean for mean, _ in values)
                entry[f"{metric}_std"] = _mean_of([std for _, std in values if std is not None])
            entry["wins"] = sum(_is_first(leading[key], rivals, signal) for signal in leading[key])
            known = set.intersection(*(set(row) for row in done))
            entry |= {name: statistics.fmean(row[name] for row in done) for name in MEANS if name in known}
            if "peak_memory_bytes" in known:
                entry["peak_memory_bytes"] = max(row["peak_memory_bytes"] for row in done)
        summary.append(entry)
    return sorted(summary, key=lambda e: (e["budget"], e["amount"], e["failed"] > 0, -e.get(first, -math.inf)))


def _by_signal(rows: Sequence[Row], signal: str, metric: str) -> dict[str, tuple[float, float | None]]:
    """Returns mean and standard deviation over seeds by signal, without diverged runs."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if "failed" not in row:
            values.setdefault(row[signal], []).append(row.get("metrics", row)[metric])
    return {
        name: (statistics.fmean(seeds), statistics.stdev(seeds) if len(seeds) > 1 else None)
        for name, seeds in values.items()
    }


def _is_first(means: Mapping[str, tuple], rivals: Sequence[Mapping[str, tuple]], signal: str) -> bool:
    """Returns whether no rival has a higher mean on a signal."""
    return all(means[signal][0] >= rival[signal][0] for rival in rivals if signal in rival)


def _mean_of(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def with_deviation(entry: Row, name: str, digits: int) -> str:
    """Formats a mean of a summary, with its deviation if there is one."""
    std = entry[f"{name}_std"]
    return f"{entry[name]:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def shared_columns(entry: Row) -> dict[str, str]:
    """Returns the table columns that all summaries share.

    These are "method" and "budget", and unless all runs diverged "wins", "weights", "steps", "seconds" and "memory".
    """
    common = {"method": entry["method"], "budget": f"{entry['amount']:g} {entry['budget']}"}
    if "wins" not in entry:
        return common
    memory = f"{entry['peak_memory_bytes'] / 1e9:.2f} GB" if "peak_memory_bytes" in entry else ""
    return {
        **common,
        "wins": f"{entry['wins']} of {entry['signals']}",
        "weights": f"{entry['parameters']:,.0f}",
        "steps": f"{entry['steps']:,.0f}",
        "seconds": f"{entry['seconds']:,.0f}",
        "memory": memory,
    }
