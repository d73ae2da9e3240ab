"""The training loop for signals: it draws batches and losses from a signal and trains the weights of a field.

The result is that of the last step. No step is chosen by its error against the truth. Only if a signal holds out data
for validation, the weights with the lowest validation error are kept.

Under `torchrun`, with an initialised process group, all processes draw the same batch, each computes its share, and
gradients are averaged. The steps are then the same as those of a single process.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import FitConfig
from staf_nerf.fitting import processes
from staf_nerf.fitting.optimizers import make_optimizers
from staf_nerf.machine.cores import shared_cores
from staf_nerf.signals.signal import Signal

RECORD_EVERY = 10
"""Number of steps between the values that `History` records. Each of them waits for the device."""
SNAPSHOT_EVERY = 100
"""Number of steps between the copies that a fit returns to after a loss that is not finite."""
MOST_ROLLBACKS = 3
"""Largest number of times that a fit returns to a copy and halves the learning rates. Then it fails."""
SAVE_EVERY = 60.0
"""Seconds between saves of the state from which a fit can be resumed."""
VALIDATION_EVERY = 50
"""Number of steps between validations on held-out data."""
DURATION = {"minutes", "steps", "epochs"}
"""Settings that may differ when a fit is resumed. Epochs cannot be added to or removed from a fit."""


@dataclass
class History:
    """The record of a fit."""

    steps: int = 0
    """Number of steps done."""
    seconds: float = 0.0
    """Training time in seconds."""
    interrupted: bool = False
    """Whether the fit was interrupted (Ctrl-C)."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """Every tenth step: "step", "seconds" and each loss."""
    held_out: list[dict[str, float]] = field(default_factory=list)
    """Every fiftieth step, with a validation loss: "step" and the validation "error"."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """After each epoch, if a score is given: "step" and the metrics."""
    rollbacks: list[int] = field(default_factory=list)
    """Steps at which the loss was NaN or infinite. The fit went back and halved the learning rates."""

    @property
    def latest(self) -> dict[str, float]:
        """The losses recorded last."""
        return {k: v for k, v in self.losses[-1].items() if k not in ("step", "seconds")} if self.losses else {}


@shared_cores()
def fit(
    model: nn.Module,
    signal: Signal,
    config: FitConfig,
    *,
    seed: int = 0,
    progress: Callable[[float, History], None] | None = None,
    validation_loss: Callable[[nn.Module], float] | None = None,
    epoch_metrics: Callable[[nn.Module], Mapping[str, float]] | None = None,
    resume: Path | None = None,
    subject: str = "",
) -> History:
    """Fits a model to a signal by changing its weights in place, and returns the record of the fit.

    Learning rates decay exponentially with the fraction of the duration that has passed. The parameters of sinusoids
    may start to train later than the others (`FitConfig.activation_delay`): coarse structure is learned first and would
    remove the high frequencies. With a number of steps and no time limit the result depends only on the seed and the
    number of threads.

    Args:
        model: The field.
        signal: The data.
        config: Duration, batch size and learning rates.
        seed: Random seed of the batches.
        progress: Called every tenth step with the fraction done, in [0, 1], and the record so far.
        validation_loss: Computes the loss on held-out data. The weights with the lowest value are kept.
        epoch_metrics: Metrics to record in `History.epochs` after each epoch (every sample drawn once). They do not
            affect the fit, and their time does not count.
        resume: File for the state of the fit, written every minute and at an interrupt. If it exists, the fit
            continues from it, up to the duration given now. It is removed at the end.
        subject: Name of what is fitted, such as the names of files. The state of another subject is refused.

    Raises:
        RuntimeError: If the loss is NaN or infinite at the first step, or again after the learning rates were halved
            three times.
        ValueError: If `resume` is the state of another fit.
    """
    steps = config.epochs * steps_per_epoch(signal, config.points) if config.epochs else config.steps
    generator = Generator().manual_seed(seed)
    training = Training(model, signal, config, generator, validation_loss, f"{subject} seed {seed}".strip())
    history = training.history
    if resume is not None and resume.is_file():
        training.load(resume)
    per_epoch = steps_per_epoch(signal, config.points) if epoch_metrics is not None else 0
    start = saved = time.perf_counter() - history.seconds
    try:
        while (done := _part_done(config, steps, history)) < 1.0:
            recorded = training.step(done)
            history.seconds = time.perf_counter() - start
            if recorded and progress is not None:
                progress(done, history)
            if epoch_metrics is not None and history.steps % per_epoch == 0:
                before = time.perf_counter()
                history.epochs.append({"step": history.steps, **epoch_metrics(model)})
                start += time.perf_counter() - before
            if resume is not None and time.perf_counter() - saved > SAVE_EVERY:
                training.save(resume)
                saved = time.perf_counter()
    except KeyboardInterrupt:
        history.interrupted = True
        if resume is not None:
            training.save(resume)
    training.keep_best()
    if progress is not None and history.losses:
        progress(1.0, history)
    if resume is not None and not history.interrupted and processes.rank() == 0:
        resume.unlink(missing_ok=True)
    return history


def steps_per_epoch(signal: Signal, points: int) -> int:
    """Returns the number of steps of an epoch, in which each sample of a signal is drawn once.

    Raises:
        ValueError: If the signal has no finite number of samples.
    """
    if signal.samples is None:
        raise ValueError(f"epochs need a signal with a finite number of samples, {type(signal).__name__} has none")
    return math.ceil(signal.samples / points) if 0 < points < signal.samples else 1


class Training:
    """The state of a fit, its training step, and the return to an earlier state."""

    def __init__(
        self,
        model: nn.Module,
        signal: Signal,
        config: FitConfig,
        generator: Generator,
        validation_loss: Callable[[nn.Module], float] | None = None,
        subject: str = "",
    ) -> None:
        self.model, self.signal, self.config, self.subject = model, signal, config, subject
        self.generator, self.validation_loss = generator, validation_loss
        self.optimizers = make_optimizers(model, config)
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.history = History()
        self.good: dict[str, Any] | None = None
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def step(self, done: float) -> bool:
        """Does one step, or goes back after a loss that is not finite. Returns whether losses were recorded."""
        step = self.history.steps
        batch = self.signal.batch(self.config.points, self.generator)
        losses = self.signal.losses(self.model, processes.share(batch))
        record = step % RECORD_EVERY == 0
        if record:
            values = {name: processes.mean(loss.detach(), batch) for name, loss in losses.items()}
            if not all(math.isfinite(value) for value in values.values()):
                self._roll_back(values)
                return False
            self.history.losses.append({"step": step, "seconds": self.history.seconds, **values})
        if step % SNAPSHOT_EVERY == 0:
            self.good = self._snapshot()
        if self.validation_loss is not None and step % VALIDATION_EVERY == 0:
            self._judge()
        self._set_rates(done)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (torch.stack(list(losses.values())).sum() * processes.weight(batch)).backward()
        processes.average_gradients(self.model)
        for optimizer in self.optimizers:
            optimizer.step()
        self.history.steps += 1
        return record

    def keep_best(self) -> None:
        """Loads the weights with the lowest validation error into the model, if there is a validation loss."""
        if self.validation_loss is not None:
            self._judge()
            assert self.best is not None
            self.model.load_state_dict(self.best[1])

    def save(self, path: Path) -> None:
        """Writes the state atomically: it replaces the file only when it is complete."""
        if processes.rank() != 0:
            return
        state = {
            **self._snapshot(),
            "config": asdict(self.config),
            "subject": self.subject,
            "generator": self.generator.get_state(),
            "signal": self.signal.state(),
            "history": asdict(self.history),
            "rates": self.rates,
            "best": self.best,
        }
        partial = path.with_name(path.name + ".part")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Reads a state written by `save`.

        Raises:
            ValueError: If the file is not a state, or is that of another fit.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if _without_duration(state["config"]) != _without_duration(asdict(self.config)):
                raise ValueError(f"{path} is the state of a fit with different settings: {state['config']}")
            if state["subject"] != self.subject:
                raise ValueError(f"{path} is the state of a fit of {state['subject']}, not of {self.subject}")
            self._restore(state)
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not the state of a fit of this model, or it is damaged") from error
        self.generator.set_state(state["generator"])
        self.signal.load_state(state["signal"])
        self.rates, self.best = state["rates"], state["best"]
        vars(self.history).update(state["history"], interrupted=False)

    def _snapshot(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "steps": self.history.steps,
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            }
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(saved))
        self.history.steps = state["steps"]

    def _roll_back(self, values: Mapping[str, float]) -> None:
        name, value = next((n, v) for n, v in values.items() if not math.isfinite(v))
        step = self.history.steps
        if self.good is None or len(self.history.rollbacks) == MOST_ROLLBACKS:
            tried = f", after {MOST_ROLLBACKS} restarts with halved learning rates" if self.good is not None else ""
            raise RuntimeError(f"the loss {name!r} became {value} at step {step}{tried}: try smaller learning rates")
        self._restore(self.good)
        self.rates = [[rate / 2.0 for rate in rates] for rates in self.rates]
        self.history.rollbacks.append(step)
        self.history.losses = [row for row in self.history.losses if row["step"] < self.history.steps]
        self.history.epochs = [row for row in self.history.epochs if row["step"] <= self.history.steps]

    def _set_rates(self, done: float) -> None:
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                waits = group.get("name") == "activation" and done < self.config.activation_delay
                group["lr"] = 0.0 if waits else rate * self.config.learning_rate_decay**done

    def _judge(self) -> None:
        assert self.validation_loss is not None
        with torch.no_grad():
            error = self.validation_loss(self.model)
        self.history.held_out.append({"step": self.history.steps, "error": error})
        if self.best is None or error < self.best[0]:
            self.best = error, copy.deepcopy(self.model.state_dict())


def _without_duration(settings: Mapping[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in settings.items() if name not in DURATION}
    return {**others, "in epochs": bool(settings["epochs"])}


def _part_done(config: FitConfig, steps: int | None, history: History) -> float:
    """Returns the fraction of the budget that is used: of the steps, those of epochs included, or of the minutes."""
    if steps is not None:
        return history.steps / steps
    assert config.minutes is not None
    return processes.of_the_first(history.seconds / (60.0 * config.minutes))
