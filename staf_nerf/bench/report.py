"""Results of the benchmarks of fits, as a page of Markdown with plots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from staf_nerf.bench.signals import COLUMNS, table_rows
from staf_nerf.jobs.figures import new_figure, save_figure
from staf_nerf.jobs.fitting import PEAKS


@dataclass(frozen=True)
class Report:
    """Tables and plots of the JSON files that `staf bench image` and its like write."""

    files: Positional[tuple[Path, ...]]
    """The results."""
    output: Path = Path("report")
    """Folder for report.md and its pictures."""


def run(job: Report) -> Path:
    """Writes the page and returns it.

    Raises:
        ValueError: If a file holds no such results.
    """
    if not job.files:
        raise ValueError("files must name one or more results, got none")
    results = {path: _read(path) for path in job.files}
    job.output.mkdir(parents=True, exist_ok=True)
    parts = ["# Results", ""]
    for path, result in results.items():
        picture = job.output / f"{path.stem}.png"
        parts += [f"## {path.stem}", "", *table(result), "", f"![PSNR while learning]({picture.name})", ""]
        draw_curves(picture, result)
        parts += [footer(result), ""]
    page = job.output / "report.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def table(result: dict[str, Any]) -> list[str]:
    """Lines of a Markdown table: one for each method and budget, the best first."""
    columns = [result["score"] if name == "score" else name for name in COLUMNS]
    lines = [columns, ["---"] * len(columns), *table_rows(result)]
    return [f"| {' | '.join(line)} |" for line in lines]


def footer(result: dict[str, Any]) -> str:
    """What it takes to repeat the measurement."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    files = sorted({row["file"] for row in result["rows"]})
    seeds = sorted({row["seed"] for row in result["rows"]})
    return (
        f"Mean over {', '.join(files)} and seeds {', '.join(map(str, seeds))}, ± deviation over seeds; final weights. "
        f"`{result['command']}`; commit {result['commit'] or 'unknown'}; {versions}; {result['cpu']}, "
        f"{result['threads']} threads."
    )


def draw_curves(path: Path, result: dict[str, Any]) -> None:
    """PSNR of the points that are learned from (for shapes: the loss), against steps and seconds, a line a method.

    A line is the mean over files and seeds of the largest budget. Seconds are those of steps that were timed in turn,
    where they were, and else those of the runs, with all that the machine did beside them.
    """
    figure, axes = new_figure(1, 2, (12.0, 4.5))
    peak = PEAKS.get(result["task"])
    for method in dict.fromkeys(row["method"] for row in result["summary"]):
        rows = [row for row in result["rows"] if row["method"] == method and "failed" not in row]
        if not rows:
            continue
        most = max(row["steps"] for row in rows)
        rows = [row for row in rows if row["steps"] == most]
        part = np.linspace(0.0, 1.0, 101)
        lines = np.array([_along(row, part) for row in rows])
        values = (-10.0 * np.log10(lines / peak**2)).mean(0) if peak else np.exp(np.log(lines).mean(0))
        timed = result.get("step_seconds", {}).get(method)
        seconds = most * timed["median"] if timed else float(np.mean([row["seconds"] for row in rows]))
        for axis, extent in zip(axes[0], (most, seconds), strict=True):
            axis.plot(extent * part, values, label=method, linewidth=1.2)
    for axis, name in zip(axes[0], ("steps", "seconds"), strict=True):
        axis.set_xlabel(name)
        axis.set_ylabel("PSNR of what is learned, dB" if peak else "loss")
        axis.grid(alpha=0.3)
        if not peak:
            axis.set_yscale("log")
    axes[0][0].legend(fontsize=7)
    save_figure(figure, path)


def _along(row: dict[str, Any], part: np.ndarray) -> np.ndarray:
    """The losses of a run at parts of its steps; never quite 0."""
    steps, losses = np.array(row["curve"]).T
    return np.interp(part * row["steps"], steps, np.maximum(losses, 1e-12))


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as results: {error}") from error
    if not isinstance(result, dict) or not {"task", "score", "summary", "rows"} <= set(result):
        raise ValueError(f"{path} holds no results of a benchmark of fits")
    return result


def main(job: Report) -> None:
    """Runs it and says where the page is."""
    print(run(job))
