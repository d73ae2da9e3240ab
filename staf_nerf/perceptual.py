"""LPIPS (Zhang et al., arXiv 1801.03924) where its network's weights are on the disk: nothing is ever downloaded."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import nn


@functools.cache
def load_lpips(device: torch.device | str = "cpu") -> nn.Module | None:
    """The distance of two images (1, 3, h, w) in [0, 1] by AlexNet, or None without its weights in torch's cache."""
    from torchvision.models import AlexNet_Weights

    name = Path(AlexNet_Weights.IMAGENET1K_V1.url).name
    if not Path(torch.hub.get_dir(), "checkpoints", name).is_file():
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
