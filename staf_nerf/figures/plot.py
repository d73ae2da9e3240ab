"""Figures that are drawn without a display, and written as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Returns a figure of that size in inches and its axes (rows, columns), drawn without a display.

    Its colour and line style cycle distinguishes 30 curves.
    """
    from matplotlib import color_sequences
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_prop_cycle(cycler(linestyle=("-", "--", ":")) * cycler(color=color_sequences["tab10"]))
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure in the format given by the file's suffix."""
    figure.savefig(path, dpi=110)
