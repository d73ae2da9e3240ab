"""Uses what one extra brings, in an environment that holds nothing more. Called by check_extras.sh, in its order.

python tools/check_extra.py core|signals|export|mesh
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

LATER = {
    "core": ("tyro", "rich", "cv2", "scipy", "trimesh", "open3d", "nerfstudio", "onnx"),
    "signals": ("trimesh", "open3d", "nerfstudio", "onnx"),
    "export": ("trimesh", "open3d", "nerfstudio"),
    "mesh": ("nerfstudio", "onnx"),
}
"""Modules that must not be there yet."""

STAF = Path(sys.executable).with_name("staf")


def staf(*words: object) -> str:
    """Runs the command, which must succeed."""
    result = subprocess.run([STAF, *map(str, words)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"staf {words}: {result.stdout}{result.stderr}"
    return result.stdout


def refused(extra: str, *words: object) -> None:
    """Runs a command that must say in one line which extra it needs."""
    result = subprocess.run([STAF, *map(str, words)], capture_output=True, text=True, check=False)
    assert result.returncode != 0, words
    assert f'pip install "staf-nerf[{extra}]"' in result.stderr, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3, result.stderr


def core() -> None:
    import torch

    import staf_nerf
    from staf_nerf import STAF, CoordinateMLP, FitConfig, Signal, fit
    from staf_nerf.kernels import library

    assert library.why_absent() is None, library.why_absent()
    files = [Path(str(path.locate())) for path in distribution("staf-nerf").files or ()]
    size = sum(path.stat().st_size for path in files if path.is_file())
    print(f"staf-nerf {staf_nerf.__version__} takes {size / 2**20:.1f} MB")
    assert size < 5 * 2**20
    assert STAF(8, num_frequencies=3)(torch.zeros(2, 8)).shape == (2, 8)

    class Wave(Signal):
        """sin(9 x) on [-1, 1]."""

        def batch(self, count, generator):
            x = 2.0 * torch.rand(count, 1, generator=generator) - 1.0
            return x, (9.0 * x).sin()

        def losses(self, field, batch):
            x, y = batch
            return {"squared error": (field(x) - y).square().mean()}

    model = CoordinateMLP(1, 1, activation="staf", hidden_features=32, hidden_layers=2)
    history = fit(model, Wave(), FitConfig(steps=300, points=256))
    assert history.latest["squared error"] < 1e-2, history.latest
    refused("signals", "fit", "image", "photo.png")
    found = staf("doctor")
    assert "kernels on the CPU: good" in found, found
    assert found.endswith('The commands need rich and tyro. To get them: pip install "staf-nerf[signals]"\n'), found


def signals() -> None:
    import numpy as np
    import soundfile
    from PIL import Image

    y, x = np.mgrid[0:32, 0:40] / 40
    Image.fromarray((255 * np.stack([x, y, x * y], -1)).astype(np.uint8)).save("photo.png")
    soundfile.write("clip.wav", 0.5 * np.sin(np.arange(4000) / 20), 8000)
    for kind in ("image", "superres", "denoise"):
        staf("fit", kind, "photo.png", "--steps", 40)
    staf("fit", "audio", "clip.wav", "--steps", 40)
    staf("eval", "outputs/image/photo")
    staf("export", "outputs/image/photo", "--to", "html", "-o", "photo.html")
    assert json.loads(Path("outputs/image/photo/metrics.json").read_text())["metrics"]["psnr"] > 15
    Path("box.obj").write_text(BOX)
    refused("mesh", "fit", "shape", "box.obj", "--steps", 5)
    refused("export", "export", "outputs/image/photo", "--to", "onnx", "-o", "photo.onnx")


def export() -> None:
    staf("export", "outputs/image/photo", "--to", "onnx", "-o", "photo.onnx")
    assert Path("photo.onnx").stat().st_size > 1000


def mesh() -> None:
    staf("fit", "shape", "box.obj", "--steps", 60, "--resolution", 32)
    staf("mesh", "outputs/shape/box", "-o", "again.glb", "--resolution", 32)
    staf("compare", "again.glb", "box.obj", "--points", 2000)
    refused("nerf", "demo", "--steps", 1)


BOX = """\
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
f 1 3 2\nf 1 4 3\nf 5 6 7\nf 5 7 8\nf 1 2 6\nf 1 6 5\nf 2 3 7\nf 2 7 6\nf 3 4 8\nf 3 8 7\nf 4 1 5\nf 4 5 8
"""

if __name__ == "__main__":
    (extra,) = sys.argv[1:]
    there = [name for name in LATER[extra] if importlib.util.find_spec(name) is not None]
    assert not there, f"{extra} brings {there}"
    {"core": core, "signals": signals, "export": export, "mesh": mesh}[extra]()
    print(f"{extra}: good")
