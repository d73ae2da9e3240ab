"""Training, evaluation and views of a method in this process, without `ns-train`; and the runs that were saved."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.models.base_model import Model
from nerfstudio.utils import writer
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from staf_nerf.plugin.held_out import HeldOutViews
from staf_nerf.plugin.model import StafModel
from staf_nerf.plugin.trainer import StafTrainerConfig
from staf_nerf.plugin.workarounds import unreadable_run, without_library_warnings

OnStep = Callable[[Trainer, int], None]
OnView = Callable[[int, dict[str, Any], dict[str, Any]], None]


@dataclass(frozen=True)
class SavedRun:
    """A run that was read from its folder."""

    config: TrainerConfig
    model: StafModel
    manager: Any
    """The data manager, with the training cameras and the held-out views."""
    checkpoint: Path
    """The checkpoint that was loaded."""


def open_saved(config: Path) -> SavedRun:
    """Reads a run of `ns-train`, with its last checkpoint.

    Args:
        config: The run's config.yml, or the folder of the run.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a run of one of our methods.
    """
    if config.is_dir():
        config = config / "config.yml"
    if not config.is_file():
        raise FileNotFoundError(f"the run {config} does not exist: name the config.yml of a run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found, pipeline, checkpoint, _ = eval_setup(
                config, test_mode="test", update_config_callback=lambda read: _located(read, config)
            )
        except (AssertionError, AttributeError, LookupError, UnicodeError, yaml.YAMLError) as error:
            raise ValueError(unreadable_run(error) or f"cannot load the run {config}: {error}") from error
    if not isinstance(model := pipeline.model, StafModel):
        raise ValueError(f"{config} is a run of {type(model).__name__}; a run of a method of staf_nerf is needed")
    return SavedRun(found, model, pipeline.datamanager, checkpoint)


def _located(config: TrainerConfig, file: Path) -> TrainerConfig:
    """Returns the configuration of a run, which knows the file that it was read from."""
    if isinstance(config, StafTrainerConfig):
        config.config_file = file.absolute()
    return config


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
    finally:
        close_writers()


def close_writers() -> None:
    """Closes nerfstudio's writers, which it keeps in a global list: a second run would write to the first one's too."""
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
def evaluate(
    model: Model, manager: DataManager, on_view: OnView | None = None, *, count: int | None = None
) -> dict[str, Any]:
    """Evaluates PSNR and SSIM over the held-out views. Training can continue unchanged afterwards.

    Args:
        model: The model, with its present weights.
        manager: The data manager with the held-out views.
        on_view: Called with the number (from 0), outputs and batch of each view.
        count: Largest number of views, spread evenly over all. Defaults to all.

    Returns:
        The means "psnr" and "ssim", and "views", a list with the metrics of each view.
    """
    model.eval()
    views = []
    held_out = HeldOutViews(manager.fixed_indices_eval_dataloader, count)
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
