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
from torch import Generator, Tensor, distributed, nn

from staf_nerf.config import FitConfig
from staf_nerf.cores import shared_cores
from staf_nerf.fields import parameter_groups
from staf_nerf.mlp import CoordinateMLP
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
    if resume is not None and not history.interrupted and _rank() == 0:
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
        losses = self.signal.losses(self.model, _share(batch))
        record = step % RECORD_EVERY == 0
        if record:
            values = {name: _mean_over_processes(loss.detach(), batch) for name, loss in losses.items()}
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
        (torch.stack(list(losses.values())).sum() * _weight(batch)).backward()
        _average_gradients(self.model)
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
        if _rank() != 0:
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


def make_optimizers(model: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Returns Muon (or Adam) for the matrices of hidden layers and Adam for all other parameters, with their rates.

    Adam also trains weights that read coordinates. They change a phase ω w·x, and a suitable rate of change of the
    phase does not depend on ω. The configured rate is therefore that of ω w.
    """
    groups = parameter_groups(model)
    rates = {
        "matrix": config.hidden_learning_rate,
        "encoding": config.encoding_learning_rate,
        "activation": config.activation_learning_rate,
        "network": config.network_learning_rate,
    }
    chosen: list[torch.optim.Optimizer] = []
    if groups["matrix"] and config.optimizer == "muon":
        muon = torch.optim.Muon(
            groups.pop("matrix"),
            lr=config.hidden_learning_rate,
            momentum=config.muon_momentum,
            ns_steps=config.muon_ns_steps,
            weight_decay=0.0,
        )
        chosen.append(muon)
    rest: list[dict[str, Any]] = [
        {"params": groups[name], "lr": rates[name], "name": name} for name in rates if groups.get(name)
    ]
    for mlp in model.modules():
        if isinstance(mlp, CoordinateMLP) and mlp.reads_coordinates and len(mlp.linears):
            first: Any = mlp.activations[0]
            rate = config.first_layer_learning_rate / first.argument_scale
            rest.append({"params": [mlp.linears[0].weight], "lr": rate, "name": "first"})
    fused = all(p.is_floating_point() for group in rest for p in group["params"])
    chosen.append(torch.optim.Adam(rest, fused=fused))
    return chosen


def _without_duration(settings: Mapping[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in settings.items() if name not in DURATION}
    return {**others, "in epochs": bool(settings["epochs"])}


def _part_done(config: FitConfig, steps: int | None, history: History) -> float:
    """Returns the fraction of the budget that is used: of the steps, those of epochs included, or of the minutes."""
    if steps is not None:
        return history.steps / steps
    assert config.minutes is not None
    done = history.seconds / (60.0 * config.minutes)
    if _processes() > 1:  # all processes use the clock of the first one
        clock = torch.tensor(done, dtype=torch.float64)
        distributed.broadcast(clock, src=0)
        done = float(clock)
    return done


# --- several processes -----------------------------------------------------------------------------------------------


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if _processes() > 1 else 0


def _share(batch: Any) -> Any:
    """Returns this process's share of a batch: every n-th point for n processes."""
    if _processes() == 1 or batch is None:
        return batch
    if isinstance(batch, Tensor):
        return batch[_rank() :: _processes()]
    return tuple(_share(part) for part in batch)


def _weight(batch: Any) -> float:
    """Returns the weight of this process's mean, such that the average over processes is the mean over all points."""
    if _processes() == 1:
        return 1.0
    count = len(batch if isinstance(batch, Tensor) else batch[0])
    return len(range(_rank(), count, _processes())) * _processes() / count


def _mean_over_processes(value: Tensor, batch: Any) -> float:
    if _processes() > 1:
        value = value * _weight(batch)
        distributed.all_reduce(value)
        value = value / _processes()
    return float(value)


def _average_gradients(model: nn.Module) -> None:
    """Averages the gradients over processes in one message. torch's DDP makes no promise for double backward."""
    if _processes() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    parts = [(torch.view_as_real(g) if g.is_complex() else g).reshape(-1) for g in gradients]
    flat = torch.cat(parts)
    distributed.all_reduce(flat)
    flat /= _processes()
    for gradient, part in zip(gradients, flat.split([len(part) for part in parts]), strict=True):
        real = torch.view_as_real(gradient) if gradient.is_complex() else gradient
        real.copy_(part.view_as(real))
