import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Generator, distributed, multiprocessing

from staf_nerf.config import ActivationConfig, FieldConfig, FitConfig, ImageConfig
from staf_nerf.fields import NeuralField
from staf_nerf.fitting.loop import fit
from staf_nerf.fitting.optimizers import parameter_groups
from staf_nerf.signals.image import ImageSignal, image_field
from staf_nerf.signals.signal import Signal

STEPS = FitConfig(steps=150, points=256, hidden_learning_rate=5e-3, activation_learning_rate=1e-2)


class Waves(Signal):
    """y = sin(5 x) on [-1, 1]."""

    def batch(self, count, generator):
        x = 2.0 * torch.rand(count, 1, generator=generator) - 1.0
        return x, torch.sin(5.0 * x)

    def losses(self, field, batch):
        x, y = batch
        return {"error": (field(x) - y).square().mean()}


def field(seed: int = 0) -> NeuralField:
    config = FieldConfig(
        activation=ActivationConfig("staf", {"first_omega": 10.0}), hidden_features=32, hidden_layers=2
    )
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
    config = STEPS.lasting(minutes=1 / 60)
    history = fit(field(), Waves(), config, progress=lambda done, history: parts.append((done, history.latest)))
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


class Exploding(Waves):
    """Is no number at some of its calls."""

    def __init__(self, *calls):
        self.calls, self.count = calls, -1

    def losses(self, field, batch):
        self.count += 1
        return {"error": super().losses(field, batch)["error"] * (torch.nan if self.count in self.calls else 1.0)}


def test_a_broken_step_is_taken_back_with_half_the_learning_rates():
    model = field()
    # Step 120 is call 120; back to step 100, step 120 is call 141, and is broken again.
    history = fit(model, Exploding(120, 141), STEPS)
    assert history.rollbacks == [120, 120]
    assert history.steps == 150
    assert [row["step"] for row in history.losses] == list(range(0, 150, 10))
    whole = fit(reference := field(), Waves(), STEPS)
    assert whole.losses[9]["error"] == history.losses[9]["error"]
    assert not torch.equal(model(torch.ones(1, 1)), reference(torch.ones(1, 1)))
    assert history.losses[-1]["error"] < 1e-3


def test_a_fit_that_breaks_again_and_again_is_given_up():
    with pytest.raises(RuntimeError, match="became nan at step 100, after 3 restarts with halved learning rates"):
        fit(field(), Exploding(*range(120, 1000)), STEPS)


def test_weights_are_those_that_predict_what_is_held_out_best():
    model, errors, seen = field(), iter([3.0, 1.0, 2.0, 5.0]), []

    def validation_loss(now):
        seen.append(now(torch.ones(1, 1)).clone())
        return next(errors)

    history = fit(model, Waves(), STEPS, validation_loss=validation_loss)
    assert [(row["step"], row["error"]) for row in history.held_out] == [(0, 3.0), (50, 1.0), (100, 2.0), (150, 5.0)]
    assert torch.equal(model(torch.ones(1, 1)), seen[1])


def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(tmp_path):
    class Impatient(Waves):
        calls = 0

        def batch(self, count, generator):
            self.calls += 1
            if self.calls == 73:
                raise KeyboardInterrupt
            return super().batch(count, generator)

    state, model, signal = tmp_path / "state.pt", field(), Impatient()
    assert fit(model, signal, STEPS, resume=state).interrupted
    assert state.is_file()
    with pytest.raises(ValueError, match=r"state.pt is the state of a fit with different settings"):
        fit(field(), signal, dataclasses.replace(STEPS, points=128), resume=state)
    kept = state.read_bytes()
    history = fit(fresh := field(seed=5), signal, STEPS, resume=state)
    assert not history.interrupted
    assert history.steps == 150
    assert not state.exists()
    state.write_bytes(kept)
    assert fit(field(), signal, dataclasses.replace(STEPS, steps=200), resume=state).steps == 200
    state.write_bytes(kept)
    assert fit(field(), signal, dataclasses.replace(STEPS, steps=50), resume=state).steps == 72  # more is done already
    fit(whole := field(), Waves(), STEPS)
    assert torch.equal(fresh(torch.ones(1, 1)), whole(torch.ones(1, 1)))
    state.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"state.pt is not the state of a fit of this model"):
        fit(field(), signal, STEPS, resume=state)


