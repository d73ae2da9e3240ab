"""`staf ntk`, on small networks and grids."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from staf_nerf import ImageConfig, ShapeConfig, empirical_ntk
from staf_nerf.checkpoint import Checkpoint, save_field
from staf_nerf.config import AudioConfig, FieldConfig, HashGridConfig, IdentityConfig
from staf_nerf.jobs.ntk import CompareKernels, compare_kernels, make_network, make_target
from staf_nerf.progress import Stages
from staf_nerf.signals.audio import Track, audio_field
from staf_nerf.signals.image import image_field
from staf_nerf.signals.raster import Raster
from staf_nerf.signals.shape import Frame, make_field
from staf_nerf.theory.descent import bands, compare
from tests.plugin.conftest import command

SMALL = FieldConfig(hidden_features=16, hidden_layers=2)


def test_the_command_writes_pictures_numbers_and_a_page(tmp_path):
    line = ["staf", "siren", "relu-pe", "--size", "8", "--steps", "5", "--hidden-features", "16"]
    printed = command("staf", "ntk", *line, "--output", tmp_path / "found", cwd=tmp_path).stdout
    assert "siren" in printed
    pictures = {"spectra.png", "eigenfunctions.png", "decay.png", "parts.png"}
    assert {path.name for path in (tmp_path / "found").iterdir()} == pictures | {"ntk.json", "report.html"}
    assert all(np.asarray(Image.open(tmp_path / "found" / name)).std() > 5 for name in pictures)
    first, second, third = json.loads((tmp_path / "found" / "ntk.json").read_text())["networks"]
    for one in (first, second, third):
        assert sum(one["shares_of_the_trace"].values()) == pytest.approx(1.0)
        assert sum(one["eigenvalues"]) == pytest.approx(one["trace"])
        assert sum(row[0] for row in one["error_of_bands_measured"]) == pytest.approx(1.0)
        assert len(one["error_of_bands_predicted"][0]) == 6
    sinusoids = sum(first["shares_of_the_trace"][name] for name in ("amplitude", "frequency", "phase"))
    assert sum(first["sinusoids_along_eigenvectors"]) == pytest.approx(sinusoids * first["trace"])
    assert not any(second["sinusoids_along_eigenvectors"])


def test_measured_errors_follow_the_foretold_ones_while_the_kernel_stays():
    x, target = make_target(6, None)
    model = make_network("staf", FieldConfig(hidden_features=128, hidden_layers=2))
    near = model(x).detach().reshape(target.shape) + 1e-3 * target  # so near that no weight needs to move far
    with Stages(Console(quiet=True)) as stages:
        found = compare("staf", model, x, near, rate=0.5, steps=40, stages=stages)
    assert found.moved < 0.01
    # The kernel moves by less than a hundredth, and 40 steps multiply that by the few times the error halves.
    torch.testing.assert_close(found.measured, found.predicted, atol=5e-3, rtol=0.0)
    assert found.measured[-1].sum() < 0.5


def test_a_target_is_the_picture_made_small_in_grey(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = (255, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "half.png")
    x, target = make_target(16, tmp_path / "half.png")
    assert target.shape == (8, 16)
    assert x.shape == (128, 2)
    torch.testing.assert_close(x.abs().amax(0), torch.tensor([15 / 16, 7 / 16], dtype=torch.float64))
    assert target[:, :6].max() == pytest.approx(-1.0)
    assert target[:, 10:].min() == pytest.approx(1 / 3)  # the mean of 1, 1, -1


def test_a_fitted_images_network_is_the_mean_of_its_channels(tmp_path, generator):
    config = ImageConfig(field=SMALL)
    raster = Raster(8, 8, 3, 0.0, 255.0, "uint8")
    field = image_field(config, raster, generator=generator)
    save_field(tmp_path / "field.safetensors", Checkpoint(field, config, raster))
    model = make_network(str(tmp_path / "field.safetensors"), FieldConfig())
    x, _ = make_target(4, None)
    torch.testing.assert_close(model(x), field.double()(x).mean(-1, keepdim=True))


def test_a_fitted_shapes_network_is_its_middle_plane(tmp_path, generator):
    config = ShapeConfig(field=SMALL)
    field = make_field(config, generator=generator)
    save_field(tmp_path / "field.safetensors", Checkpoint(field, config, Frame((0.0, 0.0, 0.0), 1.0)))
    model = make_network(str(tmp_path / "field.safetensors"), FieldConfig())
    x, _ = make_target(4, None)
    space = torch.cat([x, torch.zeros(16, 1)], 1).double()
    torch.testing.assert_close(model(x), field.double()(space))
    torch.testing.assert_close(empirical_ntk(model, x), empirical_ntk(field, space))


def test_a_sounds_network_and_unknown_names_are_refused(tmp_path, generator):
    config = AudioConfig(field=SMALL)
    track = Track(100, 1, 8000, 1.0)
    save_field(tmp_path / "a.safetensors", Checkpoint(audio_field(config, track, generator=generator), config, track))
    with pytest.raises(ValueError, match="must hold the field of an image or a shape, got audio"):
        make_network(str(tmp_path / "a.safetensors"), FieldConfig())
    with pytest.raises(FileNotFoundError, match=r"the checkpoint .* does not exist"):
        make_network("absent.safetensors", FieldConfig())
    for name in ("tanh", "relu-cosines"):
        with pytest.raises(ValueError, match=f"compare must name an activation of .* got '{name}'"):
            make_network(name, FieldConfig())


@pytest.mark.parametrize("name", ["gabor", "mfn", "finer-ff", "staf-hash"])
def test_every_activation_and_encoding_can_be_compared(name, tmp_path):
    grid = HashGridConfig(num_levels=2, log2_table_size=6, max_resolution=20)
    encoding = grid if name.endswith("hash") else IdentityConfig()
    config = FieldConfig(encoding, hidden_features=8, hidden_layers=2)
    (found,) = compare_kernels(CompareKernels((name,), output=tmp_path, size=6, steps=3, config=config, overwrite=True))
    assert found.spectrum.values[0] > 0
    assert found.measured.isfinite().all()


@pytest.mark.parametrize("count", [2, 64, 1024, 1000])
def test_bands_cover_all_eigenvectors_once(count):
    groups = bands(count)
    assert groups[0].start == 0
    assert groups[-1].stop == count
    assert all(a.stop == b.start and a.start < a.stop for a, b in itertools.pairwise(groups))


def test_options_out_of_range_are_refused():
    for options, message in (
        ({"compare": ()}, "compare must name one network or more"),
        ({"compare": ("staf", "staf")}, "compare must name each network once"),
        ({"compare": ("a/fit/field.safetensors", "b/fit/field.safetensors")}, "files by their folders"),
        ({"size": 1}, "size must be >= 2, got 1"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"rate": 2.0}, "rate must be between 0 and 2, got 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            CompareKernels(**options)
