import json

import pytest
import torch
from safetensors.torch import save_file

from staf_nerf.checkpoint import Checkpoint, load_field, load_shape, save_field
from staf_nerf.config import ActivationConfig, AudioConfig, FieldConfig, ShapeConfig, SuperResolutionConfig
from staf_nerf.migrations import FIELD_FORMAT
from staf_nerf.signals.audio import Track, audio_field
from staf_nerf.signals.image import image_field
from staf_nerf.signals.raster import Raster
from staf_nerf.signals.shape import Frame, make_field


@pytest.mark.parametrize("quantity", ["signed-distance", "occupancy"])
def test_a_field_that_is_read_back_has_the_same_values(quantity, tmp_path, generator):
    config = ShapeConfig(
        quantity=quantity,
        field=FieldConfig(activation=ActivationConfig("staf", {"num_frequencies": 3}), hidden_features=16),
        near=(0.01, 0.1),
    )
    field = make_field(config, generator=generator)
    save_field(tmp_path / "a.safetensors", Checkpoint(field, config, Frame((1.0, 2.0, 3.0), 0.5)))
    loaded, loaded_config, frame = load_shape(tmp_path / "a.safetensors")
    x = torch.rand(50, 3, generator=generator)
    assert torch.equal(loaded(x), field(x))
    assert loaded_config == config
    assert frame == Frame((1.0, 2.0, 3.0), 0.5)


def test_a_network_that_shares_its_activation_is_saved_too(tmp_path, generator):
    config = ShapeConfig(
        field=FieldConfig(
            activation=ActivationConfig("staf", {"sharing": "network"}), hidden_features=8, hidden_layers=3
        )
    )
    field = make_field(config, generator=generator)
    save_field(tmp_path / "a.safetensors", Checkpoint(field, config, Frame((0.0, 0.0, 0.0), 1.0)))
    x = torch.rand(5, 3, generator=generator)
    assert torch.equal(load_shape(tmp_path / "a.safetensors")[0](x), field(x))
    with pytest.raises(OSError, match="could not write"):
        save_field(tmp_path / "no" / "a.safetensors", Checkpoint(field, config, Frame((0.0, 0.0, 0.0), 1.0)))


def test_images_and_sounds_are_read_back_with_what_their_numbers_mean(tmp_path, generator):
    path, small = tmp_path / "a.safetensors", FieldConfig(hidden_features=8)
    raster, track = Raster(5, 7, 3, 0.0, 65535.0, "uint16"), Track(100, 2, 8000, 0.25, "PCM_16")
    image, audio = SuperResolutionConfig(factor=2, field=small), AudioConfig(field=small)
    for config, frame, field, size in (
        (image, raster, image_field(image, raster, generator=generator), 2),
        (audio, track, audio_field(audio, track, generator=generator), 1),
    ):
        save_field(path, Checkpoint(field, config, frame, "a.png", 3))
        loaded = load_field(path)
        assert (loaded.config, loaded.frame, loaded.file, loaded.seed) == (config, frame, "a.png", 3)
        x = torch.rand(5, size, generator=generator)
        assert torch.equal(loaded.field(x), field(x))
        with pytest.raises(ValueError, match=f"must contain a field of a shape, got {config.task}"):
            load_shape(path)


def test_files_that_hold_no_shape_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"the checkpoint .* does not exist"):
        load_shape(path)
    path.write_text("nonsense")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_shape(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="does not contain a field of staf_nerf"):
        load_shape(path)
    for about, message in (
        ({"format": 1, "task": "poem"}, "contains a field for the unknown task 'poem'"),
        ({"format": 99, "task": "shape"}, f"has format 99, .* reads formats up to {FIELD_FORMAT}"),
    ):
        save_file({"a": torch.ones(1)}, path, metadata={"staf_nerf": json.dumps(about)})
        with pytest.raises(ValueError, match=message):
            load_shape(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "its metadata 'staf_nerf' is not JSON"),
        ("[1]", "does not contain a field of staf_nerf"),
        ('{"task": "shape"}', "has format None"),
        ('{"format": 2, "task": ["shape"]}', "contains a field for the unknown task"),
        ('{"format": 1, "task": "shape"}', "make no field. KeyError: 'config'"),
        ('{"format": 1, "task": "shape", "config": 3, "frame": {}}', "make no field. AttributeError"),
        ('{"format": 1, "task": "shape", "config": {}, "frame": {"size": 3}}', "make no field. KeyError: 'center'"),
        (
            '{"format": 1, "task": "shape", "config": {}, "frame": {"center": [0, 0, 0], "scale": 1}}',
            "make no field. RuntimeError: Error.* in loading state_dict",
        ),
    ],
)
def test_a_damaged_description_is_one_line_that_names_the_file(tmp_path, metadata, message):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={"staf_nerf": metadata})
    with pytest.raises(ValueError, match=message) as raised:
        load_shape(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
