"""The device that this machine computes on."""

from __future__ import annotations

from typing import Literal

import torch


def detect_device() -> Literal["cpu", "cuda", "mps"]:
    """Returns the device to train on: "cuda" or "mps" if available, otherwise "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
