"""Fits of images and sounds, from files to a folder of results."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from skimage import data as pictures

from staf_nerf.__main__ import main
from staf_nerf.checkpoint import load_field
from staf_nerf.cli import mesh
from staf_nerf.config import (
    ActivationConfig,
    AudioConfig,
    DenoisingConfig,
    FieldConfig,
    FitConfig,
    ImageConfig,
    SuperResolutionConfig,
)
from staf_nerf.errors import IncompleteError
from staf_nerf.figures.training import SinusoidTrace
from staf_nerf.files.image import read_image, write_image
from staf_nerf.jobs import evaluate
from staf_nerf.jobs import fit as fitting
from staf_nerf.jobs.fit import fit_files
from staf_nerf.jobs.mesh import MakeMesh
from staf_nerf.jobs.processes import Processes
from staf_nerf.metrics.image import psnr
from staf_nerf.presets import load_preset
from staf_nerf.signals.image import ImageSignal
from staf_nerf.signals.sampling import in_chunks
from staf_nerf.tasks import audio, find_task, image
from tests.fits import fit_job

FIELD = FieldConfig(hidden_features=64, hidden_layers=2)
FIT = FitConfig(steps=400, points=2048, hidden_learning_rate=1e-2, activation_learning_rate=1e-2)
SMALL = ImageConfig(field=FIELD, fit=FIT)


@pytest.fixture
def photo(tmp_path):
    """scikit-image's astronaut, 96 x 64."""
    write_image(tmp_path / "photo.png", cv2.resize(pictures.astronaut(), (96, 64), interpolation=cv2.INTER_AREA))
    return tmp_path / "photo.png"


@pytest.fixture
def sound(tmp_path):
    time = np.arange(2000) / 8000
    wave = np.sin(2 * np.pi * 220 * time) * np.exp(-3 * time) + 0.3 * np.sin(2 * np.pi * 555 * time)
    soundfile.write(tmp_path / "sound.wav", 0.4 * np.stack([wave, wave[::-1]], -1), 8000)
    return tmp_path / "sound.wav"


