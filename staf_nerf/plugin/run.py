"""Training, evaluation and views of a method in this process, without `ns-train`, for the demo and the benchmarks."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.models.base_model import Model
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from staf_nerf.plugin.trainer import StafTrainerConfig
from staf_nerf.plugin.workarounds import without_library_warnings

OnStep = Callable[[Trainer, int], None]
OnView = Callable[[int, dict[str, Any], dict[str, Any]], None]


@without_library_warnings()
def set_up(config: TrainerConfig, *, seed: int, test_mode: Literal["test", "val"] = "test") -> Trainer:
    """Returns a trainer that is ready to train, without viewer, evaluation during training, or waiting at the end.

    Args:
        config: Configuration of any nerfstudio method. It is changed in place.
        seed: Random seed for torch, numpy and Python.
        test_mode: Split to evaluate on: "test" or "val".
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
    if isinstance(config, StafTrainerConfig):
        config.make_paths_absolute()
    as_configured = copy.deepcopy(config)  # the setup below adds to it
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup(test_mode=test_mode)
    if not isinstance(config, StafTrainerConfig):  # our own trainer has written it
        as_configured.save_config()
    return trainer


@without_library_warnings()
def train(trainer: Trainer, on_step: OnStep | None = None) -> None:
    """Runs all training steps. `on_step(trainer, step)` is called after each of them."""
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
    finally:  # nerfstudio keeps its writers in a global list: a second run would write to the first one's too
        for board in writer.EVENT_WRITERS:
            if isinstance(board, writer.TensorboardWriter):
                board.tb_writer.close()
        writer.EVENT_WRITERS.clear()


def step(trainer: Trainer, number: int) -> None:
    """Runs one training step with its callbacks, as nerfstudio's training loop does."""
    trainer.pipeline.train()
    _call_back(trainer, number, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    trainer.train_iteration(number)
    _call_back(trainer, number, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)


def _call_back(trainer: Trainer, number: int, location: TrainingCallbackLocation) -> None:
    for callback in trainer.callbacks:
        callback.run_callback_at_location(number, location=location)


@without_library_warnings()
@torch.no_grad()
def evaluate(model: Model, manager: DataManager, on_view: OnView | None = None) -> dict[str, Any]:
    """Evaluates PSNR and SSIM over all held-out views. Training can continue unchanged afterwards.

    Args:
        model: The model, with its present weights.
        manager: The data manager with the held-out views.
        on_view: Called with the index, outputs and batch of each view.

    Returns:
        The means "psnr" and "ssim", and "views", a list with the metrics of each view.
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
    if sampler is not None:  # it counts a rendered view as an update of its networks and would skip the next one
        sampler._steps_since_update = since_update
    model.train()
    return {**{name: float(np.mean([view[name] for view in views])) for name in views[0]}, "views": views}


def held_out_view(trainer: Trainer) -> tuple[Cameras, Tensor]:
    """Returns the first held-out camera at half its resolution, and its photo (H, W, 3 or 4), reduced by averaging."""
    manager: Any = trainer.pipeline.datamanager
    camera, batch = next(iter(manager.fixed_indices_eval_dataloader))
    image = batch["image"]
    height, width = image.shape[0] // 2, image.shape[1] // 2
    small = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).mean((1, 3))
    camera = camera.to("cpu")
    camera.rescale_output_resolution(0.5, scale_rounding_mode="floor")
    return camera.to(trainer.device), small.to(trainer.device)


@torch.no_grad()
def view_psnr(model: Model, camera: Cameras, truth: Tensor) -> float:
    """Returns the PSNR of one view, rendered with the current weights."""
    model.eval()
    rgb = model.get_outputs_for_camera(camera)["rgb"]
    truth = model.renderer_rgb.blend_background(truth)  # pyright: ignore[reportAttributeAccessIssue,reportCallIssue]
    model.train()
    return -10.0 * math.log10(float((rgb - truth).square().mean()))


@torch.no_grad()
def pictures(model: Model, cameras: Cameras) -> Iterator[np.ndarray]:
    """Renders the view of each camera as bytes (H, W, 3). Training can continue unchanged afterwards."""
    model.eval()
    for i in range(len(cameras)):
        rgb = model.get_outputs_for_camera(cameras[i : i + 1].to(model.device))["rgb"]
        yield (rgb * 255.0).round().byte().cpu().numpy()
    model.train()


@contextmanager
def quiet() -> Iterator[None]:
    """Hides messages of nerfstudio, and warnings that libraries give about each other."""
    before, CONSOLE.quiet = CONSOLE.quiet, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        CONSOLE.quiet = before
