"""Plain sine networks and tiny-cuda-nn's layout, evaluated as their files say, with NumPy alone."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from staf_nerf.export.fused import FUSED_WIDTHS, fused_file, load_fused, read_fused
from staf_nerf.export.sines import sine_file
from tests.export.conftest import image, shape, staf

SINES = ["staf", "staf by neuron", "staf by network", "staf with skips", "staf of random features", "sine", "linear"]


def by_the_sine_file(path, x: np.ndarray) -> np.ndarray:
    """What the file's own metadata describe, in double precision."""
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["sine_network"])
        t = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
    h = x
    if "encoding.frequencies" in t:
        arguments = x @ t["encoding.frequencies"].T
        h = np.concatenate([*([x] if about["include_input"] else []), np.sin(arguments), np.cos(arguments)], 1)
    for i, omega in enumerate(about["omega"]):
        z = h @ t[f"layers.{i}.weight"].T + t[f"layers.{i}.bias"]
        h = np.sin(omega * z) + (z if about["skip"] and i else 0.0)
    values = h @ t["output.weight"].T + t["output.bias"]
    if (ball := about["sphere"]) is not None:
        squared = ((x - np.array(ball["center"])) ** 2).sum(1, keepdims=True) + ball["radius"] ** 2 / 4
        values += ball["sign"] * (np.sqrt(squared) - np.sqrt(ball["radius"] ** 2 * 1.25))
    return values


def by_tiny_cuda_nn(params: np.ndarray, about: dict, x: np.ndarray) -> np.ndarray:
    """The inference of its networks: input padded with ones, matrices row by row, no biases, sines between them."""
    inputs, outputs, network = about["n_input_dims"], about["n_output_dims"], about["network"]
    width, matrices, rest = network["n_neurons"], [], params.astype(np.float64)
    padded, padded_outputs = (-(-n // 16) * 16 for n in (inputs + 1, outputs))
    shapes = [(width, padded), *[(width, width)] * (network["n_hidden_layers"] - 1), (padded_outputs, width)]
    for rows, columns in shapes:
        matrices.append(rest[: rows * columns].reshape(rows, columns))
        rest = rest[rows * columns :]
    assert not len(rest)
    h = np.concatenate([x, np.ones((len(x), padded - inputs))], 1)
    for matrix in matrices[:-1]:
        h = np.sin(h @ matrix.T)
    return (h @ matrices[-1].T)[:, :outputs]


@pytest.mark.parametrize("kind", SINES)
def test_the_sine_network_computes_the_same_as_its_metadata_say(kind, points, tmp_path):
    field = image(kind).field
    (tmp_path / "sines.safetensors").write_bytes(sine_file(field, {"task": "image"}))
    found = by_the_sine_file(tmp_path / "sines.safetensors", points.numpy().astype(np.float64))
    with torch.no_grad():
        exact = field.double()(points.double()).numpy()
    # Weights rounded to float32 once more, times frequencies of up to 100 radians per unit in each layer.
    assert found == pytest.approx(exact, abs=5e-4)


def test_the_sphere_of_a_signed_distance_stands_in_the_metadata(tmp_path):
    field = shape().field
    x = 2 * torch.rand(99, 3, generator=torch.Generator().manual_seed(0)) - 1
    (tmp_path / "sines.safetensors").write_bytes(sine_file(field))
    with torch.no_grad():
        exact = field(x).numpy()
    assert by_the_sine_file(tmp_path / "sines.safetensors", x.numpy().astype(np.float64)) == pytest.approx(
        exact, abs=1e-4
    )


@pytest.mark.parametrize("kind", ["relu of octaves", "finer", "gaussian", "sinc"])
def test_what_is_no_sum_of_sines_has_no_sine_network(kind):
    for made in (sine_file, fused_file):
        with pytest.raises(ValueError, match=r"STAF or Sine|must not include the coordinates"):
            made(image(kind).field)


@pytest.mark.parametrize("kind", ["staf", "staf by neuron", "staf of random features", "sine", "sine, odd widths"])
def test_tiny_cuda_nns_layout_computes_the_same(kind, points, tmp_path):
    field = image(kind).field
    (tmp_path / "fused.safetensors").write_bytes(fused_file(field))
    params, about = read_fused(tmp_path / "fused.safetensors")
    width = about["network"]["n_neurons"]
    assert width in FUSED_WIDTHS or width % 16 == 0
    assert sum(np.prod(s) for s in about["shapes"]) == params.size
    with torch.no_grad():
        exact = field.double()(points.double()).numpy()
    found = by_tiny_cuda_nn(params, about, points.numpy().astype(np.float64))
    assert found == pytest.approx(exact, abs=5e-4)  # as above
    assert 1e-5 < about["half_error"] < 1.0  # what half precision would cost is said
    assert about["run_on_a_gpu"] is False


def test_a_constant_neuron_stays_one_through_all_layers(tmp_path):
    """A network whose weights are zero is its last bias: it arrives through the constant neuron alone."""
    field = image("sine").field
    with torch.no_grad():
        for linear in [*(layer.linear for layer in field.mlp.layers), field.mlp.output]:
            linear.weight.zero_()
    (tmp_path / "fused.safetensors").write_bytes(fused_file(field))
    found = by_tiny_cuda_nn(*read_fused(tmp_path / "fused.safetensors"), np.zeros((1, 2)))
    assert found[0] == pytest.approx(field.mlp.output.bias.detach().numpy(), abs=1e-6)  # π / 2 in float32


def test_what_tiny_cuda_nn_does_not_take_is_refused(tmp_path):
    with pytest.raises(ValueError, match="skip connections"):
        fused_file(image("staf with skips").field)
    with pytest.raises(ValueError, match="at least 1 hidden layer"):
        fused_file(image("linear").field)
    wide = {"hidden_features": 2000, "hidden_layers": 1, "activation": staf(num_frequencies=5)}
    with pytest.raises(ValueError, match=r"at most 8192 neurons in a layer, got 10001 .*--hidden-features"):
        fused_file(image(wide).field)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_fused(tmp_path / "none")
    (tmp_path / "sines.safetensors").write_bytes(sine_file(image().field))
    with pytest.raises(ValueError, match="not contain a network for tiny-cuda-nn"):
        read_fused(tmp_path / "sines.safetensors")
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_fused(tmp_path / "other")


def test_the_loader_says_what_it_needs(tmp_path):
    (tmp_path / "fused.safetensors").write_bytes(fused_file(image({"hidden_features": 80}).field))
    with pytest.raises(ValueError, match=r"needs a width of \(16, 32, 64, 128\), got 256: use CutlassMLP"):
        load_fused(tmp_path / "fused.safetensors", otype="FullyFusedMLP")
    with pytest.raises(RuntimeError, match="needs tiny-cuda-nn"):
        load_fused(tmp_path / "fused.safetensors")
