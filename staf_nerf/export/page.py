"""Export of a field as an HTML page: an image at any magnification, or a signed distance with an orbiting camera.

The page is one file and needs no network access. It contains the weights (bytes reordered to compress better, deflated,
in base64), evaluates the network in WebGL 2 fragment shaders with one pass per layer, and compares the device's values
with torch's at some points. Its parts are in `templates/`.
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
from staf_nerf.signals.raster import Raster, render

Precision = Literal["float32", "float16"]

MOST_NUMBERS = 2**20
"""Largest number of parameters of a network in a page. Each is a multiplication per point, a screen has a million
points, and the file then has 5 MB."""
MOST_WIDTH = 1024
"""Largest number of neurons of a layer. Their values must fit into the textures."""
MOST_LAYERS = 32
"""Largest number of layers. Each is a render pass over all points."""
MOST_SINUSOIDS = 256
"""Largest τ. The parameters of a layer are rows of a texture, 3 for each sinusoid."""
FEW = 16
"""Layers with at most this many inputs stay in float32 if others are rounded to half precision."""
CHECKED = 64
"""Number of points at which the page compares the device's values with torch's."""
TOLERANCE = 2e-4
"""Largest accepted difference from torch, relative to the size of the values (at least 1).
Sums of float32 in a different order differ by 1e-6, and the frequencies of each layer, about 30, multiply this."""
SCRIPTS = ("evaluator.js", "stage.js", "image.js", "shape.js", "page.js")
SHADERS = {
    "LAYER_SHADER": "layer.glsl",
    "IMAGE_SHADER": "image.glsl",
    "SHAPE_SHADER": "shape.glsl",
    "COPY_SHADER": "copy.glsl",
}

IMAGE_KEYS = {
    "drag, one finger, arrows": "move",
    "wheel, two fingers, + and -": "zoom without limit",
    "double click": "zoom in by a factor of 2",
    "1": "one screen pixel per image pixel",
    "0": "the whole image",
    "b": "show the network beyond the edges",
}
SHAPE_KEYS = {
    "drag, one finger, arrows": "rotate",
    "right button, two fingers": "move",
    "wheel, two fingers, + and -": "zoom",
    "double click": "rotate around that point",
    "n": "show normals as colours",
    "space": "turntable",
    "0": "initial view",
}


def image_page(
    network: Network, field: nn.Module, raster: Raster, title: str, *, precision: Precision = "float32"
) -> str:
    """Returns a page for a fitted image.

    Args:
        network: The layers of the field.
        field: The field itself, for the comparison of values.
        raster: Size and range of the image.
        title: Title of the page.
        precision: Precision of the matrices; see `rounded`.

    Raises:
        ValueError: If the network is too large, or is not that of an image.
    """
    _check_size(network)
    if network.inputs != 2 or not 1 <= network.outputs <= 4:
        raise ValueError(
            f"an image needs 2 coordinates and 1 to 4 channels, got {network.inputs} and {network.outputs}"
        )
    image = {"width": raster.width, "height": raster.height, "corners": raster.align_corners, **_display(field, raster)}
    story = (
        f"This image of {raster.width} x {raster.height} pixels is a neural network of {network.numbers:,} parameters, "
        "evaluated for each pixel of your screen."
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
    """Returns a page for a fitted signed distance.

    Args:
        network: The layers of the field.
        field: The field itself, for the comparison of values.
        bound: The steepest slope of the field in [-1, 1]³. The surface is at least f / bound away from a point with
            value f.
        title: Title of the page.
        up: The axis that points up.
        precision: Precision of the matrices; see `rounded`.

    Raises:
        ValueError: If the network is too large or not a signed distance, or the bound is not positive and finite.
    """
    _check_size(network)
    if network.inputs != 3 or network.outputs != 1:
        raise ValueError(
            f"a signed distance needs 3 coordinates and 1 value, got {network.inputs} and {network.outputs}"
        )
    if not 0 < bound < np.inf:
        raise ValueError(f"bound must be positive and finite, got {bound}")
    story = (
        f"This surface is the zero level set of a signed distance, a neural network of {network.numbers:,} parameters. "
        "Rays are traced through the network when the camera stands still. Until then you see a grid of its values."
    )
    about = {"kind": "shape", "shape": {"bound": bound, "up": up}}
    return _page(network, field, title, about, story, SHAPE_KEYS, precision)


def rounded(network: Network) -> Network:
    """Returns the network with matrices rounded to half precision, except for layers with few inputs.

    Layers that read coordinates, biases and sinusoids stay in float32: they are small, and the arguments of the first
    layer's sines are large.
    """
    layers = [
        replace(layer, weight=layer.weight.astype(np.float16).astype(np.float32)) if _may_be_half(layer) else layer
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def _may_be_half(layer: Layer) -> bool:
    return layer.inputs > FEW


def largest_difference(network: Network, other: Network, *, points: int = 4096) -> tuple[float, float]:
    """Returns the largest and the root mean square difference of two networks' values at random points."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (points, network.inputs))
    difference = network.values(x) - other.values(x)
    return float(np.abs(difference).max()), float(np.sqrt((difference**2).mean()))