def test_a_fit_in_passes_goes_on_within_a_pass(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    passes = FitConfig(epochs=3, points=15)
    config = ImageConfig(field=FieldConfig(hidden_features=8, hidden_layers=1), fit=passes)

    def begun(*, impatient: bool):
        signal = ImageSignal(pixels, config)
        if impatient:
            batch, calls = signal.batch, iter(range(10))

            def interrupted(count, generator):
                if next(calls) == 6:  # of 8 in a pass
                    raise KeyboardInterrupt
                return batch(count, generator)

            signal.batch = interrupted
        return image_field(config, signal.raster, generator=Generator().manual_seed(1)), signal

    state = tmp_path / "state.pt"
    assert fit(*begun(impatient=True), config.fit, resume=state, subject="it").interrupted
    with pytest.raises(ValueError, match="is the state of a fit of it seed 0, not of another seed 0"):
        fit(*begun(impatient=False), config.fit, resume=state, subject="another")
    resumed, whole = begun(impatient=False), begun(impatient=False)
    assert fit(*resumed, config.fit, resume=state, subject="it").steps == 24
    fit(*whole, config.fit)
    for mine, theirs in zip(resumed[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_sinusoids_learn_from_their_delay_on_and_the_rest_from_the_start(optimizer):
    model, seen = field(), []

    def look(done, history):
        groups = parameter_groups(model)
        seen.append((done, *(groups[name][0].detach().clone() for name in ("activation", "network"))))

    fit(model, Waves(), dataclasses.replace(STEPS, optimizer=optimizer, activation_delay=0.5), progress=look)
    _, sinusoids, network = seen[0]
    assert not torch.equal(network, seen[1][2])
    assert [torch.equal(sinusoids, later) for _, later, _ in seen] == [done < 0.5 for done, _, _ in seen]


class Precise(Waves):
    def batch(self, count, generator):
        return tuple(part.double() for part in super().batch(count, generator))


ODD = dataclasses.replace(STEPS, points=255, optimizer="adam")
"""128 points and 127; Muon computes in bfloat16, where another order of sums is another step."""


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = field().double()
    history = fit(model, Precise(), ODD)
    torch.save((history.losses, model.state_dict()), f"{folder}/{rank}.pt")
    distributed.barrier()  # neither leaves while the other still talks to it
    distributed.destroy_process_group()


def test_two_processes_take_the_steps_of_one(tmp_path):
    multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    (first, weights), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = fit(field().double(), Precise(), ODD)
    assert [row["error"] for row in first] == [row["error"] for row in second]
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    for mine, theirs in zip(alone.losses, first, strict=True):
        assert mine["error"] == pytest.approx(theirs["error"], rel=1e-8)  # sums in another order, through 150 steps


def test_a_loss_that_is_no_number_stops_the_fit_and_is_named():
    class Broken(Waves):
        def losses(self, field, batch):
            return {"error": field(batch[0]).mean() * torch.nan}

    with pytest.raises(RuntimeError, match="the loss 'error' became nan at step 0"):
        fit(field(), Broken(), STEPS)


def test_a_fit_has_one_budget_and_by_default_it_is_five_minutes():
    assert (FitConfig().minutes, FitConfig().steps, FitConfig().epochs) == (5.0, None, None)
    assert FitConfig(steps=7).minutes is None
    assert FitConfig(minutes=2.0, points=3).lasting(epochs=4) == FitConfig(epochs=4, points=3)
    with pytest.raises(ValueError, match="only one of minutes, steps and epochs can be given, got minutes and steps"):
        FitConfig(steps=7, minutes=1.0)
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        FitConfig(steps=0)
