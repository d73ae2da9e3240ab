"""Results of the benchmarks of fits and radiance fields, as a Markdown page with plots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from staf_nerf.bench import nerf, signals
from staf_nerf.bench.summary import summarize
from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.migrations import migrate_results
from staf_nerf.tasks import find_task


@dataclass(frozen=True)
class Report:
    """Makes tables and plots from the JSON files of `staf bench image` (audio, shape, …) and `staf bench nerf`."""

    files: Positional[tuple[Path, ...]]
    """JSON files with results."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("report")
    """Output folder for report.md and its plots."""


def write_report(job: Report) -> Path:
    """Writes the page and returns its path.

    Raises:
        ValueError: If a file does not contain such results.
    """
    if not job.files:
        raise ValueError("files must name at least one file of results, got none")
    results = {path: _read(path) for path in job.files}
    job.output.mkdir(parents=True, exist_ok=True)
    lines = ["# Results", ""]
    for path, result in results.items():
        picture = job.output / f"{path.stem}.png"
        lines += [f"## {path.stem}", "", *table(result), "", f"![PSNR against steps and seconds]({picture.name})", ""]
        draw_curves(picture, result) if "task" in result else draw_views(picture, result)
        lines += [footer(result), ""]
    page = job.output / "report.md"
    page.write_text("\n".join(lines), encoding="utf-8")
    return page


def table(result: dict[str, Any]) -> list[str]:
    """Returns the lines of a Markdown table with one row per method and budget, best first."""
    if "task" in result:
        columns = [result["metric"] if name == "metric" else name for name in signals.COLUMNS]
        rows = signals.table_rows(result)
    else:
        columns, rows = list(nerf.COLUMNS), nerf.table_rows(result)
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def footer(result: dict[str, Any]) -> str:
    """Returns the settings, versions and machines that are needed to repeat the measurement."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rows = result["rows"]
    subjects = sorted({row["file"] if "task" in result else f"the views of {row['data']}" for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    commits = sorted({row.get("commit") or "unknown" for row in rows})
    machines = sorted({_machine(row, result) for row in rows})
    return (
        f"Mean over {', '.join(subjects)} and seeds {', '.join(map(str, seeds))}, ± deviation over seeds; final "
        f"weights. `{result['command']}`; commit {', '.join(commits)}; {versions}; {'; '.join(machines)}."
    )


def _machine(row: dict[str, Any], result: dict[str, Any]) -> str:
    """Returns the machine of a run, as recorded in its row or else in the file."""
    device = f", {row['device']}" if row.get("device", "cpu") != "cpu" else ""
    return f"{row.get('cpu') or result.get('cpu') or result['machine']}{device}, {row['threads']} threads"


def draw_views(path: Path, result: dict[str, Any]) -> None:
    """Plots PSNR of held-out views over steps and seconds of training, one point per budget."""
    figure, axes = new_figure(1, 2, (12.0, 4.5))
    entries = summarize(result["rows"], nerf.GROUPING)
    for axis, name in zip(axes[0], ("steps", "seconds"), strict=True):
        for method in dict.fromkeys(entry["method"] for entry in entries):
            budgets = [entry for entry in entries if entry["method"] == method]
            deviations = [entry["psnr_std"] or 0.0 for entry in budgets]
            costs, psnrs = ([entry[key] for entry in budgets] for key in (name, "psnr"))
            axis.errorbar(costs, psnrs, yerr=deviations, marker="o", label=method, linewidth=1.2, capsize=3)
        axis.set_xlabel(name)
        axis.set_ylabel("PSNR of held-out views, dB")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    save_figure(figure, path)


def draw_curves(path: Path, result: dict[str, Any]) -> None:
    """Plots PSNR of the training points (for shapes: the loss) over steps and seconds, one curve per method.

    A curve is the mean over files and seeds at the largest budget. Seconds come from the timings of steps where there
    are any, otherwise from the runs themselves.
    """
    figure, axes = new_figure(1, 2, (12.0, 4.5))
    peak = find_task(result["task"]).peak
    for method in dict.fromkeys(row["method"] for row in result["summary"]):
        rows = [row for row in result["rows"] if row["method"] == method and "curve" in row]
        if not rows:
            continue
        most = max(row["steps"] for row in rows)
        rows = [row for row in rows if row["steps"] == most]
        fraction = np.linspace(0.0, 1.0, 101)
        losses = np.array([_losses_at(row, fraction) for row in rows])
        values = (-10.0 * np.log10(losses / peak**2)).mean(0) if peak else np.exp(np.log(losses).mean(0))
        timed = result.get("step_seconds", {}).get(method)
        seconds = most * timed["median"] if timed else float(np.mean([row["seconds"] for row in rows]))
        for axis, extent in zip(axes[0], (most, seconds), strict=True):
            axis.plot(extent * fraction, values, label=method, linewidth=1.2)
    for axis, name in zip(axes[0], ("steps", "seconds"), strict=True):
        axis.set_xlabel(name)
        axis.set_ylabel("PSNR of training points, dB" if peak else "loss")
        axis.grid(alpha=0.3)
        if not peak:
            axis.set_yscale("log")
    if axes[0][0].lines:
        axes[0][0].legend(fontsize=7)
    save_figure(figure, path)


def _losses_at(row: dict[str, Any], fraction: np.ndarray) -> np.ndarray:
    """Returns the losses of a run at fractions of its steps, at least 1e-12."""
    steps, losses = np.array(row["curve"]).T
    return np.interp(fraction * row["steps"], steps, np.maximum(losses, 1e-12))


def _read(path: Path) -> dict[str, Any]:
    try:
        result = migrate_results(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read results from {path}: {error}") from error
    rows = result.get("rows", []) if isinstance(result, dict) else []
    is_of_fits = rows and {"task", "metric", "summary"} <= set(result)
    if not (is_of_fits or (rows and all({"data", "psnr", "budget"} <= set(row) for row in rows))):
        raise ValueError(f"{path} contains no results of `staf bench` for fits or radiance fields")
    return result


def main(job: Report) -> None:
    """Writes the report and prints its path."""
    print(write_report(job))
