"""Makes README's relative links and images absolute, for sites that show it without the files beside it.

    python tools/pypi_readme.py https://ADDRESS/OF/THE/FILES        # ends with the branch or tag, such as …/v0.2.0

It changes README.md (or `--file`) in place: run it in a checkout that is used for the release alone. Code is left as it
is, and so are links within the page. Images need the address that serves files as they are ("raw"), pages the one that
shows them: `--pages` names the second where they differ.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"""(?P<before>\]\(|<img\b[^>]*?\bsrc="|<a\b[^>]*?\bhref=")(?P<target>[^)\s"]+)""")
IMAGES = (".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp")


def absolute(text: str, files: str, pages: str) -> str:
    """The text with its relative targets behind an address: of images behind `files`, of pages behind `pages`."""

    def moved(found: re.Match[str]) -> str:
        target = found["target"]
        if re.match(r"#|[a-z]+:", target):  # in the page, or an address already
            return found[0]
        address = files if target.lower().endswith(IMAGES) else pages
        return f"{found['before']}{address.rstrip('/')}/{target.removeprefix('./')}"

    parts = CODE.split(text)  # code is every second part
    parts[::2] = [TARGET.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def main() -> None:
    """Entry point."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", help="address of the repository's files, which serves them as they are")
    parser.add_argument("--pages", help="address that shows them as pages; the same, if not given")
    parser.add_argument("--file", type=Path, default=Path(__file__).resolve().parent.parent / "README.md")
    arguments = parser.parse_args()
    text = arguments.file.read_text("utf-8")
    arguments.file.write_text(absolute(text, arguments.files, arguments.pages or arguments.files), "utf-8")


if __name__ == "__main__":
    main()
