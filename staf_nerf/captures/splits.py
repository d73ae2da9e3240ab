"""Which photos a capture holds out: the lists of its files, made whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.files import counted
from staf_nerf.captures.locate import is_image

Splits = dict[str, tuple[Path, ...]]


def complete_splits(
    listed: Mapping[str, Sequence[Path]], files: Mapping[Path, Path], absent: Iterable[Path], source: Path
) -> tuple[Splits, list[str]]:
    """Returns the photos of each split, and notes on what had to be replaced.

    A name in a list means the photo that is listed by it. It may lack the suffix or the folder, differ in case, or be a
    path of another machine.
    Training needs all three splits or none. "val" and "test" stand in for each other, and "train" is what is in no
    other list. Without photos to evaluate on there are no splits.

    Args:
        listed: The lists. Those that the files do not have are absent, and a list may be empty.
        files: The photos that exist, by their listed paths.
        absent: Listed paths of photos that do not exist.
        source: The file or folder with the lists, for messages.

    Raises:
        CaptureError: If there is a list of training photos, and no photo remains to train on.
    """
    names = _Names(files, absent, source if source.is_dir() else source.parent)
    found = {split: names.photos(paths) for split, paths in listed.items()}
    notes = [
        f"The list of {split} photos in {source.name} has {counted(unknown, 'name')} of no photo."
        for split, paths in listed.items()
        if (unknown := sum(not names.is_known(path) for path in paths))
    ]
    held_out = found.get("test") or found.get("val") or ()
    train = found.get("train") or ()
    if not held_out:
        lists = [split for split in ("val", "test") if split in listed]
        if lists:
            notes.append(f"No photo of the {' or '.join(lists)} split exists: a fraction of all photos is held out.")
        return {}, notes
    if not train:
        excluded = {*found.get("val", ()), *found.get("test", ())}
        train = tuple(dict.fromkeys(file for file in files.values() if file not in excluded))
        if not train and "train" in listed:
            raise CaptureError(
                f"none of the {len(listed['train'])} photos of the train split of {source} exists.\n"
                "Complete the download, or remove the list so that a fraction of all photos is held out."
            )
        if not train:
            return {}, [*notes, "All photos are in the val or test split: a fraction of them is held out."]
        notes.append(
            f"No photo of a train split exists: the {len(train)} photos that are in no other split replace it."
        )
    for split, other in (("val", "test"), ("test", "val")):
        if split in listed and not found[split]:
            notes.append(f"No photo of the {split} split exists: the {other} split stands in for it.")
    return {"train": train, "val": found.get("val") or held_out, "test": found.get("test") or held_out}, notes


class _Names:
    """Finds the photos that names in a list mean."""

    def __init__(self, files: Mapping[Path, Path], absent: Iterable[Path], folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, Path | None] = dict.fromkeys(absent)
        self._files |= {**files, **{file: file for file in files.values()}}
        self._by_stem: dict[str, list[Path]] = {}
        for path in self._files:
            self._by_stem.setdefault(_stem(_parts(path)), []).append(path)

    def photos(self, paths: Iterable[Path]) -> tuple[Path, ...]:
        """Returns the photos that exist, each once."""
        found = (self._files[known] for path in paths if (known := self._known(path)) is not None)
        return tuple(dict.fromkeys(file for file in found if file is not None))

    def is_known(self, path: Path) -> bool:
        """Returns whether a name means a listed photo, which may not exist."""
        return self._known(path) is not None

    def _known(self, path: Path) -> Path | None:
        if path in self._files:
            return path
        parts = _parts(path)
        least = 0 if _parts(path.parent) == _parts(self._folder) else 1
        same = [(_common(parts, _parts(other)), other) for other in self._by_stem.get(_stem(parts), [])]
        most = max((common for common, _ in same), default=-1)
        best = {self._files[other] or other: other for common, other in same if common == most}
        return next(iter(best.values())) if most >= least and len(best) == 1 else None


def _parts(path: Path) -> tuple[str, ...]:
    return PureWindowsPath(str(path).lower()).parts


def _stem(parts: Sequence[str]) -> str:
    """Returns the name of an image without its suffix."""
    name = Path(parts[-1]) if parts else Path()
    return name.stem if is_image(name) else name.name


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Returns how many folders before the name two paths have in common."""
    pairs = zip(reversed(a[:-1]), reversed(b[:-1]), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)) - 1)
