"""The benchmarks of cost, in small: that their baselines compute the same things, and what they report."""

import json

import pytest
import torch

from staf_nerf.bench import activation, linear, mlp, nerf_speed
from staf_nerf.bench.baselines import BASELINE, baselines, broadcast_name, is_fused, staf_name
from staf_nerf.kernels import library
from tests.bench.test_nerf import SMALL
from tests.conftest import write_capture


@pytest.mark.parametrize(
    ("ours", "eager"),
    [
        ("sine", BASELINE),
        ("FINER", "FINER, eager"),
        ("Gaussian", "Gaussian, eager"),
        ("STAF τ=3", "STAF τ=3, broadcast"),
    ],
)
def test_peers_are_the_same_function_with_the_same_gradients(ours, eager, generator):
    compared = baselines((3,), compiled=False)
    z = (0.3 * torch.randn(20, 8, generator=generator)).double().requires_grad_()
    results = []
    for name in (ours, eager):
        y = compared[name].make(8).double()(z)
        results.append([y, torch.autograd.grad(y.square().sum(), z)[0]])
    torch.testing.assert_close(*results)
    here = library.library() is not None
    assert is_fused(compared[ours], "cpu", torch.float32) == here
    assert not is_fused(compared[eager], "cpu", torch.float32)


def test_the_activation_benchmark_reports_times_ratios_and_memory(tmp_path, capsys):
    output = tmp_path / "result.json"
    benchmark = activation.ActivationBenchmark(
        batch=64, width=8, num_frequencies=(5,), threads=(1, 2), rounds=2, compiled=False, output=output
    )
    activation.main(benchmark)
    result = json.loads(output.read_text())
    assert {"cpu", "versions", "commit", "command"} < result.keys()
    rows = {(row["name"], row["threads"]): row for row in result["rows"]}
    for threads in (1, 2):
        for operation in activation.OPERATIONS:
            assert rows[BASELINE, threads][f"{operation}, ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
        assert rows[staf_name(5), threads]["bytes_kept"] == 4.0  # z and nothing else
        # The broadcast formula keeps z, and the sines and arguments of all terms.
        assert rows[broadcast_name(5), threads]["bytes_kept"] >= 4.0 * (1 + 2 * 5)
    assert "STAF τ=5" in capsys.readouterr().out


def test_the_network_benchmark_trains_and_reports_both_kinds_of_step(tmp_path):
    benchmark = mlp.MlpBenchmark(batch=32, width=8, num_frequencies=(2,), threads=(1,), rounds=2, compiled=False)
    rows = mlp.time_networks(benchmark)["rows"]
    assert {row["measure"] for row in rows} == {"train", "eikonal"}
    assert {mlp.TORCH_ALONE, BASELINE, staf_name(2), broadcast_name(2)} < {row["name"] for row in rows}
    for row in rows:
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]


@pytest.mark.parametrize("kind", mlp.STEPS)
def test_the_steps_that_are_timed_train_a_network(kind, monkeypatch):
    losses, step = [], torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda x, **k: (losses.append(float(x.detach())), step(x, **k))[1])
    function = mlp.make_step(kind, baselines((5,))[staf_name(5)], mlp.MlpBenchmark(batch=256, width=32))
    for _ in range(60):
        function()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("kind", mlp.STEPS)
def test_torch_alone_takes_the_same_steps_as_the_baseline(kind, monkeypatch):
    losses, step = [], torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda x, **k: (losses.append(float(x.detach())), step(x, **k))[1])
    for alone in (False, True):
        function = mlp.make_step(
            kind, baselines((5,))[BASELINE], mlp.MlpBenchmark(batch=2048, width=32), torch_alone=alone
        )
        for _ in range(3):
            function()
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-4)
    assert losses[2] < losses[0]


def test_the_ways_of_a_linear_layer_agree_and_are_compared():
    rows = linear.time_products(linear.LinearBenchmark(batches=(32,), widths=(8,), threads=(1,), rounds=1))["rows"]
    assert len(rows) == len(linear.PRODUCTS) * len(linear.WAYS)
    assert all(row["error"] < 1e-6 for row in rows)  # float32, sums of at most 32 products
    assert all(row["ratio"]["median"] == 1.0 for row in rows if row["way"] == linear.DEFAULT)


def test_scaling_covers_its_axes_and_is_drawn(tmp_path, monkeypatch):
    for name, values in {"BATCHES": (8, 16), "WIDTHS": (8,), "FREQUENCIES": (1, 2)}.items():
        monkeypatch.setattr(mlp, name, values)
    monkeypatch.setattr(mlp, "MOST_BROADCAST", 16 * 256 * 5 - 1)
    picture, output = tmp_path / "scaling.png", tmp_path / "scaling.json"
    mlp.main(mlp.ScalingBenchmark(threads=1, rounds=1, output=output, picture=picture))
    rows = json.loads(output.read_text())["rows"]
    batches = [(row["batch"], row["kind"]) for row in rows if row["axis"] == "batch"]
    assert batches == [(8, "sine"), (8, "STAF"), (8, "broadcast"), (16, "sine"), (16, "STAF")]
    assert picture.stat().st_size > 10_000


def test_the_speed_of_radiance_fields_is_compared_at_equal_table_sizes(tmp_path):
    write_capture(tmp_path / "capture", size=(48, 32))
    benchmark = nerf_speed.NerfSpeedBenchmark(
        data=tmp_path / "capture",
        methods=(SMALL, "nerfacto-equal", "nerfacto"),
        rays=16,
        steps=1,
        rounds=1,
        threads=(1,),
    )
    ours, equal, stock = nerf_speed.time_methods(benchmark)["rows"]
    assert stock["times_as_fast"]["median"] == 1.0
    assert stock["parameters"] - equal["parameters"] > 2_000_000
    assert all(row["rays_per_second"]["median"] > 0 for row in (ours, equal, stock))
    assert all(row["view_seconds"]["median"] > 0 for row in (ours, equal, stock))
