"""A page that shows a field in a browser: an image at any magnification, or a signed distance with an orbiting camera.

One file without network access. It holds the weights (float32, exactly; bytes reordered so that they compress,
deflated, in base64), evaluates the network in WebGL 2 fragment shaders, a layer a pass, and compares the device's
values with torch's at points that come with it. Its parts lie in `templates/`.
"""

from __future__ import annotations

import base64
import copy
import html
import json
import zlib
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from staf_nerf.export.network import Floats, Layer, Network
from staf_nerf.export.templates import template
from staf_nerf.signals.image import Raster, render

Precision = Literal["float32", "float16"]

MOST_NUMBERS = 2**20
"""Of a network in a page: it costs as many multiplications a point, a screen has a million points, and the file then
has 5 MB."""
MOST_WIDTH = 1024
"""Neurons of a layer: a row of them lies in a texture of 4 a texel, and a batch of points in a few MB of such rows."""
MOST_LAYERS = 32
"""Layers, each of them a pass over all points."""
MOST_SINUSOIDS = 256
"""τ: the parameters of a layer are rows of a texture, 3 for each sinusoid."""
FEW = 16
"""Features that a layer may read and still be kept in float32 where others are not."""
CHECKED = 64
"""Points at which the page compares the device with torch."""
TOLERANCE = 2e-4
"""Difference from torch that the page accepts, in parts of the values' size, of at least 1. Sums of float32 in another
order differ by 1e-6 and the next layer's frequencies, about 30 radians per unit, multiply that, layer by layer."""
SCRIPTS = ("evaluator.js", "stage.js", "image.js", "shape.js", "page.js")
SHADERS = {
    "LAYER_SHADER": "layer.glsl",
    "IMAGE_SHADER": "image.glsl",
    "SHAPE_SHADER": "shape.glsl",
    "COPY_SHADER": "copy.glsl",
}

IMAGE_KEYS = {
    "drag, one finger, arrows": "move",
    "wheel, two fingers, + and -": "zoom, without end",
    "double click": "twice as large",
    "1": "one pixel of the screen for one of the image",
    "0": "all of the image",
    "b": "what the network says beyond the edges",
}
SHAPE_KEYS = {
    "drag, one finger, arrows": "turn",
    "right button, two fingers": "move",
    "wheel, two fingers, + and -": "nearer and farther",
    "double click": "turn about that place",
    "n": "normals as colours",
    "space": "turntable",
    "0": "the first view",
}


def image_page(
    network: Network, field: nn.Module, raster: Raster, title: str, *, precision: Precision = "float32"
) -> str:
    """A page for a fitted image.

    Args:
        network: The field's layers.
        field: The field itself, for the values that are compared.
        raster: What its values mean.
        title: Of the page.
        precision: Of the matrices; see `rounded`.

    Raises:
        ValueError: If the network is no image's or too large.
    """
    _check_size(network)
    if network.inputs != 2 or not 1 <= network.outputs <= 4:
        raise ValueError(f"an image has 2 coordinates and 1 to 4 channels, got {network.inputs} and {network.outputs}")
    image = {"width": raster.width, "height": raster.height, "corners": raster.corners, **_display(field, raster)}
    story = (
        f"This picture of {raster.width} x {raster.height} pixels is a neural network of {network.numbers:,} numbers, "
        "asked anew for each pixel of your screen."
    )
    return _page(network, field, title, {"kind": "image", "image": image}, story, IMAGE_KEYS, precision)


def shape_page(
    network: Network,
    field: nn.Module,
    bound: float,
    title: str,
    *,
    up: Literal["y", "z"] = "y",
    precision: Precision = "float32",
) -> str:
    """A page for a fitted signed distance.

    Args:
        network: The field's layers.
        field: The field itself, for the values that are compared.
        bound: The steepest slope of the field in [-1, 1]³: a value f says that the surface is at least f / bound away.
        title: Of the page.
        up: The axis that points up.
        precision: Of the matrices; see `rounded`.

    Raises:
        ValueError: If the network is no signed distance or too large, or the bound is not positive and finite.
    """
    _check_size(network)
    if network.inputs != 3 or network.outputs != 1:
        raise ValueError(f"a signed distance has 3 coordinates and 1 value, got {network.inputs} and {network.outputs}")
    if not 0 < bound < np.inf:
        raise ValueError(f"bound must be positive and finite, got {bound}")
    story = (
        f"This surface is where a neural network of {network.numbers:,} numbers, the distance to it, is zero. Rays are "
        "traced through the network as soon as the camera stands still; while it moves you see a grid of its values."
    )
    about = {"kind": "shape", "shape": {"bound": bound, "up": up}}
    return _page(network, field, title, about, story, SHAPE_KEYS, precision)