def test_an_image_becomes_a_field_and_the_field_the_image(photo, tmp_path):
    output = tmp_path / "out"
    (found,) = fit_files(fit_job("image", (photo,), output=output, scale=2.0, config=SMALL))
    assert found == json.loads((output / "metrics.json").read_text())
    assert {path.name for path in output.iterdir()} == {
        "curve.png", "error.png", "field.safetensors", "found.png", "given.png", "image.png", "metrics.json",
        "report.html", "sinusoids.npz", "sinusoids.png",
    }  # fmt: skip
    assert found["metrics"]["psnr"] > 25.0
    assert found["metrics"]["ssim"] > 0.87
    pixels, made = read_image(photo), read_image(output / "image.png")
    assert made.shape == (128, 192, 3)
    small = cv2.resize(made, (96, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - pixels).mean() < 15
    again = evaluate.evaluate_field(evaluate.Evaluate(output))
    assert again["metrics"] == found["metrics"]
    with pytest.raises(ValueError, match="must contain a field of a shape, got image"):
        mesh(output, options=MakeMesh(tmp_path / "mesh.glb"))
    trace = np.load(output / "sinusoids.npz")
    assert trace["frequency"].shape == (len(trace["step"]), 2, 5)
    assert not np.array_equal(trace["amplitude"][0], trace["amplitude"][-1])
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert 'src="http' not in page


@pytest.mark.parametrize(("factor", "least"), [(2, 20.0), (4, 16.0), (6, 14.0)])
def test_super_resolution_is_better_than_a_constant_and_reports_bicubic(photo, factor, least, tmp_path):
    config = SuperResolutionConfig(field=FIELD, fit=FIT, factor=factor, pixel_samples=2, bandwidth=0.1 / factor)
    (found,) = fit_files(fit_job("superres", (photo,), output=tmp_path / "out", config=config))
    assert found["metrics"]["psnr"] > least
    assert found["metrics"]["bicubic_psnr"] > least
    assert read_image(tmp_path / "out" / "image.png").shape == (64 // factor * factor, 96, 3)  # whole blocks
    again = evaluate.evaluate_field(evaluate.Evaluate(tmp_path / "out" / "field.safetensors"))
    assert again["metrics"] == found["metrics"]


def test_denoising_removes_noise_and_stops_by_held_out_pixels(photo, tmp_path):
    config = DenoisingConfig(field=FIELD, fit=FIT, photon_count=30.0, read_noise=2.0, held_out=0.1, bandwidth=0.03)
    (found,) = fit_files(fit_job("denoise", (photo,), output=tmp_path / "out", config=config))
    measures = found["metrics"]
    assert measures["psnr"] > measures["noisy_psnr"] + 3.0
    assert len(found["held_out"]) == 9
    assert evaluate.evaluate_field(evaluate.Evaluate(tmp_path / "out"))["metrics"] == measures
    own = dataclasses.replace(config, photon_count=0.0)
    (found,) = fit_files(fit_job("denoise", (photo,), output=tmp_path / "own", config=own))
    assert set(found["metrics"]) == {"psnr_to_noisy", "psnr_held_out"}
    assert evaluate.evaluate_field(evaluate.Evaluate(tmp_path / "own"))["metrics"] == found["metrics"]


def test_a_sound_becomes_a_field_and_the_field_the_sound(sound, tmp_path):
    output = tmp_path / "out"
    config = AudioConfig(field=FIELD, fit=FIT, bandwidth=0.05)
    (found,) = fit_files(fit_job("audio", (sound,), output=output, scale=0.5, config=config))
    assert found["metrics"]["snr"] > 30.0
    assert {"sound.wav", "waves.png", "spectrograms.png", "curve.png", "report.html", "sinusoids.png"} <= {
        path.name for path in output.iterdir()
    }
    info = soundfile.info(output / "sound.wav")
    assert (info.frames, info.samplerate, info.channels) == (1000, 4000, 2)
    again = evaluate.evaluate_field(evaluate.Evaluate(output / "field.safetensors"))
    assert again["metrics"] == found["metrics"]


@pytest.mark.parametrize("kind", ["constant", "one pixel", "silence", "one sample", "floats"])
def test_signals_with_nothing_in_them_are_fitted(kind, tmp_path):
    config = dataclasses.replace(FIT, steps=20, points=64)
    if kind in ("silence", "one sample"):
        soundfile.write(tmp_path / "a.wav", np.zeros((500 if kind == "silence" else 1, 1)), 8000)
        asked = fit_job("audio", (tmp_path / "a.wav",), tmp_path / "out", config=AudioConfig(field=FIELD, fit=config))
        (found,) = fit_files(asked)
    else:
        pixels = {"constant": np.full((20, 20, 3), 77, np.uint8), "one pixel": np.full((1, 1, 1), 9, np.uint8)}
        floats = np.random.default_rng(0).uniform(1.0, 30.0, (20, 20, 3)).astype(np.float32)
        suffix = ".exr" if kind == "floats" else ".png"
        write_image(tmp_path / f"a{suffix}", pixels.get(kind, floats))
        asked = fit_job(
            "image", (tmp_path / f"a{suffix}",), tmp_path / "out", config=ImageConfig(field=FIELD, fit=config)
        )
        (found,) = fit_files(asked)
        assert (tmp_path / "out" / f"image{suffix}").is_file()
    assert found["steps"] == 20


def test_results_are_not_overwritten_unless_asked(photo, tmp_path):
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=5))
    fit_files(fit_job("image", (photo,), output=tmp_path / "out", config=config))
    with pytest.raises(FileExistsError, match="out contains results already; --overwrite replaces them"):
        fit_files(fit_job("image", (photo,), output=tmp_path / "out", config=config))
    fit_files(fit_job("image", (photo,), output=tmp_path / "out", overwrite=True, config=config))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match=r"output must be a folder, .*file is a file"):
        fit_files(fit_job("image", (photo,), output=tmp_path / "file", config=config))
    with pytest.raises(OSError, match="cannot write to the folder /proc/here: No such file or directory"):
        fit_files(fit_job("image", (photo,), output=Path("/proc/here"), config=config))


