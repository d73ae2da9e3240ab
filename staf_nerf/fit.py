"""The one training loop for signals: it asks a signal for points and a loss, and changes the field's weights.

Nothing is measured against the truth on the way and no step is picked: what comes out is what the last step left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import FitConfig
from staf_nerf.fields import parameter_groups

RECORD_EVERY = 10
"""Steps between the values that `History` keeps: each waits for the device."""


class Signal(Protocol):
    """What a field can be fitted to."""

    def batch(self, count: int, generator: Generator) -> Any:
        """`count` points and what is known about them."""
        ...

    def losses(self, field: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Scalars whose sum is minimised, by name."""
        ...


@dataclass
class History:
    """How a fit went."""

    steps: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Time they took."""
    interrupted: bool = False
    """Whether it was stopped before its end (Ctrl-C)."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """Every tenth step: "step", "seconds" and each loss."""


def fit(
    model: nn.Module,
    signal: Signal,
    config: FitConfig,
    *,
    seed: int = 0,
    progress: Callable[[float, dict[str, float]], None] | None = None,
) -> History:
    """Changes the model's weights so that it becomes the signal.

    Learning rates decay exponentially with the part of the minutes or steps that is over. With a number of steps and no
    limit in minutes, the result depends on the seed alone (and the number of threads).

    Args:
        model: A field.
        signal: What it is to become.
        config: Duration and learning rates.
        seed: Of the points.
        progress: Called now and then with the part that is done, in [0, 1], and the latest losses.
    """
    generator = Generator().manual_seed(seed)
    optimizers = make_optimizers(model, config)
    started = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    history, start = History(), time.perf_counter()
    try:
        while (done := _part_done(config, history)) < 1.0:
            for optimizer, rates in zip(optimizers, started, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * config.final_learning_rate**done
            losses = signal.losses(model, signal.batch(config.points, generator))
            total = torch.stack(list(losses.values())).sum()
            for optimizer in optimizers:
                optimizer.zero_grad()
            total.backward()
            for optimizer in optimizers:
                optimizer.step()
            if history.steps % RECORD_EVERY == 0:
                values = {name: float(loss.detach()) for name, loss in losses.items()}
                _refuse_nan(values, history.steps)
                history.losses.append({"step": history.steps, "seconds": history.seconds, **values})
                if progress is not None:
                    progress(done, values)
            history.steps += 1
            history.seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        history.interrupted = True
    if progress is not None and history.losses:
        progress(1.0, {k: v for k, v in history.losses[-1].items() if k not in ("step", "seconds")})
    return history


def make_optimizers(model: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Muon for the hidden layers' matrices, Adam for the rest, each group of parameters with its rate."""
    groups = parameter_groups(model)
    matrices = groups.pop("matrix")
    rates = {
        "encoding": config.encoding_learning_rate,
        "activation": config.activation_learning_rate,
        "network": config.network_learning_rate,
    }
    chosen: list[torch.optim.Optimizer] = []
    if matrices:
        chosen.append(torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=0.0))
    rest = [{"params": groups[name], "lr": rates[name]} for name in groups if groups[name]]
    fused = all(p.is_floating_point() for group in rest for p in group["params"])
    chosen.append(torch.optim.Adam(rest, fused=fused))
    return chosen


def _part_done(config: FitConfig, history: History) -> float:
    of_steps = history.steps / config.steps if config.steps else 0.0
    of_time = history.seconds / (60.0 * config.minutes) if config.minutes else 0.0
    return max(of_steps, of_time)


def _refuse_nan(losses: Mapping[str, float], step: int) -> None:
    for name, value in losses.items():
        if not value < float("inf"):
            raise RuntimeError(f"the loss {name!r} became {value} at step {step}: smaller learning rates may help")