def rounded(network: Network) -> Network:
    """The network with the matrices of all layers that read more than FEW features in half precision.

    What reads coordinates stays in float32, and so do biases and sinusoids: they are few, and the arguments of the
    first layer's sines are large.
    """
    layers = [
        replace(layer, weight=layer.weight.astype(np.float16).astype(np.float32)) if _may_be_half(layer) else layer
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def _may_be_half(layer: Layer) -> bool:
    return layer.inputs > FEW


def largest_difference(network: Network, other: Network, *, points: int = 4096) -> tuple[float, float]:
    """The largest difference between two networks' values at random points, and the root mean square."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (points, network.inputs))
    difference = network.values(x) - other.values(x)
    return float(np.abs(difference).max()), float(np.sqrt((difference**2).mean()))


# --- parts -----------------------------------------------------------------------------------------------------------


def _check_size(network: Network) -> None:
    sizes = (
        ("numbers", network.numbers, MOST_NUMBERS, "a point costs as many multiplications, and a screen is a million"),
        ("neurons in a layer", network.width, MOST_WIDTH, "a batch of points would not fit into the textures"),
        ("layers", len(network.layers), MOST_LAYERS, "each is a pass over all points"),
        ("sinusoids", network.sinusoids, MOST_SINUSOIDS, "each is a row of a texture"),
    )
    for name, value, most, reason in sizes:
        if value > most:
            raise ValueError(f"a page takes at most {most:,} {name}, got {value:,}: {reason}; --to onnx has no limit")


def _display(field: nn.Module, raster: Raster) -> dict[str, float]:
    """How a value becomes a colour: (scale · value + offset) to the power of gamma, clipped to [0, 1].

    That of integers is the one of the file; floats are shown as `staf fit` shows them, up to their 99th percentile.
    """
    span = 1.0 - raster.floor
    if raster.dtype != "float32":
        return {"scale": 1.0 / span, "offset": -raster.floor / span, "gamma": 1.0}
    few = min(1.0, 256.0 / max(raster.width, raster.height))
    white = max(float(np.quantile(render(field, raster, scale=few), 0.99)), 1e-12)
    scale = (raster.high - raster.low) / span
    return {"scale": scale / white, "offset": (raster.low - raster.floor * scale) / white, "gamma": 1.0 / 2.2}


def _page(
    network: Network,
    field: nn.Module,
    title: str,
    about: dict[str, Any],
    story: str,
    keys: dict[str, str],
    precision: Precision,
) -> str:
    facts = f"{network.inputs} to {network.outputs} through layers of {_widths(network)}."
    kept = network
    if precision == "float16":
        kept = rounded(network)
        most, mean = largest_difference(network, kept)
        facts += f" Matrices are in half precision, off by {mean:.1e} (root mean square) and at most {most:.1e}."
    elif precision != "float32":
        raise ValueError(f"precision must be 'float32' or 'float16', got {precision!r}")
    packed, numbers = _packed(kept, half=precision == "float16")
    about |= {
        "layers": [_layer_facts(layer, half=precision == "float16") for layer in kept.layers],
        "sphere": None if kept.sphere is None else asdict(kept.sphere),
        "numbers": numbers,
        "check": _check(kept, field, exact=kept is network),
    }
    return _filled(
        {
            "title": html.escape(title),
            "story": html.escape(story),
            "facts": html.escape(facts),
            "keys": "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in keys.items()),
            "about": _in_script(about),
            "numbers": base64.b64encode(packed).decode(),
            "scripts": _scripts(),
        }
    )


def _filled(parts: dict[str, str]) -> str:
    page = template("page.html")
    for name, text in parts.items():
        assert f"{{{{{name}}}}}" in page
        page = page.replace(f"{{{{{name}}}}}", text)
    return page


def _in_script(value: Any) -> str:
    """JSON that may stand inside <script>: nothing in it ends the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _scripts() -> str:
    shaders = [f"const {name} = {_in_script(template(file))};" for name, file in SHADERS.items()]
    return "\n".join([*shaders, *(template(name) for name in SCRIPTS)])


def _widths(network: Network) -> str:
    return ", ".join(str(layer.outputs) for layer in network.layers[:-1]) or "no neurons"


def _layer_facts(layer: Layer, *, half: bool) -> dict[str, Any]:
    sinusoids = layer.sinusoids
    return {
        "inputs": layer.inputs,
        "outputs": layer.outputs,
        "kind": layer.kind,
        "straight": layer.straight,
        "scale": layer.scale,
        "terms": 0 if sinusoids is None else sinusoids.shape[1],
        "shared": sinusoids is None or sinusoids.shape[2] == 1,
        "half": half and _may_be_half(layer),
    }


def _packed(network: Network, *, half: bool) -> tuple[bytes, dict[str, int]]:
    """All numbers, deflated: matrices in half precision, the other matrices, and of each layer bias and sinusoids."""
    groups: dict[str, list[Floats]] = {"half": [], "full": [], "others": []}
    for layer in network.layers:
        groups["half" if half and _may_be_half(layer) else "full"].append(layer.weight.ravel())
        groups["others"] += [layer.bias, *([] if layer.sinusoids is None else [layer.sinusoids.ravel()])]
    joined = {name: np.concatenate([np.zeros(0, np.float32), *parts]) for name, parts in groups.items()}
    raw = b"".join(_shuffled(values.astype("<f2" if name == "half" else "<f4")) for name, values in joined.items())
    return zlib.compress(raw, 9), {name: len(values) for name, values in joined.items()}


def _shuffled(values: np.ndarray) -> bytes:
    """The first bytes of all numbers, then the second ones, …: exponents repeat themselves."""
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _check(network: Network, field: nn.Module, *, exact: bool) -> dict[str, Any]:
    """Points, and the values there in double precision: torch's, or of a rounded network those of its numbers."""
    points = np.random.default_rng(1).uniform(-1.0, 1.0, (CHECKED, network.inputs)).astype(np.float32)
    if exact:
        with torch.no_grad():
            values = copy.deepcopy(field).double()(torch.from_numpy(points).double()).numpy()
    else:
        values = network.values(points)
    size = max(1.0, float(np.abs(values).max()))
    return {
        "points": points.ravel().tolist(),
        "values": values.ravel().tolist(),
        "channels": network.outputs,
        "tolerance": TOLERANCE * size,
    }
