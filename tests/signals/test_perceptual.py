"""LPIPS: there where its weights are, absent where they are not, and never a download."""

import numpy as np
import pytest
import torch
from torchvision.models import AlexNet_Weights, alexnet

from staf_nerf.metrics.image import measure_image
from staf_nerf.metrics.perceptual import load_lpips
from staf_nerf.signals.raster import Raster
from tests.signals.test_image import Lookup


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Where torch would keep AlexNet's weights; the network's cache is empty before and after."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    load_lpips.cache_clear()
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints" / AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    load_lpips.cache_clear()


def test_it_is_absent_without_its_weights(weights):
    assert load_lpips() is None
    (weights.parent / "alexnet-of-somebody.pth").write_bytes(b"")  # other weights would be a download
    load_lpips.cache_clear()
    assert load_lpips() is None


def test_images_have_it_where_its_weights_are(weights):
    torch.manual_seed(0)
    torch.save(alexnet().state_dict(), weights)
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    noise = random.integers(-40, 41, truth.shape)
    distances = [
        measure_image(Lookup(np.clip(truth + part * noise, 0, 255).astype(np.uint8)), Raster.of(truth), truth)["lpips"]
        for part in (0.0, 0.5, 1.0)
    ]
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert distances[0] < distances[1] < distances[2]
    grey = truth[..., :1]
    assert "lpips" not in measure_image(Lookup(grey), Raster.of(grey), grey)
