"""The data that a field can be fitted to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Generator, Tensor, nn


class Signal(ABC):
    """Base class of the data that `staf_nerf.fit` fits a field to."""

    samples: int | None = None
    """Number of samples in an epoch, in which each is drawn once. None: there is no such number."""

    @abstractmethod
    def batch(self, count: int, generator: Generator) -> Any:
        """Returns a batch of `count` points with their targets: a tensor (count, …) or a tuple of tensors."""

    @abstractmethod
    def losses(self, field: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Returns the losses by name, each a mean over the batch. Their sum is minimised."""

    def state(self) -> list[Tensor]:
        """Returns what must be known beside the generator to draw the same batches again, for `load_state`."""
        return []

    def load_state(self, state: list[Tensor]) -> None:
        """Restores a state, so that a resumed fit draws the batches that it would have drawn."""
        assert not state, f"{type(self).__name__} has no state"
