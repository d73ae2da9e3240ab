"""`staf check`: what a capture holds, what is wrong with it, what training on it will cost, and what to run next."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional, arg

from staf_nerf.captures.capture import Capture, Photo
from staf_nerf.captures.drawing import draw, scene_of, write_page
from staf_nerf.captures.load import READERS, load
from staf_nerf.captures.masks import read_mask, threshold
from staf_nerf.captures.quality import Quality, measure_quality
from staf_nerf.captures.region import NO_DEPTH, RegionOfInterest, describe, region_of_interest
from staf_nerf.jobs.output import prepare_folder, write_json
from staf_nerf.progress import Cost, Stages

FILES = ("cameras.png", "cameras.html", "check.json")
"""What is written."""
NAMED = 5
"""Largest number of files that are named in a row."""


@dataclass(frozen=True)
class Check:
    """Settings of a check."""

    data: Annotated[Positional[Path], arg(metavar="CAPTURE")]
    """Folder of the capture, or its file with the poses."""
    output: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Folder for pictures of the cameras and for check.json. By default outputs/check/NAME-OF-THE-CAPTURE."""
    method: str = "staf-nerf"
    """Method whose cost is measured and whose command is printed."""
    cost: bool = True
    """Train for some seconds to measure what the whole training will cost."""


def check_capture(job: Check, console: Console | None = None) -> dict[str, Any]:
    """Checks a capture, prints what is found, and writes cameras.png, cameras.html and check.json.

    Returns:
        The content of check.json.

    Raises:
        CaptureError: If the capture cannot be used. The message says what is wrong and how to mend it.
        OSError: If the output cannot be written.
    """
    console = console or Console()
    data = job.data.expanduser().absolute()
    folder = job.output or Path("outputs/check") / data.stem
    cost: Cost | None = None
    with Stages(console) as stages:
        with stages("photos"):
            capture = load(data)
            region = region_of_interest(capture)
            quality = measure_quality(capture.photos)
            used = _used(capture.photos)
        prepare_folder(folder, overwrite=True)
        with stages.attempt("pictures"):
            _draw(folder, data.stem, capture, region, quality)
        if job.cost:
            with stages.attempt("cost"):
                cost = _measure_cost(job.method, data)
    found = _found(data, capture, region, quality, used, cost)
    console.print(_table(capture, region, quality, used, cost))
    no_depth = [NO_DEPTH] if region.cameras == "one place" else []
    for note in (*no_depth, *capture.notes):
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    with stages.attempt("check.json"):
        write_json(found, folder / "check.json")
    written = [folder / name for name in FILES if (folder / name).is_file()]
    console.print(f"Written: {', '.join(map(str, written))}", markup=False, soft_wrap=True)
    console.print(f"Next: ns-train {job.method} --data {shlex.quote(str(data))}", markup=False, soft_wrap=True)
    stages.refuse_failures()
    return found


def _measure_cost(method: str, data: Path) -> Cost:
    from staf_nerf.plugin.trial import measure_cost

    return measure_cost(method, data)


def _draw(folder: Path, title: str, capture: Capture, region: RegionOfInterest, quality: Quality) -> None:
    """Writes the pictures of the cameras. Those of odd photos are red."""
    scene = scene_of(
        capture.photos, capture.points, center=region.center, radius=region.radius, upright=capture.upright
    )
    marked = frozenset(path.name for path in (*quality.blurred, *quality.dark, *quality.bright))
    draw(scene, folder / "cameras.png", marked=marked)
    write_page(scene, capture.photos, folder / "cameras.html", title=title, marked=marked)


def _used(photos: Sequence[Photo]) -> float | None:
    """Returns the part of the pixels that masks leave, over the photos that have one. None: no photo has one.

    Raises:
        CaptureError: If a mask cannot be used.
    """
    masked = [photo for photo in photos if photo.mask is not None]
    if not masked:
        return None
    least = threshold([photo.mask for photo in masked if photo.mask is not None])

    def part(photo: Photo) -> float:
        assert photo.mask is not None
        size = photo.camera.width, photo.camera.height
        return float(read_mask(photo.mask, size, least=least, orientation=photo.orientation).mean() / 255)

    with ThreadPoolExecutor() as pool:
        return float(np.mean(list(pool.map(part, masked))))


