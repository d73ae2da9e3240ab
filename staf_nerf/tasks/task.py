"""What a kind of signal is. Each other module of this folder defines one kind, as the object `TASK`.

A `Task` knows what holds for the kind: its settings, its metric, its field, what its numbers mean. A `Problem` is one
file of that kind, read and checked. The commands, checkpoints, evaluation, export and benchmarks know only these two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Generator, nn

from staf_nerf.metrics.image import psnr
from staf_nerf.signals.signal import Signal

if TYPE_CHECKING:
    from staf_nerf.progress import Stages

Metrics = dict[str, Any]
"""Numbers by name. None: the metric is not defined for this file."""
Figure = tuple[str, Path]
"""A caption, and a PNG file."""


@dataclass(frozen=True)
class NoOptions:
    """A kind of signal without settings for its results."""


@dataclass(frozen=True)
class Problem(ABC):
    """A file of some kind of signal, read and checked: what a field is fitted to, and what it is compared with."""

    file: Path
    config: Any
    """Settings of the fit."""
    frame: Any
    """What connects the file's numbers with the field's: raster, track or box. A dataclass of numbers and texts."""
    seed: int = 0
    """Random seed of what is drawn for the file, such as added noise."""

    @property
    @abstractmethod
    def lines(self) -> list[str]:
        """What was read, for the user."""

    @property
    def has_truth(self) -> bool:
        """Whether the file says what the result should be, so that metrics compare with the truth."""
        return True

    @abstractmethod
    def signal(self, device: torch.device | str) -> Signal:
        """Returns the signal that a field is fitted to."""

    @abstractmethod
    def field(self, generator: Generator | None = None) -> nn.Module:
        """Returns the field before the fit."""

    def validation(self, signal: Signal) -> Callable[[nn.Module], float] | None:
        """Returns the function that computes the validation loss on held-out data, or None without such data."""
        return None

    def epoch_metrics(self, device: torch.device | str) -> Callable[[nn.Module], dict[str, float]]:
        """Returns the function that computes metrics after each epoch.

        Raises:
            ValueError: If there is nothing to compare with, or no epoch.
        """
        raise ValueError(f"{self.file} has no metrics after each epoch")

    def check(self, field: nn.Module, options: Any) -> list[str]:
        """Checks the settings of a fit, before any work. `options` are those of the results.

        Returns:
            Warnings, one line each.

        Raises:
            ValueError: If a setting has no effect on this file.
        """
        return []

    @abstractmethod
    def evaluate(self, field: nn.Module, options: Any, *, device: torch.device | str) -> Metrics:
        """Compares a field with the file. `options` are the settings of the results."""

    @abstractmethod
    def write(
        self, field: nn.Module, output: Path, options: Any, stages: Stages, *, device: torch.device | str
    ) -> tuple[Metrics, list[Figure]]:
        """Writes what the field shows into a folder. Each result is a stage of its own that may fail.

        Returns:
            The metrics of `evaluate`, and the figures for the report.
        """

    def batch_key(self) -> Hashable | None:
        """Returns what files must share to be fitted at once, or None if this one is fitted alone."""
        return None


class Task(ABC):
    """A kind of signal."""

    name: ClassVar[str]
    """Its name on the command line, in presets and in files."""
    title: ClassVar[str]
    """Its name in headings, in the plural."""
    coordinates: ClassVar[int]
    """Number of coordinates that a field reads."""
    config: ClassVar[Any]
    """Settings of a fit, which presets change: a frozen dataclass."""
    options: ClassVar[Any] = NoOptions()
    """Settings of the results that a fit writes: a frozen dataclass."""
    metric: ClassVar[str]
    """The metric that benchmarks rank by. Higher is better."""
    digits: ClassVar[int] = 2
    """Number of decimal places of the metric in a table."""
    peak: ClassVar[float | None] = None
    """Range of the field's values, if the loss is a squared error that is shown as PSNR."""
    methods: ClassVar[tuple[str, ...]] = ()
    """Presets that a benchmark compares by default."""
    weights: ClassVar[int] = 198_915
    """Number of parameters in a benchmark by default."""
    missing: ClassVar[Mapping[str, str]] = {}
    """Text that is shown for each metric that may be None."""
    stacks: ClassVar[bool] = False
    """Whether several files can be fitted at once; see `stack`."""
    results: ClassVar[tuple[str, ...]] = ()
    """Names of the files that `Problem.write` may write."""

    @abstractmethod
    def read(self, file: Path, config: Any, *, seed: int = 0) -> Problem:
        """Reads a file.

        Raises:
            FileNotFoundError: If it does not exist.
            ValueError: If it is damaged, or of another kind. The message names the file.
        """

    @abstractmethod
    def frame(self, description: Mapping[str, Any]) -> Any:
        """Returns a frame from its JSON."""

    @abstractmethod
    def field(self, config: Any, frame: Any, *, generator: Generator | None = None) -> nn.Module:
        """Returns the field for a frame."""

    @abstractmethod
    def sizes(self) -> Any:
        """Returns a frame of the usual number of channels, to count the parameters of a configuration."""

    @abstractmethod
    def meaning(self, config: Any, frame: Any) -> tuple[str, str]:
        """Returns one sentence about the coordinates and one about the values, for files of other programs."""

    def shown_values(self, config: Any, frame: Any) -> tuple[float, float, str]:
        """Returns scale, offset and description of the values that a shader function gives: the field's, by default."""
        return 1.0, 0.0, f"Gives {self.meaning(config, frame)[1]}"

    def page(self, field: nn.Module, config: Any, frame: Any, title: str, **options: Any) -> str:
        """Returns an HTML page that shows the field.

        Raises:
            ValueError: If there is no page for the kind.
        """
        raise ValueError(f"--to html needs an image or a signed distance, got {self.name}; use --to onnx")

    def progress(self, losses: Mapping[str, float]) -> str:
        """Returns what a progress bar shows: the PSNR, or the loss. Files that are fitted at once give a range."""
        if self.peak is None:
            return f"loss {sum(losses.values()):.2e}"
        worst, best = (f"{psnr(chosen(losses.values()), self.peak):.2f}" for chosen in (max, min))
        return f"{best} dB" if len(losses) == 1 else f"{worst} to {best} dB"

    def stack(self, signals: Sequence[Any], *, seed: int) -> Signal:
        """Returns one signal for a `FieldStack`, for problems with equal `batch_key`."""
        raise NotImplementedError(f"{self.name} is fitted one file at a time")
