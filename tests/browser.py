"""A real browser for tests: headless Chromium, without a graphics card, through its debugging protocol."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WAIT = 180.0
"""Seconds for Chromium, without a GPU, to load the page and show a picture."""


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def wait_for(
    condition: Callable[[], Any], seconds: float = WAIT, what: str | Callable[[], str] = "the condition"
) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, KeyError, IndexError):
            if result := condition():
                return result
        time.sleep(0.1)
    pytest.fail(f"waited {seconds:.0f} s for {what() if callable(what) else what}")


class Browser:
    """Headless Chromium through its debugging protocol."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        import websocket

        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            pytest.skip("Chromium is not installed")
        port = free_port()
        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
             "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", f"--user-data-dir={folder}", "--window-size=900,600", "--remote-allow-origins=*",
             f"--remote-debugging-port={port}", *options, url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def page():
            pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5).read())
            return next(iter([p for p in pages if p["type"] == "page"]), None)

        self.socket = websocket.create_connection(wait_for(page, what="Chromium")["webSocketDebuggerUrl"], timeout=WAIT)
        self.count = 0

    def ask(self, method: str, **parameters):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.count:
            pass
        return answer["result"]

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what its promise resolves to."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def resize(self, width: int, height: int, ratio: float = 1.0) -> None:
        """Makes the page's window so large, in its own pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=False
        )

    def open(self, url: str) -> None:
        """Loads another page."""
        self.ask("Page.navigate", url=url)

    def picture(self, **clip: float) -> np.ndarray:
        """What the page shows, or a part of it (x, y, width, height), (rows, columns, 3) uint8."""
        options = {"clip": {**clip, "scale": 1}} if clip else {}
        png = base64.b64decode(self.ask("Page.captureScreenshot", **options)["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def scene(self, aspect: float) -> np.ndarray:
        """What the page shows of its scene: the canvas, as wide as the camera says; the controls cover the rest."""
        box = json.loads(self.run("JSON.stringify(document.querySelector('canvas').getBoundingClientRect())"))
        shown = self.picture(**{name: box[name] for name in ("x", "y", "width", "height")}).astype(np.float32) / 255.0
        return shown[:, : round(shown.shape[0] * aspect)]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.socket.close()
        self.process.terminate()
        self.process.wait(20)
