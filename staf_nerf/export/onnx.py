"""Export of a field as an ONNX graph, from `coordinates` (batch, d) to `values` (batch, k), float32, any batch size.

Operators are from opset 17: Gemm, Add, Mul, Sin, Abs, Exp, Equal, Where, Div, Relu, Sub, ReduceSumSquare, Sqrt and
Identity. Values are those of the field. The model's metadata describes values and coordinates. Constants are named
`0.weight`, `0.bias`, `0.amplitude.0`, … Layers (including an encoding) and sinusoids are counted from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from staf_nerf.export.network import Layer, Network, Sphere

OPSET = 17
IR_VERSION = 8
"""IR version of the file, which onnxruntime supports since 1.13."""
INPUT, OUTPUT = "coordinates", "values"


def onnx_model(network: Network, metadata: Mapping[str, str] | None = None) -> bytes:
    """Returns the serialised graph.

    Args:
        network: The layers of the field.
        metadata: Texts by name, stored in the model.

    Raises:
        ModuleNotFoundError: If the package onnx is not installed (the extra "export").
    """
    onnx = _onnx()
    graph = _Graph()
    h, layers = INPUT, network.layers
    for index, layer in enumerate(layers):
        h = _layer(graph, layer, h, str(index))
    if network.sphere is not None:
        h = graph("Add", h, _sphere(graph, network.sphere))
    graph("Identity", h, to=OUTPUT)
    values = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "field",
            [values(INPUT, onnx.TensorProto.FLOAT, ["batch", network.inputs])],
            [values(OUTPUT, onnx.TensorProto.FLOAT, ["batch", network.outputs])],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="staf_nerf",
    )
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _onnx() -> Any:
    import onnx
    import onnx.checker
    import onnx.helper
    import onnx.numpy_helper

    return onnx


class _Graph:
    """Collects nodes and constants. Calling it with an operator and inputs adds a node and returns its output."""

    def __init__(self) -> None:
        self.onnx, self.nodes, self.constants = _onnx(), [], []

    def __call__(self, operator: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        found = to or f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [found], **attributes))
        return found

    def constant(self, value: Any, name: str, dtype: type = np.float32) -> str:
        """Adds a constant array and returns its name."""
        if all(known.name != name for known in self.constants):
            self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name


def _layer(graph: _Graph, layer: Layer, h: str, name: str) -> str:
    weight, bias = graph.constant(layer.weight, f"{name}.weight"), graph.constant(layer.bias, f"{name}.bias")
    z = graph("Gemm", h, weight, bias, transB=1)
    if layer.kind == "none":
        return z
    found = _sinusoids(graph, layer, z, name) if layer.kind == "fourier" else _sigma(graph, layer, z, name)
    if not layer.straight:
        return found
    passed = np.arange(layer.outputs) < layer.straight
    added = z if passed.all() else graph("Mul", z, graph.constant(passed, f"{name}.straight"))
    return graph("Add", found, added)


def _sinusoids(graph: _Graph, layer: Layer, z: str, name: str) -> str:
    """Adds the sinusoids one by one, so that no intermediate tensor holds all of them."""
    assert layer.sinusoids is not None
    total = ""
    for index, parts in enumerate(layer.sinusoids.transpose(1, 0, 2)):
        amplitude, frequency, phase = (
            graph.constant(values, f"{name}.{kind}.{index}")
            for kind, values in zip(("amplitude", "frequency", "phase"), parts, strict=True)
        )
        term = graph("Mul", amplitude, graph("Sin", graph("Add", graph("Mul", z, frequency), phase)))
        total = graph("Add", total, term) if total else term
    return total


def _sigma(graph: _Graph, layer: Layer, z: str, name: str) -> str:
    if layer.kind == "relu":
        return graph("Relu", z)
    scaled = graph("Mul", z, graph.constant(layer.scale, f"{name}.scale"))
    if layer.kind == "finer":
        return graph("Sin", graph("Mul", scaled, graph("Add", graph("Abs", z), graph.constant(1.0, "one"))))
    if layer.kind == "gaussian":
        return graph("Exp", graph("Mul", graph("Mul", scaled, scaled), graph.constant(-0.5, "minus half")))
    assert layer.kind == "sinc"
    # sin(u) / u, with u = 0 replaced by a number that equals its sine in float32.
    zero = graph("Equal", scaled, graph.constant(0.0, "zero"))
    u = graph("Where", zero, graph.constant(1e-20, "nearly zero"), scaled)
    return graph("Div", graph("Sin", u), u)


def _sphere(graph: _Graph, sphere: Sphere) -> str:
    rounding = (0.5 * sphere.radius) ** 2
    away = graph("Sub", INPUT, graph.constant(sphere.center, "sphere.center"))
    squared = graph("ReduceSumSquare", away, axes=[1], keepdims=1)
    length = graph("Sqrt", graph("Add", squared, graph.constant(rounding, "sphere.rounding")))
    start = graph.constant(np.sqrt(sphere.radius**2 + rounding), "sphere.start")
    return graph("Mul", graph("Sub", length, start), graph.constant(sphere.sign, "sphere.sign"))
