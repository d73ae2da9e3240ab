"""The trainer: nerfstudio's loop, with checkpoints that survive a full disk, a move of the folder and an interrupt.

Steps are counted from the start of the first run: `max_num_iterations` is the number of all steps, also of a run that
continues from a checkpoint. Besides tensors a checkpoint contains plain Python numbers only, so that torch's safe
loading accepts it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig, Optimizers
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE

from staf_nerf.config import Choice
from staf_nerf.errors import debugging
from staf_nerf.fitting.optimizers import ADAM_EPS, MUON_EPS, adam, first_layer_scales, muon
from staf_nerf.machine.cores import shared_cores
from staf_nerf.machine.device import detect_device
from staf_nerf.machine.memory import keep_freed_memory
from staf_nerf.migrations import present_groups
from staf_nerf.plugin import workarounds
from staf_nerf.presets import load_preset, resolved

REPLACED = ("data", "load-dir", "load-step", "load-checkpoint", "load-scheduler", "max-num-iterations")
"""Options of `ns-train` that a command to continue gives anew, or does without."""


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam as in `staf_nerf.fitting.optimizers`."""

    eps: float = ADAM_EPS

    def setup(self, params: list[torch.nn.Parameter]) -> torch.optim.Adam:
        return adam([{"params": params, "lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}])


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon: updates each matrix by an orthogonal matrix, so by equal amounts in all directions (Jordan et al. 2024)."""

    eps: float = MUON_EPS
    """Added to the norm of a gradient before the gradient is made orthogonal."""
    momentum: float = 0.95
    """Momentum, between 0 and 0.999."""
    ns_steps: int = 5
    """Number of Newton-Schulz iterations."""

    def setup(self, params: list[torch.nn.Parameter]) -> torch.optim.Muon:
        return muon(params, self.lr, momentum=self.momentum, ns_steps=self.ns_steps, eps=self.eps)


class StafOptimizers(Optimizers):
    """nerfstudio's optimizers, which also read the states of version 0.1."""

    def load_optimizers(self, loaded_state: dict[str, Any]) -> None:
        states = present_groups(loaded_state)
        if "first_layer" in self.optimizers and "first_layer" not in states:
            # Version 0.1 had weights that read coordinates among the matrices. Their first moments start anew.
            states.pop("hidden", None)
        super().load_optimizers(states)

    def load_schedulers(self, loaded_state: dict[str, Any]) -> None:
        super().load_schedulers(present_groups(loaded_state))


@dataclass
class StafTrainerConfig(TrainerConfig):
    """Configuration of a training run."""

    _target: type = dataclasses.field(default_factory=lambda: StafTrainer)

    config_file: Path | None = dataclasses.field(default=None, init=False, repr=False)
    """The config.yml that this was read from, once it is known. It is not saved: a run may be moved."""

    def __post_init__(self) -> None:
        model: Any = getattr(self.pipeline, "model", None)
        names = [name for name in ("field", "background", "proposal", "color") if hasattr(model, name)]
        if any(isinstance(value, Choice) for name in names for value in vars(getattr(model, name)).values()):
            preset = load_preset(str(self.method_name), detect_device())  # what the command line's options change
            for name in names:
                setattr(model, name, resolved(getattr(model, name), getattr(preset, name)))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, workarounds.local_unless_named(value) if name == "viewer" else value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "config_file"}

    def print_to_terminal(self) -> None:
        """Prints the method, the capture and the folder of the run. nerfstudio would print the whole configuration."""
        workarounds.keep_messages_short()
        if debugging():
            super().print_to_terminal()
        else:
            data = self.data or getattr(self.pipeline.datamanager, "data", None)
            CONSOLE.print(f"{self.method_name} on {data}; the results are written to {self.get_base_dir()}")

    def get_base_dir(self) -> Path:
        """Returns the folder of the run. A run may be moved: the folder of a config.yml that was read comes first."""
        self.config_file = self.config_file or workarounds.config_being_read()
        if self.config_file is not None and (self.config_file.parent / self.relative_model_dir).is_dir():
            return self.config_file.parent
        return super().get_base_dir()

    def get_checkpoint_dir(self) -> Path:
        workarounds.keep_messages_short()
        folder = super().get_checkpoint_dir()
        if self.config_file is not None:
            checkpoints = sorted(folder.glob("step-*.ckpt"))
            if not checkpoints:
                raise FileNotFoundError(f"the run has no checkpoint (step-*.ckpt) in {folder}")
            check_readable(checkpoints[-1])
        return folder

    def save_config(self) -> None:
        """Writes nothing yet. `ns-train` calls this first, and a capture that cannot be read shall leave no folder.

        The trainer calls `write` once the capture is read.
        """
        self.make_paths_absolute()

    def write(self) -> None:
        """Writes config.yml into the folder of the run."""
        super().save_config()

    def make_paths_absolute(self) -> None:
        """Makes all paths absolute, so that later commands may run in any folder."""
        self.output_dir = Path(self.output_dir).expanduser().absolute()
        manager = self.pipeline.datamanager
        for holder in (manager, getattr(manager, "dataparser", None), self):
            data = getattr(holder, "data", None)
            if holder is not None and data is not None and data != Path():
                holder.data = Path(data).expanduser().absolute()


def _slower(options: dict[str, Any], factor: float) -> dict[str, Any]:
    """Returns an optimizer and its scheduler with learning rates divided by a factor."""
    optimizer, scheduler = options["optimizer"], options["scheduler"]
    return {
        "optimizer": dataclasses.replace(optimizer, lr=optimizer.lr / factor),
        "scheduler": dataclasses.replace(scheduler, lr_final=scheduler.lr_final / factor),
    }


def chosen_checkpoint(config: TrainerConfig) -> Path | None:
    """Returns the checkpoint from which a run continues, or None for a new run.

    Raises:
        ValueError: If it is truncated, not a checkpoint, or a file is given in place of a folder.
        FileNotFoundError: If it does not exist.
    """
    checkpoint = config.load_checkpoint
    if config.load_dir is not None:
        checkpoint = _checkpoint_in(config.load_dir, config.relative_model_dir, config.load_step)
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"no checkpoint {checkpoint}")
        check_readable(checkpoint)
    return checkpoint


def _checkpoint_in(folder: Path, relative_model_dir: Path, step: int | None) -> Path:
    """Returns a checkpoint of a run's folder, or of its folder of checkpoints: of that step, or the last one."""
    if folder.is_file():
        raise ValueError(f"--load-dir must be a folder, {folder} is a file; --load-checkpoint takes one checkpoint")
    folders = (folder, folder / relative_model_dir)
    checkpoints = next(filter(None, (sorted(place.glob("step-*.ckpt")) for place in folders)), [])
    if not checkpoints:
        raise FileNotFoundError(f"no checkpoint (step-*.ckpt) in {folder}")
    return checkpoints[-1] if step is None else checkpoints[-1].with_name(f"step-{step:09d}.ckpt")


def refuse_finished(checkpoint: Path, done: int, total: int) -> None:
    """Refuses to continue from a checkpoint that has all steps.

    Raises:
        ValueError: If that is so. The message says which number of steps to give.
    """
    if done >= total:
        raise ValueError(
            f"nothing is left to train: {checkpoint} has {done} steps, and --max-num-iterations is {total}, which "
            f"counts them\nTo train for {total} steps more: --max-num-iterations {done + total}"
        )


def check_readable(checkpoint: Path) -> None:
    """Raises ValueError if a checkpoint file is truncated or not a checkpoint."""
    if not zipfile.is_zipfile(checkpoint):
        raise ValueError(
            f"the checkpoint {checkpoint} is truncated or not a checkpoint ({checkpoint.stat().st_size} bytes)"
        )


def plain(state: Any) -> Any:
    """Returns a copy of nested containers with Python numbers for NumPy scalars, which safe loading refuses."""
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, Mapping):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(plain(value) for value in state)
    return state


