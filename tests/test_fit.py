import dataclasses
import math

import pytest
import torch

from staf_nerf.config import FieldConfig, FitConfig
from staf_nerf.fields import NeuralField
from staf_nerf.fit import fit

STEPS = FitConfig(minutes=0.0, steps=150, points=256, matrix_learning_rate=5e-3, activation_learning_rate=1e-2)


class Waves:
    """y = sin(5 x) on [-1, 1]."""

    def batch(self, count, generator):
        x = 2.0 * torch.rand(count, 1, generator=generator) - 1.0
        return x, torch.sin(5.0 * x)

    def losses(self, field, batch):
        x, y = batch
        return {"error": (field(x) - y).square().mean()}


def field(seed: int = 0) -> NeuralField:
    config = FieldConfig(hidden_features=32, hidden_layers=2, first_omega=10.0)
    return NeuralField(1, 1, config, generator=torch.Generator().manual_seed(seed))


def test_a_field_becomes_the_signal():
    model, signal = field(), Waves()
    history = fit(model, signal, STEPS)
    x, y = signal.batch(1000, torch.Generator().manual_seed(9))
    assert float((model(x) - y).square().mean()) < 1e-4  # of a variance of about .5
    assert history.steps == 150
    assert [row["step"] for row in history.losses] == list(range(0, 150, 10))
    assert not history.interrupted


def test_steps_and_seed_decide_the_result():
    found = []
    for seed in (0, 0, 1):
        model = field()
        fit(model, Waves(), dataclasses.replace(STEPS, steps=20), seed=seed)
        found.append(model(torch.ones(1, 1)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_minutes_end_a_fit_and_progress_ends_at_one():
    parts = []
    config = dataclasses.replace(STEPS, minutes=1 / 60, steps=0)
    history = fit(field(), Waves(), config, progress=lambda done, losses: parts.append((done, losses)))
    assert 1.0 <= history.seconds < 5.0
    assert history.steps > 20
    assert [part for part, _ in parts] == sorted(part for part, _ in parts)
    assert parts[-1][0] == 1.0
    assert math.isfinite(parts[-1][1]["error"])


def test_an_interrupt_keeps_the_weights_and_says_so():
    class Impatient(Waves):
        calls = 0

        def batch(self, count, generator):
            self.calls += 1
            if self.calls > 30:
                raise KeyboardInterrupt
            return super().batch(count, generator)

    model, before = field(), field()
    history = fit(model, Impatient(), STEPS)
    assert history.interrupted
    assert history.steps == 30
    assert not torch.equal(model(torch.ones(1, 1)), before(torch.ones(1, 1)))


def test_a_loss_that_is_no_number_stops_the_fit_and_is_named():
    class Broken(Waves):
        def losses(self, field, batch):
            return {"error": field(batch[0]).mean() * torch.nan}

    with pytest.raises(RuntimeError, match="the loss 'error' became nan at step 0"):
        fit(field(), Broken(), STEPS)


def test_without_an_end_there_is_no_fit():
    with pytest.raises(ValueError, match="minutes or steps must be positive"):
        FitConfig(minutes=0.0, steps=0)
