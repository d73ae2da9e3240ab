"""LPIPS (Zhang et al., arXiv 1801.03924), if its weights are on the disk. Nothing is downloaded."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn


def weights_file() -> Path:
    """Where torch's cache holds the weights of AlexNet, if it does."""
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir(), "checkpoints", Path(AlexNet_Weights.IMAGENET1K_V1.url).name)


@functools.cache
def load_lpips(device: torch.device | str = "cpu") -> nn.Module | None:
    """Returns LPIPS (AlexNet) for images (1, 3, h, w) in [0, 1], or None without its weights in torch's cache."""
    if find_spec("torchvision") is None or not weights_file().is_file():
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
