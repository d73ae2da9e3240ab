"""The held-out views of a run: all of them, or some that are spread evenly over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def spread(total: int, count: int) -> list[int]:
    """Returns up to `count` indices, spread evenly over `total`."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


class HeldOutViews:
    """Iterates over cameras and photos of an evaluation data loader, as the loader itself does.

    Args:
        loader: nerfstudio's loader of all held-out views, in a fixed order.
        count: Largest number of views. None: all of them.
        on_done: Called after each view with the number of views done, and that of all.

    Raises:
        ValueError: If `count` is not positive.
    """

    def __init__(
        self, loader: Any, count: int | None = None, on_done: Callable[[int, int], None] | None = None
    ) -> None:
        if count is not None and count < 1:
            raise ValueError(f"the number of views must be >= 1, got {count}")
        self.loader, self.on_done = loader, on_done
        held_out = list(loader.image_indices)
        self.indices = [held_out[i] for i in spread(len(held_out), len(held_out) if count is None else count)]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        for done, index in enumerate(self.indices, 1):
            yield self.loader.get_camera(index)
            if self.on_done is not None:
                self.on_done(done, len(self))
