"""The command `staf`: runs `staf_nerf.cli`, and shows errors that a user can fix in a few lines."""

from __future__ import annotations

import sys

from staf_nerf.errors import debugging, explain


def main() -> None:
    """Entry point of `staf`. With STAF_DEBUG=1 errors are shown with their traceback."""
    try:
        from staf_nerf import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None or debugging():
            raise
        sys.exit(f"staf: {message}")


if __name__ == "__main__":
    main()
