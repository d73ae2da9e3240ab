"""ONNX graphs in onnxruntime."""

import json
import sys

import numpy as np
import pytest
import torch

from staf_nerf.errors import explain
from staf_nerf.export.network import network_of
from staf_nerf.export.onnx import onnx_model
from tests.export.conftest import KINDS, image, shape


def ran(model: bytes, x: torch.Tensor) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["values"], {"coordinates": x.numpy()})[0]


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_computes_the_same_values_for_any_batch(kind, points):
    field = image(kind).field
    model = onnx_model(network_of(field))
    with torch.no_grad():
        exact = field(points).numpy()
    # Sums in another order differ by 1e-6, and each layer's frequencies, up to 30 times a few, multiply that.
    assert ran(model, points) == pytest.approx(exact, abs=2e-4)
    assert ran(model, points[:1]) == pytest.approx(exact[:1], abs=2e-4)
    assert ran(model, points[:0]).shape == (0, 3)


def test_a_signed_distance_has_its_sphere_and_says_what_its_numbers_mean():
    field = shape().field
    x = 2 * torch.rand(99, 3, generator=torch.Generator().manual_seed(0)) - 1
    model = onnx_model(network_of(field), {"frame": json.dumps([1, 2])})
    with torch.no_grad():
        assert ran(model, x) == pytest.approx(field(x).numpy(), abs=1e-5)  # float32
    onnx = pytest.importorskip("onnx")
    read = onnx.load_from_string(model)
    assert {p.key: p.value for p in read.metadata_props} == {"frame": "[1, 2]"}
    assert [(i.domain, i.version) for i in read.opset_import] == [("", 17)]
    assert [d.dim_param or d.dim_value for d in read.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3]


def test_without_onnx_the_error_names_the_command(monkeypatch):
    for name in ("onnx", "onnx.checker", "onnx.helper", "onnx.numpy_helper"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        onnx_model(network_of(image().field))
    assert explain(caught.value) == 'onnx is not installed. To get it: pip install "staf-nerf[export]"'
