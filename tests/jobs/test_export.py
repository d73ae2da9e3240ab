"""`staf export`: from a checkpoint to a file."""

import json
import sys

import numpy as np
import pytest
import soundfile
import torch

from staf_nerf.__main__ import main
from staf_nerf.checkpoint import load_field
from staf_nerf.config import ActivationConfig, AudioConfig, FieldConfig, FitConfig
from staf_nerf.jobs.export import SUFFIXES, Export, export_field
from staf_nerf.jobs.fit import fit_files
from tests.export.conftest import image, saved, shape
from tests.fits import fit_job


@pytest.mark.parametrize("to", SUFFIXES)
@pytest.mark.parametrize("make", [image, shape])
def test_each_format_is_written_beside_the_checkpoint(to, make, tmp_path):
    path = saved(make(), tmp_path)
    made = export_field(Export(path, to))
    assert made == tmp_path / f"field-{to}{SUFFIXES[to]}"
    assert made.stat().st_size > 1000


def test_a_fitted_sound_runs_in_onnxruntime(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    time = np.arange(500) / 8000
    soundfile.write(tmp_path / "a.wav", 0.4 * np.sin(2 * np.pi * 220 * time), 8000)
    config = AudioConfig(field=FieldConfig(hidden_layers=2), fit=FitConfig(steps=20, points=64))
    fit_files(fit_job("audio", tmp_path / "a.wav", tmp_path / "out", config=config))
    checkpoint = tmp_path / "out" / "field.safetensors"
    session = onnxruntime.InferenceSession(
        str(export_field(Export(checkpoint, "onnx"))), providers=["CPUExecutionProvider"]
    )
    x = torch.linspace(-1, 1, 101)[:, None]
    with torch.no_grad():
        exact = load_field(checkpoint).field(x).numpy()
    (found,) = session.run(None, {"coordinates": x.numpy()})
    assert found == pytest.approx(exact, abs=1e-4)  # float32 in another order, times the layers' frequencies
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["frame"])["rate"] == 8000
    with pytest.raises(ValueError, match="--to html needs an image or a signed distance, got audio; use --to onnx"):
        export_field(Export(checkpoint, "html"))
    assert "float staf(float x)" in export_field(Export(checkpoint, "glsl")).read_text()


def test_the_command_writes_and_does_not_overwrite_unless_asked(tmp_path, monkeypatch, capsys):
    path, target = saved(image(), tmp_path), tmp_path / "new folder" / "page.html"
    line = ["staf", "export", str(path), "--to", "html", "-o", str(target)]
    monkeypatch.setattr(sys, "argv", line)
    main()
    assert "page.html" in capsys.readouterr().out
    target.write_text("mine")
    with pytest.raises(SystemExit, match="exists already; --overwrite replaces it"):
        main()
    assert target.read_text() == "mine"
    monkeypatch.setattr(sys, "argv", [*line, "--overwrite"])
    main()
    assert "<!doctype html>" in target.read_text()


def test_pages_are_in_half_precision_and_say_what_it_costs_unless_they_are_to_be_exact(tmp_path, capsys):
    path = saved(image({"hidden_features": 96}), tmp_path)
    cost = "Half precision changes its values by"
    half = export_field(Export(path.parent, "html"))  # a folder of results stands for the field in it
    assert half == path.with_name("field-html.html")
    assert cost in " ".join(capsys.readouterr().out.split())
    full = export_field(Export(path, "html", tmp_path / "exact.html", exact=True))
    assert cost not in " ".join(capsys.readouterr().out.split())
    assert half.stat().st_size < full.stat().st_size - 2 * 2 * 96**2  # two matrices, base64 and compression aside
    with pytest.raises(ValueError, match="exact needs --to html, got --to onnx"):
        Export(path, "onnx", exact=True)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path):
    path = saved(image(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the checkpoint .* does not exist"):
        export_field(Export(tmp_path / "none", "onnx"))
    with pytest.raises(ValueError, match="output must be a different file than the checkpoint"):
        export_field(Export(path, "onnx", path, overwrite=True))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export_field(Export(path, "onnx", tmp_path))
    occupancy = saved(shape(quantity="occupancy"), tmp_path)
    with pytest.raises(ValueError, match="needs a signed distance, and an occupancy gives no distance; use --to onnx"):
        export_field(Export(occupancy, "html"))
    gabor = saved(image({"activation": ActivationConfig("gabor")}), tmp_path)
    for to in SUFFIXES:
        with pytest.raises(ValueError, match="complex"):
            export_field(Export(gabor, to))
    assert {file.name for file in tmp_path.iterdir()} == {"field.safetensors"}


def test_a_function_says_what_goes_in_and_comes_out(tmp_path):
    text = export_field(Export(saved(shape(), tmp_path), "glsl")).read_text()
    assert "// x: (p - [1.0, 2.0, 3.0]) / 2.5 for a point p of the shape's file" in text
    assert "// Gives signed distance, negative inside" in text
    text = export_field(Export(saved(image(), tmp_path), "glsl", overwrite=True)).read_text()
    assert "mapped to [0, 1]" in text
