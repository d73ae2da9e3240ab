"""Prints the tests that a run of pytest skipped, one a line, from its report.

pytest --junitxml=report.xml -o junit_family=xunit1
python tools/skipped.py report.xml | xargs -d "\\n" -r pytest
"""

from __future__ import annotations

import sys
from xml.etree import ElementTree

if __name__ == "__main__":
    (report,) = sys.argv[1:]
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            # The name of a class, where a test is in one, follows the module's.
            module = case.attrib["file"].removesuffix(".py").replace("/", ".")
            inside = case.attrib["classname"].removeprefix(module).strip(".").replace(".", "::")
            print("::".join(filter(None, (case.attrib["file"], inside, case.attrib["name"]))))