def test_several_files_get_a_folder_each(photo, tmp_path):
    write_image(tmp_path / "photo.tiff", read_image(photo))
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=5))
    fit_files(fit_job("image", (photo, tmp_path / "photo.tiff"), tmp_path / "out", config=config))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"photo.png", "photo.tiff"}
    with pytest.raises(ValueError, match="files must have different names"):
        fit_files(fit_job("image", (photo, photo), tmp_path / "out", config=config))


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_an_image_becomes_the_same_with_other_images_beside_it(photo, tmp_path, optimizer):
    write_image(tmp_path / "other.png", 255 - read_image(photo)[::-1])
    write_image(tmp_path / "grey.png", read_image(photo)[..., :1])
    files = (photo, tmp_path / "other.png", tmp_path / "grey.png")
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=30, points=500, optimizer=optimizer))
    found = fit_files(fit_job("image", files, output=tmp_path / "all", config=config))
    assert [one["file"] for one in found] == ["photo.png", "other.png", "grey.png"]
    for one, file in zip(found, files, strict=True):
        (alone,) = fit_files(fit_job("image", (file,), tmp_path / "alone" / file.stem, config=config))
        assert one["metrics"] == alone["metrics"]
        fields = [tmp_path / folder / file.stem / "field.safetensors" for folder in ("all", "alone")]
        weights = [load_field(path).field.state_dict() for path in fields]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        for mine, theirs in zip(one["losses"], alone["losses"], strict=True):
            assert mine["squared error"] == theirs["squared error"]
    assert found[0]["metrics"]["psnr"] != found[1]["metrics"]["psnr"]


@pytest.mark.parametrize(("epoch_metrics", "groups"), [(False, [2]), (True, [1, 1])])
def test_images_of_different_sizes_are_fitted_at_once_unless_epochs_are_counted(photo, tmp_path, epoch_metrics, groups):
    write_image(tmp_path / "larger.png", np.tile(read_image(photo), (2, 1, 1)))
    files = (photo, tmp_path / "larger.png")
    asked = fit_job("image", files, tmp_path / "out", config=SMALL, epoch_metrics=epoch_metrics)
    pairs = [(file, tmp_path / "out" / file.stem) for file in files]
    found = fitting._groups(asked, pairs, Processes(rank=0, count=1, joint=True))
    assert [len(group) for group in found] == groups