def _found(
    data: Path, capture: Capture, region: RegionOfInterest, quality: Quality, used: float | None, cost: Cost | None
) -> dict[str, Any]:
    """Returns the content of check.json."""
    return {
        "capture": str(data),
        "format": capture.kind,
        "photos": len(capture.photos),
        "sizes": [[*size, count] for size, count in _sizes(capture.photos).most_common()],
        "cameras": dict(_lenses(capture.photos)),
        "masks": sum(photo.mask is not None for photo in capture.photos),
        "pixels_used": used,
        "transparent": sum(photo.has_alpha for photo in capture.photos),
        "missing": [str(path) for path in capture.dropped],
        "splits": {split: len(images) for split, images in capture.splits.items()},
        "sparse_points": 0 if capture.points is None else len(capture.points.positions),
        "region": dataclasses.asdict(region),
        "quality": dataclasses.asdict(quality),
        "training": None if cost is None else dataclasses.asdict(cost),
        "notes": list(capture.notes),
    }


def _table(
    capture: Capture, region: RegionOfInterest, quality: Quality, used: float | None, cost: Cost | None
) -> Table:
    table = Table(title="staf check", show_header=False)
    for name, text in _rows(capture, region, quality, used, cost).items():
        table.add_row(name, escape(text))
    return table


def _rows(
    capture: Capture, region: RegionOfInterest, quality: Quality, used: float | None, cost: Cost | None
) -> dict[str, str]:
    """Returns what is printed: a name and a text each."""
    photos = capture.photos
    masks, transparent = (
        sum(flags) for flags in zip(*((p.mask is not None, p.has_alpha) for p in photos), strict=True)
    )
    splits = ", ".join(f"{split} {len(images)}" for split, images in capture.splits.items())
    pairs = [f"{a.name} and {b.name}" for a, b in quality.same]
    rows = {
        "photos": f"{len(photos)}, {_counted(f'{w}x{h}' for w, h in _sizes(photos).elements())}",
        "format": READERS[capture.kind].FILES,
        "cameras": _counted(_lenses(photos).elements()),
        "masks": "none"
        if used is None
        else f"{masks} of {len(photos)} photos; {100 * used:.0f} % of their pixels count",
        "transparency": f"{transparent} of {len(photos)} photos" if transparent else "",
        "missing": _named([path.name for path in capture.dropped]),
        "splits": splits or "none listed: a tenth is held out",
        "sparse points": f"{len(capture.points.positions):,}" if capture.points is not None else "none",
        "region": describe(region),
        "blurred": _named([path.name for path in quality.blurred]),
        "too dark": _named([path.name for path in quality.dark]),
        "too bright": _named([path.name for path in quality.bright]),
        "the same twice": _named(pairs),
        "training": "" if cost is None else _cost_text(cost),
    }
    return {name: text for name, text in rows.items() if text}


def _sizes(photos: Sequence[Photo]) -> Counter[tuple[int, int]]:
    return Counter((photo.camera.width, photo.camera.height) for photo in photos)


def _lenses(photos: Sequence[Photo]) -> Counter[str]:
    """Returns the projection and the distortion of cameras, with their numbers."""
    return Counter(_lens(photo) for photo in photos)


def _lens(photo: Photo) -> str:
    distorted = sorted(name for name, value in photo.camera.distortion.items() if np.any(value))
    return f"{photo.camera.lens}, distortion {' '.join(distorted)}" if distorted else photo.camera.lens


def _counted(texts: Iterable[str]) -> str:
    """Returns different texts, with their numbers if they are several."""
    counts = Counter(texts).most_common()
    return counts[0][0] if len(counts) == 1 else "; ".join(f"{count} {text}" for text, count in counts[:NAMED])


def _named(names: Sequence[str]) -> str:
    """Returns the number of files and the names of the first. Nothing if there are none."""
    more = ", …" if len(names) > NAMED else ""
    return f"{len(names)}: {', '.join(names[:NAMED])}{more}" if names else ""


def _cost_text(cost: Cost) -> str:
    memory = "" if cost.peak_memory_bytes is None else f", {cost.peak_memory_bytes / 1e9:.1f} GB of memory"
    minutes = cost.seconds / 60
    time = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{cost.seconds:.0f} seconds"
    return f"about {time} here ({cost.steps} steps of {1000 * cost.seconds_per_step:.0f} ms){memory}"
