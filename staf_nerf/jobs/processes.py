"""The processes that `torchrun` started, which share the points of each file, or the files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """This process among all of them."""

    rank: int
    count: int
    joint: bool
    """Whether all processes work on the same file."""

    @property
    def writes(self) -> bool:
        """Whether this process writes results."""
        return self.rank == 0 or not self.joint

    @property
    def console(self) -> Console:
        """A console that prints in the first process only."""
        return Console(quiet=self.rank != 0)

    def share(self, files: Sequence[Path], folders: Sequence[Path]) -> list[tuple[Path, Path]]:
        """Returns the files of this process, with their folders."""
        pairs = list(zip(files, folders, strict=True))
        return pairs if self.joint else pairs[self.rank :: self.count]


@contextmanager
def processes(files: int) -> Iterator[Processes]:
    """Context that joins the processes of `torchrun`. With fewer files than processes all work on the same file."""
    count, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    joint = count == 1 or files < count
    if not joint or count == 1:
        yield Processes(rank, count, joint)
        return
    distributed.init_process_group("gloo")
    try:
        yield Processes(rank, count, joint)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
