"""Export of a small network as a GLSL function, for example for Shadertoy: `vec3 staf(vec2 x)`, `float staf(vec3 x)`.

The weights are part of the text, as products of 4x4 matrices with vectors of four neurons. The language is GLSL ES 3.00
(WebGL 2). Desktop GLSL 3.30 accepts it too. The file has its own sine function, which is accurate for large arguments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from staf_nerf.export.network import Floats, Layer, Network, Sphere
from staf_nerf.export.templates import template

MOST_NUMBERS = 8192
"""Largest number of parameters of a network in a GLSL function. Compilers unroll it into as many multiplications,
which takes seconds, and the text has 120 kB."""
TYPES = {1: "float", 2: "vec2", 3: "vec3", 4: "vec4"}
PARTS = "xyzw"
SIGMAS = {
    "finer": "sine({w} * (abs({z}) + 1.0) * {z})",
    "gaussian": "exp(-0.5 * ({w} * {z}) * ({w} * {z}))",
    "sinc": "sinc({w} * {z})",
    "relu": "max({z}, 0.0)",
}
SINC = """
vec4 sinc(vec4 t) {
  vec4 near = vec4(lessThan(abs(t), vec4(1e-3)));
  return mix(sine(mix(t, vec4(1.0), near)) / mix(t, vec4(1.0), near), 1.0 - t * t / 6.0, near);
}
"""


def glsl_function(network: Network, *, head: Sequence[str] = (), scale: float = 1.0, offset: float = 0.0) -> str:
    """Returns the text of the function.

    Args:
        network: The layers of the field, with 1 to 4 coordinates and values.
        head: Comment lines before the function, about its input and output.
        scale: The function returns scale · value + offset.
        offset: See `scale`.

    Raises:
        ValueError: If the network is too large, or has more than 4 coordinates or values.
    """
    _check_size(network)
    inputs, outputs = TYPES[network.inputs], TYPES[network.outputs]
    shared = template("sine.glsl") + (SINC if any(layer.kind == "sinc" for layer in network.layers) else "")
    body = [f"  vec4 h0_0 = vec4({', '.join(_places('x', network.inputs))});"]
    for index, layer in enumerate(network.layers):
        body += [f"  {line}" for line in _layer(layer, index)]
    last = f"h{len(network.layers)}_0{'' if network.outputs == 4 else '.' + PARTS[: network.outputs]}"
    found = last if (scale, offset) == (1.0, 0.0) else f"{_float(scale)} * {last} + {_float(offset)}"
    if network.sphere is not None:
        found += f" + {_sphere(network.sphere)}"
    comment = "\n".join(f"// {line}" for line in head)
    return f"{comment}\n\n{shared}\n{outputs} staf({inputs} x) {{\n" + "\n".join(body) + f"\n  return {found};\n}}\n"


def _check_size(network: Network) -> None:
    if network.numbers > MOST_NUMBERS:
        raise ValueError(
            f"a GLSL function can have at most {MOST_NUMBERS:,} parameters, got {network.numbers:,}, because compilers "
            f"unroll it; {_hint(network)}, or export --to html, which takes a million"
        )
    for name, value in (("coordinates", network.inputs), ("values", network.outputs)):
        if value > 4:
            raise ValueError(f"a GLSL function can have 1 to 4 {name}, got {value}")


def _hint(network: Network) -> str:
    """Returns advice with a width that fits, for the same number of layers."""
    width = 4
    while _numbers_at(network, width + 4) <= MOST_NUMBERS:
        width += 4
    return f"fit with --hidden-features {width}" if width > 4 else "fit with fewer layers"


def _numbers_at(network: Network, width: int) -> int:
    """Returns the number of parameters with hidden layers of that width and the same encoding."""
    total, before = 0, network.inputs
    for layer in network.layers[:-1]:
        outputs = width if layer.outputs == network.layers[-1].inputs else layer.outputs
        _, terms, own = (0, 0, 0) if layer.sinusoids is None else layer.sinusoids.shape
        total += (before + 1) * outputs + 3 * terms * min(own, outputs)
        before = outputs
    return total + (before + 1) * network.outputs


def _places(name: str, count: int) -> list[str]:
    """Returns the four components of a vector with `count` components, filled up with 0."""
    own = [name] if count == 1 else [f"{name}.{part}" for part in PARTS[:count]]
    return [*own, *["0.0"] * (4 - count)]


def _layer(layer: Layer, index: int) -> Iterator[str]:
    """Yields the statements that compute the vectors h(index + 1)_0, … from those of h(index)."""
    blocks, texels = math.ceil(layer.outputs / 4), math.ceil(layer.inputs / 4)
    weight = np.zeros((4 * blocks, 4 * texels), np.float32)
    weight[: layer.outputs, : layer.inputs] = layer.weight
    bias = np.pad(layer.bias, (0, 4 * blocks - layer.outputs))
    for j in range(blocks):
        rows = slice(4 * j, 4 * j + 4)
        products = [f"{_matrix(weight[rows, 4 * k : 4 * k + 4])} * h{index}_{k}" for k in range(texels)]
        z = f"z{index}_{j}"
        yield f"vec4 {z} = {_vector(bias[rows])}"
        yield from (f"  + {product}" for product in products[:-1])
        yield f"  + {products[-1]};"
        yield f"vec4 h{index + 1}_{j} = {' + '.join(_terms(layer, j, z)) or 'vec4(0.0)'};"


def _terms(layer: Layer, j: int, z: str) -> Iterator[str]:
    passed = (np.arange(4 * j, 4 * j + 4) < layer.straight).astype(np.float32)
    if passed.any():
        yield z if passed.all() or layer.kind == "none" else f"{_vector(passed)} * {z}"
    if layer.sinusoids is not None:
        for parts in layer.sinusoids.transpose(1, 0, 2):
            amplitude, frequency, phase = (_four(values, j) for values in parts)
            if amplitude != "0.0":
                yield f"{amplitude} * sine({frequency} * {z} + {phase})"
    elif layer.kind != "none":
        yield SIGMAS[layer.kind].format(w=_float(layer.scale), z=z)


def _four(values: Floats, j: int) -> str:
    """Returns a parameter of four neurons, as one number if they share it."""
    own = values[4 * j : 4 * j + 4]
    return _float(values[0]) if len(values) == 1 else _vector(np.pad(own, (0, 4 - len(own))))


def _sphere(sphere: Sphere) -> str:
    rounding = (0.5 * sphere.radius) ** 2
    center = f"vec3({', '.join(map(_float, sphere.center))})"
    start = _float(math.sqrt(sphere.radius**2 + rounding))
    return f"{_float(sphere.sign)} * (sqrt(dot(x - {center}, x - {center}) + {_float(rounding)}) - {start})"


def _matrix(block: Floats) -> str:
    """Returns a GLSL matrix, which is written column by column."""
    return f"mat4({','.join(map(_float, block.T.ravel()))})"


def _vector(values: Floats) -> str:
    return f"vec4({','.join(map(_float, values))})"


def _float(value: float) -> str:
    """Returns the shortest text that is read back as the same float32."""
    text = np.format_float_scientific(np.float32(value), trim="0")
    plain = np.format_float_positional(np.float32(value), trim="0")
    return min(plain, text, key=len)