def torchrun(*arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = "from staf_nerf.__main__ import main; main()"
    done = subprocess.run([*command, "--no-python", sys.executable, "-c", program, *arguments], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("optimizer", "rounding"), [("adam", 1e-3), ("muon", 0.03)])  # float32; Muon's bfloat16
def test_two_processes_share_one_image_and_follow_the_curve_of_one(photo, optimizer, rounding, tmp_path):
    options = ["--steps", "40", "--points", "1023", "--hidden-features", "32"]
    options += ["--optimizer", optimizer]
    torchrun("fit", "image", str(photo), "--output", str(tmp_path / "two"), *options)
    config = load_preset("image", "cpu", ImageConfig())
    fit = dataclasses.replace(config.fit.lasting(steps=40), points=1023, optimizer=optimizer)
    config = dataclasses.replace(config, fit=fit, field=dataclasses.replace(config.field, hidden_features=32))
    (alone,) = fit_files(fit_job("image", (photo,), output=tmp_path / "one", config=config))
    found = json.loads((tmp_path / "two" / "metrics.json").read_text())
    for mine, theirs in zip(found["losses"], alone["losses"], strict=True):
        assert mine["squared error"] == pytest.approx(theirs["squared error"], rel=rounding)


def test_two_processes_divide_a_set_of_images(photo, tmp_path):
    write_image(tmp_path / "other.png", read_image(photo)[::-1])
    files = [str(photo), str(tmp_path / "other.png")]
    options = ["--steps", "5", "--hidden-features", "8"]
    torchrun("fit", "image", *files, "--output", str(tmp_path / "out"), *options)
    for name in ("photo", "other"):
        assert json.loads((tmp_path / "out" / name / "metrics.json").read_text())["steps"] == 5


def interrupt_once(monkeypatch, call: int) -> None:
    """Ctrl-C when the sinusoids are recorded for the given time."""
    record, calls = SinusoidTrace.record, []

    def impatient(self, step):
        calls.append(step)
        if len(calls) == call:
            raise KeyboardInterrupt
        record(self, step)

    monkeypatch.setattr(SinusoidTrace, "record", impatient)


def test_an_interrupted_fit_writes_what_it_has_and_resumes(photo, tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=250))
    interrupt_once(monkeypatch, 2)
    asked = fit_job("image", (photo,), output=tmp_path / "out", epoch_metrics=True, config=config)
    (found,) = fit_files(asked)
    assert found["interrupted"]
    assert found["steps"] < 250
    assert found["metrics"]["psnr"] > 10.0
    (found,) = fit_files(dataclasses.replace(asked, resume=True))
    assert not found["interrupted"]
    assert found["steps"] == 250
    assert [row["step"] for row in found["losses"]] == list(range(0, 250, 10))
    assert len(found["epochs"]) == 250 // 3  # 6144 pixels, 2048 a step


def test_an_interrupt_ends_all_and_what_is_finished_is_not_fitted_again(photo, tmp_path, monkeypatch):
    write_image(tmp_path / "grey.png", read_image(photo)[..., :1])
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=250))
    interrupt_once(monkeypatch, 3)
    asked = fit_job("image", (photo, tmp_path / "grey.png"), output=tmp_path / "out", config=config)
    (found,) = fit_files(asked)  # the second is not begun
    assert found["interrupted"]
    with pytest.raises(FileExistsError, match=r"photo contains a fit; --resume continues it"):
        fit_files(asked)
    with pytest.raises(ValueError, match=r"is the state of a fit of photo.png seed 0, not of photo.png seed 1"):
        fit_files(dataclasses.replace(asked, resume=True, seed=1))
    found = fit_files(dataclasses.replace(asked, resume=True))
    assert [(one["file"], one["steps"], one["interrupted"]) for one in found] == [
        ("photo.png", 250, False), ("grey.png", 250, False),
    ]  # fmt: skip
    traces = [np.load(tmp_path / "out" / name / "sinusoids.npz")["step"].tolist() for name in ("photo", "grey")]
    assert traces[0][0] == traces[1][0] == 1  # as if it had not been interrupted
    assert sorted(set(traces[0])) == traces[0]
    before = (tmp_path / "out" / "photo" / "metrics.json").stat().st_mtime_ns
    assert fit_files(dataclasses.replace(asked, resume=True)) == []
    assert (tmp_path / "out" / "photo" / "metrics.json").stat().st_mtime_ns == before


def test_a_loss_that_is_nan_is_said_and_survived(photo, tmp_path, monkeypatch, capsys):
    losses, calls = ImageSignal.losses, []

    def broken(self, field, batch):
        calls.append(None)
        found = losses(self, field, batch)
        return {name: value * float("nan") for name, value in found.items()} if len(calls) == 121 else found

    monkeypatch.setattr(ImageSignal, "losses", broken)
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=200))
    (found,) = fit_files(fit_job("image", (photo,), tmp_path / "out", config=config))
    assert found["rollbacks"] == [120]
    assert found["steps"] == 200
    assert found["metrics"]["psnr"] > 15.0
    said = "".join(capsys.readouterr().out.split())
    assert "thelosswasNaNorinfiniteatstep120:wentback,andhalvedthelearningrates" in said


