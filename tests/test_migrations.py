"""Files that version 0.1 wrote (commit 7afe599) are read, and mean the same."""

import json
import shutil
from pathlib import Path

import pytest

from staf_nerf.checkpoint import load_field
from staf_nerf.jobs import evaluate
from staf_nerf.jobs.export import Export, run
from staf_nerf.migrations import FIELD_FORMAT, migrate

OLD = Path(__file__).parent / "files_of_0_1"
EXPECTED = json.loads((OLD / "metrics.json").read_text())
"""Metrics that version 0.1 computed."""
FILES = {
    "image": "photo.png",
    "superres": "photo.png",
    "denoise": "photo.png",
    "audio": "tone.wav",
    "shape": "ring.obj",
    "occupancy": "ring.obj",
}


@pytest.mark.parametrize("name", FILES)
def test_a_field_of_version_0_1_has_the_metrics_that_it_had(name):
    resolution = 32 if FILES[name] == "ring.obj" else None
    job = evaluate.Evaluate(OLD / f"{name}.safetensors", file=OLD / FILES[name], resolution=resolution, device="cpu")
    found = evaluate.run(job)["metrics"]
    assert EXPECTED[name].keys() <= found.keys()
    # float32 on another processor. On a surface with a triangle more, other points are drawn at random (200,000).
    tolerance = 1e-2 if resolution else 1e-4
    for metric, value in EXPECTED[name].items():
        assert found[metric] == pytest.approx(value, rel=tolerance, abs=1e-5), metric


@pytest.mark.parametrize("name", FILES)
def test_a_field_of_version_0_1_is_exported(name, tmp_path):
    path = run(Export(OLD / f"{name}.safetensors", "sine-safetensors", tmp_path / "sines.safetensors"))
    assert path.stat().st_size > 1000


def test_an_image_keeps_the_settings_of_its_task_alone():
    image, noisy = load_field(OLD / "image.safetensors"), load_field(OLD / "denoise.safetensors")
    assert image.config.align_corners
    assert image.frame.align_corners
    assert not hasattr(image.config, "photon_count")
    assert (noisy.config.photon_count, noisy.config.read_noise) == (30.0, 2.0)
    assert load_field(OLD / "superres.safetensors").frame.value_min == 0.0
    assert load_field(OLD / "superres.safetensors").config.factor == 2


def test_an_unknown_format_is_refused():
    assert migrate({"format": FIELD_FORMAT, "task": "image"}) == {"format": FIELD_FORMAT, "task": "image"}
    with pytest.raises(ValueError, match="has format 99, this version of staf_nerf reads formats up to 3"):
        migrate({"format": 99})


def test_results_of_version_0_1_are_continued_and_reported(tmp_path):
    from staf_nerf.bench.report import Report, write_report
    from staf_nerf.bench.signals import benchmark_of, with_summary
    from staf_nerf.bench.sweep import run_missing
    from staf_nerf.tasks import find_task

    cells = [{"method": "image", "file": name, "seed": 0, "budget": "steps", "amount": 5.0} for name in "ab"]
    fit = {"steps": 5, "seconds": 1.0, "parameters": 9, "peak_memory_bytes": 1, "threads": 1}
    path = tmp_path / "old.json"
    old = {"task": "image", "score": "psnr", "summary": [], "rows": [{**cells[0], **fit, "measures": {"psnr": 30.0}}]}
    path.write_text(json.dumps(old))
    benchmark = benchmark_of(find_task("image"), (Path("a"), Path("b")))
    result = run_missing(
        cells,
        lambda cell: {**fit, "metrics": {"psnr": 20.0}},
        lambda rows: with_summary(benchmark, rows, {}),
        path,
    )
    assert [row["metrics"]["psnr"] for row in result["rows"]] == [30.0, 20.0]
    assert result["summary"][0]["psnr"] == 25.0
    path.write_text(json.dumps({**result, "score": "psnr", "rows": old["rows"]}))
    assert "| method | budget | psnr |" in write_report(Report((path,), tmp_path)).read_text()


def test_a_radiance_field_of_version_0_1_is_evaluated(tmp_path):
    pytest.importorskip("nerfstudio")
    from tests.plugin.conftest import SCENE, command

    shutil.copytree(OLD / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yml"
    text = config.read_text()
    assert text.count("/captures/tin_robot") == 2
    config.write_text(text.replace("/captures/tin_robot", str(SCENE)))
    command("ns-eval", "--load-config", config, "--output-path", "eval.json", cwd=tmp_path)
    found = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert found["psnr"] == pytest.approx(EXPECTED["run"]["psnr"], abs=0.01)  # float32 on another processor