# --- parts -----------------------------------------------------------------------------------------------------------


def _check_size(network: Network) -> None:
    sizes = (
        ("parameters", network.numbers, MOST_NUMBERS, "each is a multiplication for every pixel of the screen"),
        ("neurons in a layer", network.width, MOST_WIDTH, "their values would not fit into the textures"),
        ("layers", len(network.layers), MOST_LAYERS, "each is a render pass over all points"),
        ("sinusoids", network.sinusoids, MOST_SINUSOIDS, "each is a row of a texture"),
    )
    for name, value, most, reason in sizes:
        if value > most:
            raise ValueError(f"a page takes at most {most:,} {name}, got {value:,}: {reason}; --to onnx has no limit")


def _display(field: nn.Module, raster: Raster) -> dict[str, float]:
    """Returns the map from values to colours: (scale · value + offset) to the power of gamma, clipped to [0, 1].

    Integer images are shown as in the file. Float images are shown as by `staf fit`, up to their 99th percentile.
    """
    span = 1.0 - raster.value_min
    if raster.dtype != "float32":
        return {"scale": 1.0 / span, "offset": -raster.value_min / span, "gamma": 1.0}
    few = min(1.0, 256.0 / max(raster.width, raster.height))
    white = max(float(np.quantile(render(field, raster, scale=few), 0.99)), 1e-12)
    scale = (raster.high - raster.low) / span
    return {"scale": scale / white, "offset": (raster.low - raster.value_min * scale) / white, "gamma": 1.0 / 2.2}


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
        facts += f" Matrices are in half precision, with an RMS error of {mean:.1e} and an error of at most {most:.1e}."
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
    """Returns JSON that is safe inside of a script element."""
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
    """Returns all parameters, deflated: matrices in half precision, other matrices, then biases and sinusoids."""
    groups: dict[str, list[Floats]] = {"half": [], "full": [], "others": []}
    for layer in network.layers:
        groups["half" if half and _may_be_half(layer) else "full"].append(layer.weight.ravel())
        groups["others"] += [layer.bias, *([] if layer.sinusoids is None else [layer.sinusoids.ravel()])]
    joined = {name: np.concatenate([np.zeros(0, np.float32), *parts]) for name, parts in groups.items()}
    raw = b"".join(_shuffled(values.astype("<f2" if name == "half" else "<f4")) for name, values in joined.items())
    return zlib.compress(raw, 9), {name: len(values) for name, values in joined.items()}


def _shuffled(values: np.ndarray) -> bytes:
    """Returns the first bytes of all numbers, then the second ones, … This compresses better."""
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _check(network: Network, field: nn.Module, *, exact: bool) -> dict[str, Any]:
    """Returns points, and values there in double precision: torch's, or those of the rounded network."""
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