def test_an_interrupted_fit_goes_on_for_longer_than_was_asked_first(photo, tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=250))
    interrupt_once(monkeypatch, 2)
    asked = fit_job("image", (photo,), tmp_path / "out", config=config)
    assert fit_files(asked)[0]["interrupted"]
    longer = dataclasses.replace(config, fit=dataclasses.replace(config.fit, steps=300))
    (found,) = fit_files(dataclasses.replace(asked, resume=True, config=longer))
    assert (found["steps"], found["interrupted"]) == (300, False)


def test_a_fit_in_passes_goes_on_for_more_of_them(photo, tmp_path, monkeypatch):
    fit = FIT.lasting(epochs=60)
    interrupt_once(monkeypatch, 2)
    asked = fit_job("image", (photo,), tmp_path / "out", config=dataclasses.replace(SMALL, fit=fit))
    assert fit_files(asked)[0]["interrupted"]
    without = dataclasses.replace(asked, resume=True, config=dataclasses.replace(SMALL, fit=FIT))
    with pytest.raises(ValueError, match="is the state of a fit with different settings"):
        fit_files(without)
    longer = dataclasses.replace(SMALL, fit=dataclasses.replace(fit, epochs=80))
    (found,) = fit_files(dataclasses.replace(asked, resume=True, config=longer))
    assert (found["steps"], found["interrupted"]) == (240, False)  # 6144 pixels, 2048 a step


def test_a_first_frequency_without_effect_is_refused(photo, sound, tmp_path):
    message = r"first_omega has no effect unless bandwidth is 0, got 60.0 and bandwidth 0.1"
    field = dataclasses.replace(FIELD, activation=ActivationConfig("staf", {"first_omega": 60.0}))
    with pytest.raises(ValueError, match=message):
        fit_files(fit_job("image", (photo,), tmp_path / "out", config=dataclasses.replace(SMALL, field=field)))
    with pytest.raises(ValueError, match=message):
        fit_files(fit_job("audio", (sound,), tmp_path / "out", config=AudioConfig(field=field, fit=FIT, bandwidth=0.1)))
    assert not (tmp_path / "out").exists()


def test_sixteen_channels_of_sound_are_fitted(tmp_path):
    waves = np.sin(np.linspace(0, 60, 800)[:, None] * np.arange(1, 17) / 16)
    soundfile.write(tmp_path / "many.wav", waves, 8000)
    config = AudioConfig(field=FIELD, fit=FIT, bandwidth=0.1)
    (found,) = fit_files(fit_job("audio", (tmp_path / "many.wav",), tmp_path / "out", config=config))
    assert found["metrics"]["snr"] > 20.0
    assert soundfile.info(tmp_path / "out" / "sound.wav").channels == 16


def test_another_file_than_the_fitted_one_is_refused(photo, tmp_path):
    config = dataclasses.replace(SMALL, fit=dataclasses.replace(FIT, steps=5))
    fit_files(fit_job("image", (photo,), output=tmp_path / "out", config=config))
    write_image(tmp_path / "other.png", np.zeros((5, 5, 3), np.uint8))
    checkpoint = tmp_path / "out" / "field.safetensors"
    with pytest.raises(ValueError, match=r"other.png is Raster\(height=5"):
        evaluate.evaluate_field(evaluate.Evaluate(checkpoint, file=tmp_path / "other.png"))
    photo.unlink()
    with pytest.raises(FileNotFoundError, match="does not exist; name it with --file"):
        evaluate.evaluate_field(evaluate.Evaluate(checkpoint))


@pytest.mark.parametrize("prefix", ["", "paper-"])
@pytest.mark.parametrize("task", ["image", "superres", "denoise"])
def test_presets_are_of_their_task(task, prefix):
    assert load_preset(prefix + task, "cpu", find_task(task).config).task == task
    assert load_preset(f"{prefix}audio", "cpu", AudioConfig()).task == "audio"


