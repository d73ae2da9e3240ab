"""The benchmark of fits, in small: equal weights, equal cost, and every run once."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from skimage import data as pictures

from staf_nerf.activations import ACTIVATIONS
from staf_nerf.bench import report, signals
from staf_nerf.bench.sweep import changed, run_missing
from staf_nerf.config import ImageConfig
from staf_nerf.files.image import write_image
from staf_nerf.mesh.export import write_mesh
from staf_nerf.tasks import find_task, shape
from tests.mesh.shapes import sphere

TINY = "+fit.points=256"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def benchmark_of(task, *, files, **options):
    return dataclasses.replace(signals.benchmark_of(find_task(task), files), **options)


@pytest.fixture
def photos(tmp_path):
    files = []
    for name, picture in (("a", pictures.astronaut()), ("b", pictures.coffee())):
        write_image(tmp_path / f"{name}.png", cv2.resize(picture, (32, 24), interpolation=cv2.INTER_AREA))
        files.append(tmp_path / f"{name}.png")
    return tuple(files)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_gets_the_width_that_has_the_wanted_weights(activation):
    config = signals.configuration("image", f"image+{activation}", 198_915)
    assert signals.count_weights(config) == pytest.approx(198_915, rel=0.01)
    if activation == "sine":  # the papers' network: 2 -> 256, three times 256 -> 256, 256 -> 3
        assert config.field.hidden_features == 256
        assert signals.count_weights(config) == 198_915


def test_a_run_is_scored_once_and_its_budget_buys_steps_by_the_times_that_were_measured_first(photos, tmp_path):
    output = tmp_path / "result.json"
    methods = (f"image{TINY}", f"image+sine{TINY}")
    benchmark = benchmark_of(
        "image",
        files=photos,
        methods=methods,
        seeds=(0, 1),
        seconds=0.2,
        weights=2000,
        rounds=2,
        processes=0,
        output=output,
    )
    result = signals.compare_methods(benchmark)
    assert len(result["rows"]) == 8
    for row in result["rows"]:
        assert row["steps"] == max(round(0.2 / result["step_seconds"][row["method"]]["median"]), 1)
        assert row["metrics"]["psnr"] > 8.0
        assert row["parameters"] == pytest.approx(2000, rel=0.05)
    again = signals.compare_methods(benchmark)
    assert again["rows"] == result["rows"]
    assert again["step_seconds"] == result["step_seconds"] == json.loads(output.read_text())["step_seconds"]
    assert sum(entry["wins"] for entry in result["summary"]) >= 2
    assert [entry["runs"] for entry in result["summary"]] == [4, 4]
    page = report.write_report(report.Report((output,), tmp_path / "page"))
    text = page.read_text()
    assert text.count("| image+") == 2
    assert f"{result['summary'][0]['psnr']:.2f} ± " in text
    assert f"commit {result['commit'] or 'unknown'}" in text  # outside of a checkout nobody knows it
    assert (tmp_path / "page" / "result.png").stat().st_size > 10_000


@pytest.mark.parametrize("task", ["superres", "denoise"])
def test_inverse_problems_are_scored_against_the_whole_clean_image(task, photos):
    method = f"{task}+fit.points=64"
    result = signals.compare_methods(
        benchmark_of(task, files=photos[:1], methods=(method,), seeds=(0,), steps=20, weights=2000, processes=0)
    )
    assert {"psnr", "bicubic_psnr" if task == "superres" else "noisy_psnr"} <= set(result["rows"][0]["metrics"])


def test_sounds_and_shapes_go_through_the_same_grid(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.linspace(0, 50, 500))[:, None], 8000)
    result = signals.compare_methods(
        benchmark_of("audio", files=(tmp_path / "a.wav",), steps=20, weights=2000, seeds=(0,), processes=1)
    )
    assert [row["metrics"].keys() >= {"snr"} for row in result["rows"]] == [True, True]
    write_mesh(tmp_path / "ball.ply", sphere(subdivisions=3))
    methods = ("shape+cached_points=10000+field.first_omega=5",)
    result = signals.compare_methods(
        benchmark_of(
            "shape", files=(tmp_path / "ball.ply",), methods=methods, steps=60, weights=5000, seeds=(0,), processes=0
        )
    )
    assert result["summary"][0]["field_iou"] > 0.8


def test_a_run_that_ends_without_a_surface_is_a_result_and_does_not_stop_the_others(tmp_path, monkeypatch):
    def no_surface(*arguments, **options):
        raise ValueError("no surface")

    monkeypatch.setattr(shape, "shape_mesh", no_surface)
    write_mesh(tmp_path / "ball.ply", sphere(subdivisions=3))
    benchmark = benchmark_of(
        "shape",
        files=(tmp_path / "ball.ply",),
        methods=("shape+cached_points=1000",),
        steps=1,
        weights=500,
        seeds=(0, 1),
        processes=0,
    )
    assert [row["failed"] for row in signals.compare_methods(benchmark)["rows"]] == ["no surface", "no surface"]


def test_a_grid_names_each_combination():
    benchmark = benchmark_of(
        "image", files=(), methods=("image", "image+sine"), grid=("bandwidth=.1,.2", "fit.steps=1,2")
    )
    assert len(benchmark.names) == 8
    assert benchmark.names[1] == "image+bandwidth=.1+fit.steps=2"


def test_a_method_that_diverges_is_a_result_and_comes_last():
    def row(method, file, seed, psnr=None):
        cell = {"method": method, "file": file, "seed": seed, "budget": "steps", "amount": 5, "weights": 0}
        common = {"steps": 5, "seconds": 1.0, "parameters": 9, "peak_memory_bytes": 1}
        return {**cell, **common, **({"failed": "nan"} if psnr is None else {"metrics": {"psnr": psnr}})}

    rows = [row("a", "x", 0, 30.0), row("a", "x", 1, 32.0), row("a", "y", 0, 20.0), row("a", "y", 1, 20.0)]
    rows += [row("b", "x", 0, 40.0), row("b", "x", 1), row("b", "y", 0, 25.0), row("b", "y", 1, 15.0)]
    first, last = signals.summarize(rows, signals.grouping_of("image"))
    assert (first["method"], first["failed"], first["psnr"]) == ("a", 0, 25.5)
    assert first["psnr_std"] == pytest.approx(2**0.5 / 2)
    assert (last["method"], last["failed"], last["psnr"]) == ("b", 1, 30.0)
    assert (first["wins"], last["wins"]) == (1, 2)  # they are level on y


def test_a_grid_goes_on_where_it_was_stopped(tmp_path):
    calls = []

    def run_cell(cell):
        calls.append(cell["method"])
        if cell["method"] == "c" and len(calls) == 3:
            raise KeyboardInterrupt
        return {"value": len(calls)}

    cells = [{"method": name} for name in "abcd"]
    for _ in range(2):
        try:
            result = run_missing(cells, run_cell, lambda rows: {"rows": rows}, tmp_path / "a.json")
        except KeyboardInterrupt:
            result = None
    assert calls == ["a", "b", "c", "c", "d"]
    assert [row["method"] for row in result["rows"]] == list("abcd")


def test_a_file_that_holds_no_results_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"a.json contains no results of `staf bench`"):
        report.write_report(report.Report((tmp_path / "a.json",)))
    with pytest.raises(ValueError, match=r"cannot read results from .*b.json"):
        report.write_report(report.Report((tmp_path / "b.json",)))


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*_*.json")), ids=lambda path: path.stem)
def test_committed_results_make_a_page(path, tmp_path):
    result = json.loads(path.read_text())
    if "summary" not in result:
        pytest.skip("it is about times")
    text = report.write_report(report.Report((path,), tmp_path)).read_text()
    assert text.count("\n| ") == len(result["summary"]) + 2
    for entry in result["summary"]:
        assert f"| {entry['method']} | {entry['amount']:g} {entry['budget']} |" in text
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000


def test_wrong_names_are_told_with_the_known_ones(photos):
    with pytest.raises(ValueError, match=r"methods must start with one of \[.*'image'"):
        signals.compare_methods(benchmark_of("image", files=photos, methods=("photo",)))
    with pytest.raises(ValueError, match=r"unknown key 'width'"):
        signals.compare_methods(benchmark_of("image", files=photos, methods=("image+width=1",)))
    with pytest.raises(ValueError, match="files must name at least one"):
        signals.compare_methods(benchmark_of("image", files=()))
    with pytest.raises(
        ValueError, match=r"first_omega has no effect unless bandwidth is 0, got 60.0 and bandwidth 0.1"
    ):
        signals.compare_methods(benchmark_of("image", files=photos, methods=("image+field.first_omega=60.0",)))
    with pytest.raises(ValueError, match="files must have different names"):
        signals.compare_methods(benchmark_of("image", files=(photos[0], photos[0].parent / "other" / photos[0].name)))
    with pytest.raises(ValueError, match="photon_count must be positive: the benchmark needs clean images"):
        signals.compare_methods(benchmark_of("denoise", files=photos, methods=("denoise+photon_count=0.0",)))
    with pytest.raises(ValueError, match="weights must be reachable by some width, got 10;"):
        signals.compare_methods(benchmark_of("image", files=photos, weights=10))
    assert changed(ImageConfig(), ["band=0.5"]).bandwidth == 0.5  # as version 0.1 called it
    assert changed(ImageConfig(), ["relu", "bandwidth=0.5"]).field.activation.name == "relu"
