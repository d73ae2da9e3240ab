"""A field's equivalent plain sine network in a safetensors file: linear, sin, linear, sin, …, linear.

Tensors, float32: `layers.I.weight` (n_out, n_in), `layers.I.bias`, `output.weight`, `output.bias`, and of Fourier
features `encoding.frequencies` (m, d). The metadata's key `sine_network` holds JSON: the factors `omega` of the layers,
whether there are skips, the sphere of a signed distance, and in `evaluate` how all that makes a value. Any program with
a matrix product and a sine can run it.
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
"""Of the metadata, and the number of its format."""
EVALUATE = [
    "h = x",
    "with encoding.frequencies F: h = [x if include_input, sin(x F^T), cos(x F^T)]",
    "for each layer i: z = h weight^T + bias; h = sin(omega[i] z), plus z if skip and i > 0",
    "value = h output.weight^T + output.bias",
    "with a sphere: value += sign (sqrt(|x - center|^2 + r^2 / 4) - sqrt(r^2 + r^2 / 4)), r = radius",
]


def sine_file(field: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """The file's content.

    Raises:
        ValueError: If an activation is neither STAF nor a sine, or the encoding a hash grid.
    """
    from safetensors.torch import save

    tensors, about = sine_tensors(field)
    return save(tensors, {**(metadata or {}), KEY: json.dumps({"format": FORMAT, **about, "evaluate": EVALUATE})})


def sine_tensors(field: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and what the metadata say about them."""
    sphere = network_of(field).sphere  # which refuses what no format holds
    inner: Any = field.geometry if isinstance(field, SignedDistanceField) else field
    sines = exact_sine_network(inner.mlp)
    tensors: dict[str, Tensor] = {}
    for index, linear in enumerate(sines.linears):
        tensors |= {f"layers.{index}.{name}": value for name, value in linear.named_parameters()}
    tensors |= {f"output.{name}": value for name, value in sines.output.named_parameters()}
    include_input = None
    if isinstance(inner.encoding, FourierFeatures):
        tensors["encoding.frequencies"], include_input = inner.encoding.frequencies, inner.encoding.include_input
    about = {
        "omega": [float(sigma.omega) for sigma in sines.activations],  # pyright: ignore[reportArgumentType]
        "skip": sines.skip,
        "include_input": include_input,
        "sphere": None if sphere is None else asdict(sphere),
    }
    return {name: value.detach().cpu().float().contiguous() for name, value in tensors.items()}, about


def exact_sine_network(mlp: CoordinateMLP) -> CoordinateMLP:
    """`sine_network`, whose products of C, Ω and W are formed in double precision."""
    with torch.no_grad():
        return sine_network(copy.deepcopy(mlp).cpu().double())
