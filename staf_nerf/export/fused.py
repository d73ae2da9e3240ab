"""Export of a field in the layout of tiny-cuda-nn: matrices without biases, hidden layers of one width, and sines.

The network is the field's equivalent plain sine network. Biases are stored as weights of a neuron that is always 1. The
first layer finds it in the input, which tiny-cuda-nn pads with ones to a multiple of 16. Each layer passes it on, since
sin(π / 2) = 1. All parameters are one vector of matrices, row by row: (width, inputs), (width, width), …,
(outputs, width), with inputs and outputs padded to multiples of 16 (as in `fully_fused_mlp.cu`, `cutlass_mlp.cu` and
`identity.h`).

`CutlassMLP` supports any width, here a multiple of 16. `FullyFusedMLP` has the same layout and supports widths of 16,
32, 64 and 128. Its version 087d07c has no activation Sine, so `load_fused` uses `CutlassMLP` by default.

This has not been run on a GPU. The layout is tested with NumPy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from staf_nerf.export.network import Floats, Sphere, encoding_layer, network_of
from staf_nerf.export.sines import exact_sine_network
from staf_nerf.fields import SignedDistanceField

KEY, FORMAT = "tcnn", 1
"""Metadata key, and version of the file format."""
ALIGNMENT = 16
"""Inputs, outputs and widths are multiples of this."""
FUSED_WIDTHS = (16, 32, 64, 128)
"""Widths that FullyFusedMLP supports."""
MOST_WIDTH = 8192
"""Largest number of neurons of a layer, to limit memory: a matrix then has 2^26 entries."""


def fused_file(field: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """Returns the content of the file: the float32 tensor `params`, and JSON in the metadata key `tcnn`.

    Raises:
        ValueError: If the field has other activations than STAF and sine, skip connections, or an encoding that
            includes the coordinates.
    """
    from safetensors.torch import save

    params, about = fused_params(field)
    return save({"params": torch.from_numpy(params)}, {**(metadata or {}), KEY: json.dumps(about)})


def fused_params(field: nn.Module) -> tuple[Floats, dict[str, Any]]:
    """Returns the vector of parameters and the configuration."""
    layers, output = _sines(field)
    inputs, outputs = layers[0][0].shape[1], len(output[1])
    width = _width(1 + max(len(bias) for _, bias in layers))
    before = _padded(inputs + 1)
    matrices: list[Floats] = []
    constant = inputs  # index of the input that is 1
    for weight, bias in layers:
        matrix = _with_bias(weight, bias, (width, before), constant)
        matrix[len(bias), constant] = math.pi / 2.0
        matrices.append(matrix)
        constant, before = len(bias), width
    matrices.append(_with_bias(*output, (_padded(outputs), width), constant))
    sphere = network_of(field).sphere
    about = {
        "format": FORMAT,
        "n_input_dims": inputs,
        "n_output_dims": outputs,
        "encoding": {"otype": "Identity"},
        "network": {
            "otype": "CutlassMLP",
            "activation": "Sine",
            "output_activation": "None",
            "n_neurons": width,
            "n_hidden_layers": len(layers),
        },
        "shapes": [list(matrix.shape) for matrix in matrices],
        "sphere": None if sphere is None else asdict(sphere),
        "half_error": _half_error(matrices, inputs),
        "run_on_a_gpu": False,
    }
    return np.concatenate([matrix.ravel() for matrix in matrices]), about


def _sines(field: nn.Module) -> tuple[list[tuple[Floats, Floats]], tuple[Floats, Floats]]:
    """Returns weights and biases of the sine layers, times ω, and those of the output layer."""
    inner: Any = field.geometry if isinstance(field, SignedDistanceField) else field
    network_of(field)  # refuses fields that cannot be exported
    if inner.mlp.skip:
        raise ValueError("tiny-cuda-nn does not support skip connections; use --to sine-safetensors")
    if not len(inner.mlp.layers):
        raise ValueError("tiny-cuda-nn needs at least 1 hidden layer, got 0")
    found: list[tuple[Floats, Floats]] = []
    for layer in encoding_layer(inner.encoding):
        assert layer.sinusoids is not None
        if layer.straight:
            raise ValueError("for tiny-cuda-nn an encoding must not include the coordinates; use --to onnx")
        found.append((layer.weight, layer.bias + layer.sinusoids[2, 0]))
    sines = exact_sine_network(inner.mlp)
    for layer in sines.layers:
        omega, linear = layer.activation.omega, layer.linear
        found.append((_numbers(omega * linear.weight), _numbers(omega * linear.bias)))
    return found, (_numbers(sines.output.weight), _numbers(sines.output.bias))


def _numbers(tensor: Tensor) -> Floats:
    return tensor.detach().float().numpy()


def _with_bias(weight: Floats, bias: Floats, shape: tuple[int, int], constant: int) -> Floats:
    """Returns a padded matrix with the weights in its corner and the bias in the column of the constant input."""
    found = np.zeros(shape, np.float32)
    found[: weight.shape[0], : weight.shape[1]] = weight
    found[: len(bias), constant] = bias
    return found


def _padded(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _width(needed: int) -> int:
    """Returns the smallest possible width: one of FullyFusedMLP's, or a multiple of 16 for CutlassMLP."""
    if needed > MOST_WIDTH:
        raise ValueError(
            f"the equivalent sine network must have at most {MOST_WIDTH} neurons in a layer, got {needed} (neurons "
            "times sinusoids, plus 1); fit with a smaller --hidden-features"
        )
    return next((width for width in FUSED_WIDTHS if width >= needed), _padded(needed))


