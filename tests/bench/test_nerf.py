"""The benchmark of radiance fields, in small: what it reports, and that a finished run is not run again."""

import json

import pytest

from staf_nerf.bench import nerf
from tests.conftest import write_capture

SMALL = (
    "staf-nerf+field.num_levels=2+field.log2_table_size=8+field.hidden_features=8+sampling.proposal_samples=[8]"
    "+sampling.field_samples=8"
)


def test_it_reports_each_run_the_means_and_what_is_needed_to_repeat_it(tmp_path):
    write_capture(tmp_path / "capture")
    output = tmp_path / "result.json"
    benchmark = nerf.NerfBenchmark(
        data=tmp_path / "capture", methods=(SMALL, f"{SMALL}+relu"), amount=2, rays=32, output=output
    )
    result = nerf.run(benchmark)
    assert len(result["rows"]) == 4
    relu = [row for row in result["summary"] if row["method"].endswith("relu")]
    assert relu[0]["runs"] == 2
    scores = [row["psnr"] for row in result["rows"] if row["method"].endswith("relu")]
    assert relu[0]["psnr"] == pytest.approx(sum(scores) / 2, abs=1e-3)
    assert relu[0]["psnr_std"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5, abs=1e-3)
    assert result["versions"].keys() == {"torch", "nerfstudio", "staf-nerf"}
    saved = json.loads(output.read_text())
    assert saved["rows"] == result["rows"]
    again = nerf.run(benchmark)
    assert again["rows"] == saved["rows"]  # the seconds would differ


def test_a_budget_of_minutes_decides_the_number_of_steps(tmp_path):
    write_capture(tmp_path / "capture")
    benchmark = nerf.NerfBenchmark(
        data=tmp_path / "capture", methods=(SMALL,), seeds=(0,), budget="minutes", amount=0.05, rays=32
    )
    (row,) = nerf.run(benchmark)["rows"]
    assert row["steps"] >= 1
    assert row["psnr"] > 0


def test_steps_within_a_budget():
    assert nerf.steps_within(900.25, 0.5, 0.0, lambda step: 1) == 1800
    assert nerf.steps_within(0.001, 10.0, 0.0, lambda step: 1) == 1
    # An update every second step at first, every sixth after ten steps: 10 (1 + 2/2) and then 1 + 2/6 s a step.
    assert nerf.steps_within(28.5, 1.0, 2.0, lambda step: 1 if step < 10 else 5) == 16


def test_stock_nerfacto_runs_offline_at_its_small_sizes(tmp_path):
    write_capture(tmp_path / "capture", size=(48, 32))
    benchmark = nerf.NerfBenchmark(data=tmp_path / "capture", methods=("nerfacto",), seeds=(0,), amount=1, rays=16)
    (row,) = nerf.run(benchmark)["rows"]
    assert row["psnr"] > 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("nerf", "methods must start with one of .*'staf-nerf'.* got 'nerf'"),
        ("staf-nerf+swish", "activation must be one of"),
        ("staf-nerf+field.levels=3", "unknown key 'levels'"),
    ],
)
def test_wrong_methods_are_named_before_anything_is_trained(tmp_path, method, message):
    write_capture(tmp_path / "capture")
    with pytest.raises(ValueError, match=message):
        nerf.main(nerf.NerfBenchmark(data=tmp_path / "capture", methods=(method,), amount=1))
