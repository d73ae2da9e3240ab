"""Training and evaluating a method in this process, without `ns-train`: for the demo and the benchmarks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.models.base_model import Model
from nerfstudio.utils import writer

OnStep = Callable[[Trainer, int], None]
OnView = Callable[[int, dict[str, Any], dict[str, Any]], None]


def set_up(config: TrainerConfig, *, seed: int, test_mode: Literal["test", "val"] = "test") -> Trainer:
    """A trainer that is ready to train: no viewer, no evaluation on the way, no waiting at the end.

    Args:
        config: Any nerfstudio method's configuration; changed in place.
        seed: Of torch's, numpy's and Python's generators.
        test_mode: "test" or "val": which views are held out.
    """
    config.vis = "tensorboard"
    config.machine.seed = seed
    config.viewer.quit_on_train_completion = True
    config.logging.local_writer.enable = False
    never = config.max_num_iterations + 1
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = never
    config.set_timestamp()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what nerfstudio draws from)
    torch.manual_seed(seed)
    writer.EVENT_WRITERS.clear()
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup(test_mode=test_mode)
    return trainer


def train(trainer: Trainer, on_step: OnStep | None = None) -> None:
    """Trains to the end; `on_step(trainer, step)` is called after each step."""
    if on_step is not None:
        trainer.callbacks.append(
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.AFTER_TRAIN_ITERATION],
                update_every_num_iters=1,
                func=lambda step: on_step(trainer, step),
            )
        )
    try:
        trainer.train()
    finally:  # nerfstudio keeps its writers for the life of the process: a second run would write to this one's too
        for board in writer.EVENT_WRITERS:
            if isinstance(board, writer.TensorboardWriter):
                board.tb_writer.close()
        writer.EVENT_WRITERS.clear()


def step(trainer: Trainer, number: int) -> None:
    """One training step, of that number, with its callbacks: what nerfstudio's loop does each time."""
    trainer.pipeline.train()
    _call_back(trainer, number, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    trainer.train_iteration(number)
    _call_back(trainer, number, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)


def _call_back(trainer: Trainer, number: int, location: TrainingCallbackLocation) -> None:
    for callback in trainer.callbacks:
        callback.run_callback_at_location(number, location=location)


@torch.no_grad()
def evaluate(model: Model, manager: DataManager, on_view: OnView | None = None) -> dict[str, Any]:
    """PSNR and SSIM over all held-out views, with the weights as they are. A training goes on as if without it.

    Args:
        model: A trained model.
        manager: Its held-out views.
        on_view: Called with each view's index, outputs and batch.

    Returns:
        Means under "psnr" and "ssim", and the list "views" with each view's own.
    """
    model.eval()
    views = []
    held_out: Any = manager.fixed_indices_eval_dataloader
    sampler: Any = getattr(model, "proposal_sampler", None)
    since_update = getattr(sampler, "_steps_since_update", 0)
    with torch.random.fork_rng():
        for i, (camera, batch) in enumerate(held_out):
            outputs = model.get_outputs_for_camera(camera)
            metrics, _ = model.get_image_metrics_and_images(outputs, batch)
            views.append({name: float(value) for name, value in metrics.items()})
            if on_view is not None:
                on_view(i, outputs, batch)
    if sampler is not None:  # it takes a rendered view for an update of its networks, and would leave the next one out
        sampler._steps_since_update = since_update
    model.train()
    return {**{name: float(np.mean([view[name] for view in views])) for name in views[0]}, "views": views}