def _half_error(matrices: Sequence[Floats], inputs: int, *, points: int = 1024) -> float:
    """Returns the RMS error of half precision in weights and activations, which is tiny-cuda-nn's default."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (points, inputs)).astype(np.float32)
    h = exact = np.concatenate([x, np.ones((points, matrices[0].shape[1] - inputs), np.float32)], 1)
    for index, matrix in enumerate(matrices):
        h = h.astype(np.float16).astype(np.float32) @ matrix.astype(np.float16).astype(np.float32).T
        exact = exact @ matrix.T
        if index < len(matrices) - 1:
            h, exact = np.sin(h), np.sin(exact)
    return float(np.sqrt(((h - exact) ** 2).mean()))


# --- the loader ------------------------------------------------------------------------------------------------------


class FusedField(nn.Module):
    """A field evaluated by tiny-cuda-nn: (n, d) -> (n, k), float32. It needs CUDA."""

    def __init__(self, network: nn.Module, sphere: Sphere | None) -> None:
        super().__init__()
        self.network, self.sphere = network, sphere

    def forward(self, x: Tensor) -> Tensor:
        found = self.network(x).float()
        if self.sphere is None:
            return found
        rounding = (0.5 * self.sphere.radius) ** 2
        squared = (x - x.new_tensor(self.sphere.center)).square().sum(-1, keepdim=True)
        start = math.sqrt(self.sphere.radius**2 + rounding)
        return found + self.sphere.sign * ((squared + rounding).sqrt() - start)


def read_fused(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Reads the parameters and the configuration from a file written by `fused_file`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has other content.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            params = file.get_tensor("params") if about else np.zeros(0, np.float32)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} does not contain a network for tiny-cuda-nn of format {FORMAT}")
    return params, about


def load_fused(path: Path, *, otype: Literal["CutlassMLP", "FullyFusedMLP"] = "CutlassMLP") -> FusedField:
    """Builds the network in tiny-cuda-nn with the parameters of a file. This has not been run on a GPU.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has other content, or FullyFusedMLP does not support its width.
        RuntimeError: If tiny-cuda-nn is not installed, or has a different number of parameters.
    """
    params, about = read_fused(path)
    width = about["network"]["n_neurons"]
    if otype == "FullyFusedMLP" and width not in FUSED_WIDTHS:
        raise ValueError(f"otype FullyFusedMLP needs a width of {FUSED_WIDTHS}, got {width}: use CutlassMLP")
    try:
        import tinycudann  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise RuntimeError("load_fused needs tiny-cuda-nn's bindings for torch, and CUDA") from error
    network = tinycudann.NetworkWithInputEncoding(
        about["n_input_dims"], about["n_output_dims"], about["encoding"], {**about["network"], "otype": otype}
    )
    if network.params.numel() != params.size:
        raise RuntimeError(f"tiny-cuda-nn expects {network.params.numel()} parameters, the file has {params.size}")
    with torch.no_grad():
        network.params.copy_(torch.from_numpy(params))
    sphere = about["sphere"]
    return FusedField(network, None if sphere is None else Sphere(**sphere))
