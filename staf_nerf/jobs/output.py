"""The output folder of a job, and the HTML report in it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.4rem; }} figure {{ margin: 1.5rem 0; }} figcaption {{ color: #666; }}
img {{ max-width: 100%; height: auto; }} td {{ padding: .1rem 1.5rem .1rem 0; }}
pre {{ background: #f5f5f5; padding: 1rem; overflow: auto; font-size: 12px; }}
</style>
<h1>{title}</h1>
<table>{rows}</table>
{figures}
<h2>Settings</h2><pre>{settings}</pre>
</html>
"""


def check_folder(path: Path, *, overwrite: bool = False) -> None:
    """Refuses an output folder that has contents, or is a file.

    Raises:
        FileExistsError: If it is not empty and `overwrite` is not set, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"output must be a folder, {path} is a file")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise FileExistsError(f"{path} contains results already; --overwrite replaces them")


def prepare_folder(path: Path, *, overwrite: bool = False) -> None:
    """Creates the output folder, before any work is done.

    Raises:
        FileExistsError: If it is not empty and `overwrite` is not set, or is a file.
        OSError: If it cannot be created or written to.
    """
    check_folder(path, overwrite=overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to the folder {path}: {error.strerror}") from error


def write_whole(path: Path, text: str) -> None:
    """Writes a text file beside its place and moves it there when it is whole.

    Raises:
        OSError: If it cannot be written. The message names the file, and an older one is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def write_json(result: Mapping[str, Any], output: Path | None) -> None:
    """Writes JSON to a file, or to the screen if there is none.

    Raises:
        OSError: If the file cannot be written.
    """
    text = json.dumps(result, indent=1, ensure_ascii=False, default=str)
    if output is None:
        print(text)
    else:
        write_whole(output, text + "\n")


def write_page(
    path: Path,
    title: str,
    measures: Mapping[str, str],
    figures: Sequence[tuple[str, Path]],
    settings: Mapping[str, Any],
) -> None:
    """Writes a self-contained HTML page with metrics, figures (PNG) with captions, and settings."""
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in measures.items())
    shown = "\n".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.read_bytes()).decode()}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, picture in figures
    )
    text = html.escape(json.dumps(settings, indent=1))
    page = PAGE.format(title=html.escape(title), rows=rows, figures=shown, settings=text)
    write_whole(path, page)


def shown(found: Mapping[str, Any], missing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the metrics of a fit (the content of `metrics.json`) as rows of text.

    Args:
        found: The content of `metrics.json`.
        missing: Text for each metric that may be None.
    """
    rows = {"weights": f"{found['parameters']:,}", "steps": f"{found['steps']:,}"}
    rows["seconds of training"] = f"{found['seconds']['fitting']:.1f}"
    return rows | metric_rows(found["metrics"], missing)


def metric_rows(metrics: Mapping[str, Any], missing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns metrics as rows of text: numbers with five digits."""
    texts = {}
    for name, value in metrics.items():
        values = value if isinstance(value, list | tuple) else [value]
        numbers = ", ".join(f"{v:.5g}" if isinstance(v, float) else str(v) for v in values)
        texts[name.replace("_", " ")] = (missing or {}).get(name, "-") if value is None else numbers
    return texts


def metrics_table(title: str, rows: Mapping[str, str]) -> Table:
    """Returns the table of metrics that is printed on screen."""
    table = Table("metric", "value", title=escape(title))
    for name, value in rows.items():
        table.add_row(name, value)
    return table
