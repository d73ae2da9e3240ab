"""Export of a field's equivalent plain sine network as safetensors: linear, sin, linear, sin, …, linear.

The tensors are float32: `layers.I.weight` (n_out, n_in), `layers.I.bias`, `output.weight`, `output.bias`, and
`encoding.frequencies` (m, d) for Fourier features. The metadata key `sine_network` contains JSON with the factors
`omega` of the layers, whether there are skip connections, the sphere of a signed distance, and instructions in
`evaluate`. Any program with a matrix product and a sine can evaluate the network.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from staf_nerf.encodings import FourierFeatures
from staf_nerf.export.network import network_of
from staf_nerf.fields import SignedDistanceField
from staf_nerf.mlp import CoordinateMLP
from staf_nerf.theory.kronecker import sine_network

KEY, FORMAT = "sine_network", 1
"""Metadata key, and version of the file format."""
EVALUATE = [
    "h = x",
    "with encoding.frequencies F: h = [x if include_input, sin(x F^T), cos(x F^T)]",
    "for each layer i: z = h weight^T + bias; h = sin(omega[i] z), plus z if skip and i > 0",
    "value = h output.weight^T + output.bias",
    "with a sphere: value += sign (sqrt(|x - center|^2 + r^2 / 4) - sqrt(r^2 + r^2 / 4)), r = radius",
]


def sine_file(field: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """Returns the content of the file.

    Raises:
        ValueError: If an activation is neither STAF nor sine, or the encoding is a hash grid.
    """
    from safetensors.torch import save

    tensors, about = sine_tensors(field)
    return save(tensors, {**(metadata or {}), KEY: json.dumps({"format": FORMAT, **about, "evaluate": EVALUATE})})


def sine_tensors(field: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and their description for the metadata."""
    sphere = network_of(field).sphere  # refuses fields that cannot be exported
    inner: Any = field.geometry if isinstance(field, SignedDistanceField) else field
    sines = exact_sine_network(inner.mlp)
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(sines.layers):
        tensors |= {f"layers.{index}.{name}": value for name, value in layer.linear.named_parameters()}
    tensors |= {f"output.{name}": value for name, value in sines.output.named_parameters()}
    include_input = None
    if isinstance(inner.encoding, FourierFeatures):
        tensors["encoding.frequencies"], include_input = inner.encoding.frequencies, inner.encoding.include_input
    about = {
        "omega": [float(layer.activation.omega) for layer in sines.layers],
        "skip": sines.skip,
        "include_input": include_input,
        "sphere": None if sphere is None else asdict(sphere),
    }
    return {name: value.detach().cpu().float().contiguous() for name, value in tensors.items()}, about


def exact_sine_network(mlp: CoordinateMLP) -> CoordinateMLP:
    """Returns `sine_network(mlp)` with products of C, Ω and W computed in double precision."""
    with torch.no_grad():
        return sine_network(copy.deepcopy(mlp).cpu().double())