def test_the_published_network_has_its_weights_and_takes_whole_passes(photo, tmp_path):
    config = load_preset("paper-image", "cpu", ImageConfig())
    config = dataclasses.replace(config, fit=config.fit.lasting(epochs=3))
    (found,) = fit_files(fit_job("image", (photo,), tmp_path / "out", config=config))
    assert found["parameters"] == 198_975
    assert found["steps"] == 3 * 2  # 6144 pixels, 4096 a step
    assert found["first_omega"] == 60.0


def test_published_scores_are_the_best_of_the_passes_and_ours_is_the_last(photo, sound, tmp_path):
    fit = FIT.lasting(epochs=12)
    config = dataclasses.replace(SMALL, fit=fit)
    (found,) = fit_files(fit_job("image", (photo,), tmp_path / "image", epoch_metrics=True, config=config))
    scores = [row["psnr"] for row in found["epochs"]]
    assert len(scores) == 12
    assert scores[-1] == found["metrics"]["psnr"] > scores[0]
    assert found["metrics"]["psnr_of_best_epoch"] == max(scores)
    write_image(tmp_path / "other.png", read_image(photo)[::-1])
    write_image(tmp_path / "larger.png", np.tile(read_image(photo), (2, 1, 1)))
    files = (photo, tmp_path / "other.png", tmp_path / "larger.png")
    several = fit_files(fit_job("image", files, tmp_path, epoch_metrics=True, config=config))
    assert [found["steps"] for found in several] == [36, 36, 72]  # a pass of the larger one takes twice as many
    for found in several:
        assert len(found["epochs"]) == 12
        assert found["epochs"][-1]["psnr"] == found["metrics"]["psnr"]
    assert several[0]["epochs"] != several[1]["epochs"]
    (found,) = fit_files(
        fit_job("audio", (sound,), tmp_path / "audio", epoch_metrics=True, config=AudioConfig(field=FIELD, fit=fit))
    )
    assert len(found["epochs"]) == 12
    assert found["epochs"][-1]["psnr"] == found["metrics"]["psnr"]
    noisy = fit_job("denoise", (photo,), tmp_path / "noisy", epoch_metrics=True, config=DenoisingConfig())
    with pytest.raises(ValueError, match="metrics after each epoch need a truth"):
        fit_files(noisy)


def test_the_commands_name_a_bad_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "text.png").write_text("this is no image")
    for arguments, message in (
        (["fit", "image", str(tmp_path / "text.png"), "--output", str(tmp_path / "a")], "cannot be read as an image"),
        (["fit", "audio", str(tmp_path / "none.wav"), "--output", str(tmp_path / "b")], "no file"),
        (["eval", str(tmp_path / "none.safetensors")], "does not exist"),
    ):
        monkeypatch.setattr("sys.argv", ["staf", *arguments])
        with pytest.raises(SystemExit, match=message):
            main()


