"""Several processes that fit one field together, under `torchrun` with an initialised process group.

All processes draw the same batch, and each computes its share. Without a process group there is one process, with all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


def count() -> int:
    """Returns the number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0 on."""
    return distributed.get_rank() if count() > 1 else 0


def share(batch: Any) -> Any:
    """Returns this process's share of a batch: every n-th point for n processes."""
    if count() == 1 or batch is None:
        return batch
    if isinstance(batch, Tensor):
        return batch[rank() :: count()]
    return tuple(share(part) for part in batch)


def weight(batch: Any) -> float:
    """Returns the weight of this process's mean, such that the average over processes is the mean over all points."""
    if count() == 1:
        return 1.0
    points = len(batch if isinstance(batch, Tensor) else batch[0])
    return len(range(rank(), points, count())) * count() / points


def mean(value: Tensor, batch: Any) -> float:
    """Returns the mean over all points of a batch from each process's mean over its share."""
    if count() > 1:
        value = value * weight(batch)
        distributed.all_reduce(value)
        value = value / count()
    return float(value)


def average_gradients(model: nn.Module) -> None:
    """Averages the gradients over processes in one message. torch's DDP makes no promise for double backward."""
    if count() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    parts = [(torch.view_as_real(g) if g.is_complex() else g).reshape(-1) for g in gradients]
    flat = torch.cat(parts)
    distributed.all_reduce(flat)
    flat /= count()
    for gradient, part in zip(gradients, flat.split([len(part) for part in parts]), strict=True):
        real = torch.view_as_real(gradient) if gradient.is_complex() else gradient
        real.copy_(part.view_as(real))


def of_the_first(value: float) -> float:
    """Returns the value that the first process has."""
    if count() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64)
    distributed.broadcast(shared, src=0)
    return float(shared)
