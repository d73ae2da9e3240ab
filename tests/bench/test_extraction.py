import json

from staf_nerf.bench.extraction import ExtractionBenchmark, compare_extractions
from staf_nerf.checkpoint import Checkpoint, save_field
from staf_nerf.config import ActivationConfig, FieldConfig, ShapeConfig
from staf_nerf.signals.shape import Frame, make_field


def test_both_ways_find_one_surface_and_the_sparse_one_asks_for_less(tmp_path):
    config = ShapeConfig(
        field=FieldConfig(
            activation=ActivationConfig("staf", {"first_omega": 5.0}), hidden_features=64, hidden_layers=2
        )
    )
    field = make_field(config, start_as_sphere=True)
    save_field(tmp_path / "field.safetensors", Checkpoint(field, config, Frame((0.0, 0.0, 0.0), 1.0)))
    result = compare_extractions(
        ExtractionBenchmark(tmp_path / "field.safetensors", resolutions=(128, 48), whole=(128,))
    )
    json.dumps(result)
    both, sparse = result["rows"]
    assert both["whole"]["evaluations"] >= 129**3 > 4 * both["sparse"]["evaluations"]
    assert both["whole"]["triangles"] == both["sparse"]["triangles"] > 1000
    assert both["chamfer_of_diagonal"] < 1e-6
    assert both["times_as_fast"] > 0
    assert sparse["sparse"]["triangles"] > 1000
    assert "whole" not in sparse
