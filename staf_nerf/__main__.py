"""The command `staf`: runs `staf_nerf.cli`, and shows errors that a user can fix in a few lines."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from staf_nerf.errors import debugging, explain


class Output:
    """Standard output that never ends a job: what can no longer be written to it is dropped.

    That is so when its reader has gone (`staf fit … | head`), or the disk that it goes to is full.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack a letter of a file's name

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Sends what comes from now on, and what is still buffered, nowhere."""
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _run() -> None:
    with _interrupted_at_once():
        if sys.argv[1:] == ["doctor"]:  # it tells what is missing, also where that is what reads the command line
            from staf_nerf.jobs.doctor import main as command
        else:
            from staf_nerf.cli import main as command
    command()


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Lets Ctrl-C end the process without an exception. It would pass through torch, half imported, which aborts."""
    before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    print("Interrupted", file=sys.stderr, flush=True)
    os._exit(130)


def main() -> None:
    """Runs the command that the command line names. With STAF_DEBUG=1 errors are shown with their traceback."""
    before, output = sys.stdout, Output(sys.stdout)
    sys.stdout = output  # pyright: ignore[reportAttributeAccessIssue]
    try:
        _run()
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None or debugging():
            raise
        sys.exit(f"staf: {message}")
    finally:
        output.flush()
        sys.stdout = before
    if output.error is not None and output.error.errno != errno.EPIPE:
        sys.exit(f"staf: done, but the standard output could not be written: {output.error.strerror}")


if __name__ == "__main__":
    main()