def test_a_preset_gives_the_values_that_options_start_from(photo, tmp_path, monkeypatch):
    preset = tmp_path / "mine.toml"
    preset.write_text('task = "image"\nbandwidth = 0.2\n[field]\nhidden_features = 9\n[fit]\nsteps = 4\n')
    arguments = ["fit", "image", str(photo), "--preset", str(preset), "--steps", "3", "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["staf", *arguments])
    main()
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (found["config"]["bandwidth"], found["config"]["field"]["hidden_features"], found["steps"]) == (0.2, 9, 3)
    for preset, message in (
        ("none", r"preset must be one of \['image'.*got 'none'"),
        ("audio-sine", "the preset is for the task .audio., a preset for .image. is needed"),
    ):
        monkeypatch.setattr("sys.argv", ["staf", "fit", "image", str(photo), f"--preset={preset}"])
        with pytest.raises(SystemExit, match=message):
            main()


def test_fields_are_asked_in_parts(monkeypatch):
    monkeypatch.setattr("staf_nerf.signals.sampling.CHUNK", 7)
    asked = []

    def double(x):
        asked.append(len(x))
        return 2.0 * x

    x = torch.rand(20, 3)
    assert torch.equal(in_chunks(double, x), 2.0 * x)
    assert asked == [7, 7, 6]


def test_the_psnr_while_fitting_is_that_of_the_result(photo, sound, tmp_path):
    fit = dataclasses.replace(FIT, points=0, steps=41)
    (picture,) = fit_files(fit_job("image", (photo,), tmp_path / "a", config=ImageConfig(field=FIELD, fit=fit)))
    (tone,) = fit_files(fit_job("audio", (sound,), tmp_path / "b", config=AudioConfig(field=FIELD, fit=fit)))
    for found in (picture, tone):
        last = psnr(found["losses"][-1]["squared error"], find_task(found["task"]).peak)
        assert last == pytest.approx(found["metrics"]["psnr"], abs=0.5)


def test_pictures_that_cannot_be_drawn_take_nothing_from_the_other_results(photo, sound, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    for module, name in ((image, "draw_picture"), (audio, "draw_waves"), (fitting, "draw_curve")):
        monkeypatch.setattr(module, name, fails)
    short = dataclasses.replace(FIT, steps=40)
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    with pytest.raises(IncompleteError, match=r"photo.png: pictures, curve; other.png: pictures, curve"):
        fit_files(
            fit_job("image", (photo, other), output=tmp_path / "out", config=ImageConfig(field=FIELD, fit=short))
        )  # fmt: skip
    with pytest.raises(IncompleteError):
        fit_files(fit_job("audio", (sound,), output=tmp_path / "sound", config=AudioConfig(field=FIELD, fit=short)))
    for folder, name in (("out/photo", "image.png"), ("out/other", "image.png"), ("sound", "sound.wav")):
        made = {path.name for path in (tmp_path / folder).iterdir()}
        assert made >= {name, "field.safetensors", "metrics.json", "report.html", "sinusoids.png"}
        found = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert 'pip install "staf-nerf[signals]"' in found["failed"]["pictures"]
        assert found["metrics"]["psnr"] > 5


def test_metrics_that_cannot_be_computed_take_nothing_from_the_other_results(photo, sound, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")

    monkeypatch.setattr(image, "render_and_measure", fails)
    monkeypatch.setattr(audio, "measure_sound", fails)
    short = dataclasses.replace(FIT, steps=40)
    with pytest.raises(IncompleteError, match="metrics"):
        fit_files(fit_job("image", (photo,), output=tmp_path / "out", config=ImageConfig(field=FIELD, fit=short)))
    with pytest.raises(IncompleteError, match="metrics"):
        fit_files(fit_job("audio", (sound,), output=tmp_path / "sound", config=AudioConfig(field=FIELD, fit=short)))
    assert read_image(tmp_path / "out" / "image.png").shape == (64, 96, 3)
    for folder in ("out", "sound"):
        made = {path.name for path in (tmp_path / folder).iterdir()}
        assert made >= {"field.safetensors", "metrics.json", "report.html", "curve.png"}
        assert json.loads((tmp_path / folder / "metrics.json").read_text())["metrics"] == {}


def test_results_of_an_earlier_fit_are_not_taken_for_those_of_this_one(photo, tmp_path, monkeypatch):
    short = ImageConfig(field=FIELD, fit=dataclasses.replace(FIT, steps=20))
    fit_files(fit_job("image", (photo,), output=tmp_path / "out", config=short))
    assert (tmp_path / "out" / "error.png").is_file()

    def fails(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(image, "draw_error_map", fails)
    with pytest.raises(IncompleteError):
        fit_files(fit_job("image", (photo,), output=tmp_path / "out", config=short, overwrite=True))
    assert not (tmp_path / "out" / "error.png").exists()
    assert (tmp_path / "out" / "image.png").is_file()
