import gc
import time

import pytest
import torch

from staf_nerf.bench import timing


def test_functions_take_turns_and_report_a_time_for_each_round():
    order = []
    functions = {name: lambda name=name: order.append(name) or time.sleep(timing.SHORTEST) for name in "ab"}
    times = timing.interleave(functions, rounds=3, warmup=1)
    assert order[-6:] == ["a", "b"] * 3
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert gc.isenabled()


def test_a_short_function_is_called_several_times_in_a_sample():
    calls = []
    (seconds,) = timing.interleave({"a": lambda: calls.append(1)}, rounds=1, warmup=0)["a"]
    assert len(calls) > 100
    assert seconds < timing.SHORTEST


def test_ratios_are_formed_within_rounds():
    # The machine was ten times slower in the second round: it does not matter.
    spread = timing.ratios({"a": [2.0, 20.0, 2.2], "b": [1.0, 10.0, 1.0]}, "a", "b")
    assert spread.median == pytest.approx(2.0)
    assert spread.high == pytest.approx(2.1)


def test_one_sample_is_its_own_median_and_quartiles():
    assert timing.Spread.of([3.0]) == timing.Spread(3.0, 3.0, 3.0)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with timing.on_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
