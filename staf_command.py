"""The command `staf`. It lies beside the package, so that Ctrl-C ends also the import of the package in one line."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Entry point of `staf`: imports the package, which takes a second or two, and runs the command."""
    before = signal.signal(signal.SIGINT, _leave)
    from staf_nerf.__main__ import main

    signal.signal(signal.SIGINT, before)
    main()


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at once. An exception would pass through libraries that are half imported; torch then aborts."""
    print("Interrupted", file=sys.stderr, flush=True)
    os._exit(130)