class StafTrainer(Trainer):
    """nerfstudio's trainer, with safer checkpoints."""

    config: StafTrainerConfig
    latest_loss = float("nan")
    """The loss of the last step."""
    last_step = -1
    """The last step that was done whole. -1: none yet."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        if self.config.machine.device_type == "cpu":
            keep_freed_memory()
        self.as_configured = copy.deepcopy(self.config)  # what follows adds to it
        self._choose_checkpoint()
        super().setup(test_mode=test_mode)

    def setup_optimizers(self) -> Optimizers:
        """Returns the optimisers of all groups. The rate of "first_layer" is per frequency, as for signals.

        nerfstudio calls this when the capture is read, and before the viewer, which needs the folder of the run. So
        config.yml is written here.
        """
        groups = self.pipeline.get_param_groups()
        config = present_groups(self.config.optimizers)
        if "first_layer" in groups:
            field: Any = self.pipeline.model.field
            (scale,) = set(first_layer_scales(field))
            config["first_layer"] = _slower(config.get("first_layer", config["network"]), scale)
        optimizers = StafOptimizers(config, groups)
        if self.local_rank == 0:
            self.as_configured.write()
        return optimizers

    def train_iteration(self, step: int):
        loss, losses, metrics = super().train_iteration(step)
        self.latest_loss = float(loss.detach())
        self.last_step = step
        return loss, losses, metrics

    @shared_cores()
    def train(self) -> None:
        try:
            with self._steps_left():
                super().train()
        except KeyboardInterrupt:
            if self.last_step >= 0:
                self.save_checkpoint(self.last_step)
                CONSOLE.print(
                    f"Interrupted and saved at step {self.last_step}. To continue:\n{self.resume_command()}",
                    soft_wrap=True,
                )
            raise

    @contextlib.contextmanager
    def _steps_left(self) -> Iterator[None]:
        """Context in which `max_num_iterations` is the number of steps that are left: nerfstudio's loop adds it."""
        total = self.config.max_num_iterations
        self.config.max_num_iterations = total - self._start_step
        try:
            yield
        finally:
            self.config.max_num_iterations = total

    def _train_complete_viewer(self) -> None:
        """Says what comes next. With a viewer, nerfstudio then waits for Ctrl-C, which here is no interruption."""
        config = self.config.get_base_dir() / "config.yml"
        CONSOLE.print(f"Finished and saved. To make a mesh:\nstaf mesh {config} -o mesh.glb", soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):
            super()._train_complete_viewer()

    def resume_command(self, total: int | None = None) -> str:
        """Returns the command that continues from the last checkpoint, with the options of this run.

        Args:
            total: Number of all steps. Defaults to that of this run.
        """
        data = self.config.pipeline.datamanager.dataparser.data  # pyright: ignore[reportAttributeAccessIssue]
        words = ["ns-train", self.config.method_name, "--data", data, "--load-dir", self.checkpoint_dir]
        words += ["--max-num-iterations", total or self.config.max_num_iterations]
        given = workarounds.options_of_ns_train(but=REPLACED)
        return shlex.join(map(str, words + (self._schedule_options() if given is None else given)))

    def _schedule_options(self) -> list[str]:
        """Returns the options for the schedules of the learning rates, if they do not last as long as the method's."""
        usual = load_preset(str(self.config.method_name), detect_device()).training.steps
        steps = {name: options["scheduler"].max_steps for name, options in self.config.optimizers.items()}
        pairs = [(f"--optimizers.{name}.scheduler.max-steps", str(n)) for name, n in steps.items() if n != usual]
        return [word for pair in pairs for word in pair]

    def _choose_checkpoint(self) -> None:
        """Looks for the checkpoint to continue from, before anything is read or written."""
        checkpoint = chosen_checkpoint(self.config)
        if checkpoint is None:
            return
        if step := re.fullmatch(r"step-(\d+)", checkpoint.stem):
            refuse_finished(checkpoint, int(step[1]) + 1, self.config.max_num_iterations)
        self.config.load_dir, self.config.load_step, self.config.load_checkpoint = None, None, checkpoint

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if (checkpoint := self.config.load_checkpoint) is not None:
            done, total = self._start_step, self.config.max_num_iterations
            refuse_finished(checkpoint, done, total)
            CONSOLE.print(f"{done} of {total} steps are done")
            self.last_step = done - 1

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Writes a checkpoint beside the folder and moves it in, so that earlier ones are kept until it is complete.

        Raises:
            OSError: If the file cannot be written. Earlier checkpoints are not changed.
        """
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        partial = self.checkpoint_dir.parent / f"{path.name}.partial"
        model = getattr(self.pipeline, "module", self.pipeline)
        state = {
            "step": step,
            "pipeline": model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        try:
            torch.save(plain(state), partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError on a full disk
            partial.unlink(missing_ok=True)
            kept = sorted(file.name for file in self.checkpoint_dir.glob("step-*.ckpt"))
            raise OSError(f"could not save {path}: {error}; kept: {', '.join(kept) or 'none'}") from error
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("*.ckpt"):
                if other != path:
                    other.unlink()
