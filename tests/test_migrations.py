"""Files that version 0.1 wrote (commit 7afe599) are read, and mean the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from staf_nerf import ColorConfig, CoordinateMLP, RadianceField
from staf_nerf.activations import checked_options
from staf_nerf.bench.sweep import changed
from staf_nerf.checkpoint import load_field
from staf_nerf.config import ActivationConfig, FieldConfig, HashGridConfig, ImageConfig, OctavesConfig
from staf_nerf.fitting.optimizers import ordered_parameters, parameter_groups
from staf_nerf.jobs import evaluate
from staf_nerf.jobs.export import Export, export_field
from staf_nerf.migrations import FIELD_FORMAT, migrate, parameter_name, present_groups
from staf_nerf.presets import load_preset
from staf_nerf.tasks import find_task

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
    found = evaluate.evaluate_field(job)["metrics"]
    assert EXPECTED[name].keys() <= found.keys()
    # float32 on another processor. On a surface with a triangle more, other points are drawn at random (200,000).
    tolerance = 1e-2 if resolution else 1e-4
    for metric, value in EXPECTED[name].items():
        assert found[metric] == pytest.approx(value, rel=tolerance, abs=1e-5), metric


@pytest.mark.parametrize("name", FILES)
def test_a_field_of_version_0_1_is_exported(name, tmp_path):
    path = export_field(Export(OLD / f"{name}.safetensors", "sine-safetensors", tmp_path / "sines.safetensors"))
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


def names_of_0_1(activation, layers):
    """The parameters of a network of version 0.1, in its order: all linear maps, all activations, the output."""
    own = {"staf": ["amplitude", "frequency", "phase"]}.get(activation, [])
    names = [f"linears.{i}.{kind}" for i in range(layers) for kind in ("weight", "bias")]
    for i in range(layers):
        mine = own or (["filter.weight", "filter.bias"] if activation == "filter" and i else [])
        names += [f"activations.{i}.{name}" for name in mine]
    return [*names, "output.weight", "output.bias"]


@pytest.mark.parametrize("prefix", ["", "geometry.mlp.", "_model.field.field.color_mlp."])
def test_parameters_of_a_network_have_other_names_since_0_1(prefix):
    for old, new in (
        ("linears.10.bias", "layers.10.linear.bias"),
        ("activations.2.phase", "layers.2.activation.phase"),
        ("activations.2.filter.weight", "layers.2.filter.weight"),
        ("output.weight", "output.weight"),
    ):
        assert parameter_name(prefix + old) == prefix + new
        assert parameter_name(prefix + new) == prefix + new


@pytest.mark.parametrize("activation", ["staf", "sine", "finer", "gaussian", "gabor", "sinc", "filter", "relu"])
def test_a_network_reads_its_weights_by_the_names_of_0_1_and_optimisers_count_them_alike(activation, generator):
    made = [CoordinateMLP(2, 1, hidden_features=4, activation=activation, generator=generator) for _ in range(2)]
    parameters = dict(made[0].named_parameters())
    old = {name: parameters[parameter_name(name)] for name in names_of_0_1(activation, 3)}
    assert len(old) == len(parameters)
    assert [id(p) for p in ordered_parameters(made[0])] == [id(p) for p in old.values()]
    outer = torch.nn.Sequential(made[1])
    outer.load_state_dict({f"0.{name}": value for name, value in old.items()})
    for mine, theirs in zip(made[1].parameters(), made[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_wrong_name_is_still_refused():
    state = CoordinateMLP(2, 1, hidden_features=4).state_dict()
    state["linears.7.weight"] = state.pop("layers.0.linear.weight")
    with pytest.raises(
        RuntimeError, match=r"Missing key.*layers.0.linear.weight(.|\n)*Unexpected.*layers.7.linear.weight"
    ):
        CoordinateMLP(2, 1, hidden_features=4).load_state_dict(state)


def test_the_optimisers_of_a_run_of_version_0_1_keep_their_state_for_each_parameter():
    (path,) = (OLD / "run").glob("*/*.ckpt")
    saved = torch.load(path)
    encoding = HashGridConfig(num_levels=4, log2_table_size=7, coordinate_scale=1.0)
    config = FieldConfig(encoding, ActivationConfig("staf", {"num_frequencies": 3}), hidden_features=8)
    field = RadianceField(config, ColorConfig(hidden_features=8, hidden_layers=2, appearance_features=0))
    prefix = "_model.field.field."
    field.load_state_dict({k.removeprefix(prefix): v for k, v in saved["pipeline"].items() if k.startswith(prefix)})
    groups = parameter_groups(field)
    assert not groups.pop("first_layer")  # it reads the grid's features
    optimizers = present_groups(saved["optimizers"])
    for name, parameters in groups.items():
        state = optimizers[name]["state"]
        assert len(state) == len(parameters)
        for number, parameter in enumerate(parameters):
            kept = [value for key, value in state[number].items() if key != "step"]
            assert all(value.shape == parameter.shape for value in kept), (name, number)


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


def test_the_settings_of_a_surface_of_version_0_1_are_read():
    pytest.importorskip("nerfstudio")
    import yaml

    model = yaml.load((OLD / "staf-nerf-sdf.yml").read_text(), Loader=yaml.Loader)
    assert (model.surface.prior_steps, model.surface.prior_weight, model.surface.extent) == (123, 0.25, 0.5)
    grid = HashGridConfig(log2_table_size=17, feature_scale=1.0, coordinate_scale=3.0)
    staf = {"num_frequencies": 3, "sharing": "layer", "initialization": "staf-published"}
    scales = {"first_omega": 7.0, "hidden_omega": 1.0}
    assert model.field == FieldConfig(encoding=grid, activation=ActivationConfig("staf", staf | scales))
    gaussian = ActivationConfig("gaussian", {"width": 0.2})
    assert model.background == FieldConfig(encoding=OctavesConfig(num_frequencies=4), activation=gaussian)
    assert model.color.activation == ActivationConfig("field", {"first_omega": 2.0})
    assert model.color.appearance_features == 0
    assert model.proposal.encoding == HashGridConfig(num_levels=5, log2_table_size=13, max_resolution=128)
    assert model.proposal.activation == ActivationConfig("relu")
    again = yaml.load(yaml.dump(model), Loader=yaml.Loader)
    assert again == model


def test_the_option_of_a_field_of_earlier_formats_goes_to_what_has_it_now():
    flat = {"encoding": "fourier", "encoding_frequencies": 7, "encoding_scale": 2.0, "num_levels": 3, "skip": True}
    flat |= {"activation": "staf", "num_frequencies": 4, "initialization": "theorem", "gaussian_width": 1.0}
    found = migrate({"format": 2, "task": "image", "config": {"description": "", "field": flat, "fit": {}}})
    assert found["config"]["field"] == {
        "encoding": {"name": "fourier", "num_frequencies": 7, "scale": 2.0},
        "activation": {"name": "staf", "options": {"num_frequencies": 4, "initialization": "staf-theorem"}},
        "skip": True,
    }
    assert "description" not in found["config"]


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ({"minutes": 1.0, "steps": 0, "epochs": 0}, {"minutes": 1.0}),
        ({"minutes": 0.0, "steps": 20, "passes": 0}, {"steps": 20}),
        ({"minutes": 1.0, "steps": 20, "passes": 3}, {"epochs": 3}),
    ],
)
def test_a_fit_of_earlier_formats_has_the_budget_that_decided(old, now):
    found = migrate({"format": 1, "task": "image", "config": {"fit": old | {"points": 5}}})
    assert found["config"]["fit"] == now | {"points": 5}


def test_every_method_of_the_recorded_benchmarks_is_understood():
    methods = set()
    for path in sorted((OLD.parents[1] / "benchmarks" / "results").glob("*.json")):
        result = json.loads(path.read_text())
        methods |= {(result["task"], row["method"]) for row in result.get("rows", []) if "task" in result}
    assert len(methods) > 250
    for task, method in methods:
        name, *changes = method.split("+")
        config = changed(load_preset(name, "cpu", find_task(task).config), changes)
        assert checked_options(config.field.activation.name, config.field.activation.options) is not None


def test_old_keys_of_benchmarks_mean_what_they_meant():
    changes = ["field.encoding=hash", "field.num_levels=16", "field.first_omega=6.0", "field.initialization=theorem"]
    field = changed(ImageConfig(), changes).field
    assert field.encoding == HashGridConfig(num_levels=16)
    assert field.activation == ActivationConfig("staf", {"first_omega": 6.0, "initialization": "staf-theorem"})
    octaves = changed(ImageConfig(), ["relu", "field.encoding=octaves", "field.encoding_frequencies=6"]).field
    assert octaves == changed(ImageConfig(), ["relu", "field.encoding=octaves:num_frequencies=6"]).field
    assert octaves.encoding == OctavesConfig(num_frequencies=6)
    assert changed(ImageConfig(), ["gaussian:width=0.1"]).field.activation == ActivationConfig(
        "gaussian", {"width": 0.1}
    )
    assert changed(ImageConfig(), ["relu", "field.first_omega=6.0"]).field.activation == ActivationConfig("relu")
