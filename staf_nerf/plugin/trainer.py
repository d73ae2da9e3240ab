"""The nerfstudio trainer: the stock loop, with checkpoints that survive a full disk, a move and an interruption.

A checkpoint holds plain Python numbers beside its tensors, so that torch's safe loading accepts it.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE

from staf_nerf.cores import shared_cores
from staf_nerf.errors import debugging, explain
from staf_nerf.memory import keep_freed_memory
from staf_nerf.muon import PreciseMuon


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam in one pass over memory: a hash grid's table makes it a large part of a step on a CPU."""

    def setup(self, params: list[torch.nn.Parameter]) -> torch.optim.Adam:
        fused = all(parameter.is_floating_point() for parameter in params)  # torch has no fused one for complex weights
        return torch.optim.Adam(params, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=fused)


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon: each matrix moves by an orthogonal one, all its directions equally far (Jordan et al. 2024)."""

    eps: float = 1e-7
    """Added to the norm of a gradient before it is made orthogonal."""

    def setup(self, params: list[torch.nn.Parameter]) -> torch.optim.Muon:
        kind = PreciseMuon if all(parameter.device.type == "cpu" for parameter in params) else torch.optim.Muon
        return kind(params, lr=self.lr, weight_decay=0.0, eps=self.eps)


@dataclass
class StafTrainerConfig(TrainerConfig):
    """The experiment of a STAF method."""

    _target: type = dataclasses.field(default_factory=lambda: StafTrainer)

    def __setattr__(self, name: str, value: Any) -> None:
        # `ns-viewer` puts its own defaults here, which listen on every network that the machine is in.
        if name == "viewer" and value.websocket_host == "0.0.0.0" and not _host_was_named():
            value = dataclasses.replace(value, websocket_host="127.0.0.1")
        super().__setattr__(name, value)

    _found: ClassVar[Path | None] = None
    """The folder that config.yml was read from, once it is known."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_found"}

    def print_to_terminal(self) -> None:
        """Names the method, the capture and the run's folder; nerfstudio prints its whole configuration here."""
        explain_uncaught_errors()
        if debugging():
            super().print_to_terminal()
        else:
            data = self.data or getattr(self.pipeline.datamanager, "data", None)
            CONSOLE.print(f"{self.method_name} on {data}; everything of the run goes to {self.get_base_dir()}")

    def get_base_dir(self) -> Path:
        """The run's folder: where its config.yml was read from, so that it can be moved, else where it was trained."""
        if (found := _loaded_from()) is not None and (found / self.relative_model_dir).is_dir():
            self.__dict__["_found"] = found
        return self._found or super().get_base_dir()

    def get_checkpoint_dir(self) -> Path:
        explain_uncaught_errors()
        folder = super().get_checkpoint_dir()
        if _loaded_from() is not None:
            for checkpoint in sorted(folder.glob("step-*.ckpt"))[-1:]:
                check_readable(checkpoint)
        return folder

    def save_config(self) -> None:
        self.make_paths_absolute()
        super().save_config()

    def make_paths_absolute(self) -> None:
        """Makes the paths independent of the folder that a later command is run in."""
        self.output_dir = Path(self.output_dir).expanduser().absolute()
        manager = self.pipeline.datamanager
        for holder in (manager, getattr(manager, "dataparser", None), self):
            data = getattr(holder, "data", None)
            if holder is not None and data is not None and data != Path():
                holder.data = Path(data).expanduser().absolute()


def explain_uncaught_errors() -> None:
    """Lets nerfstudio's commands end with a few lines where a user can mend the error, and not with a traceback.

    It changes nothing in other programs that use the plugin, and nothing while STAF_DEBUG=1.
    """
    if debugging() or not Path(sys.argv[0]).name.startswith("ns-"):
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = explain(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"staf-nerf: {message}", file=sys.stderr)

    sys.excepthook = show


def _host_was_named() -> bool:
    """Whether the command line says which address the viewer listens on."""
    return any("websocket-host" in word.replace("_", "-") for word in sys.argv)


def _loaded_from() -> Path | None:
    """The folder of the config.yml that nerfstudio's `eval_setup` is reading, if it is.

    nerfstudio derives a run's folder from the working directory and the names in the file, and does not tell the
    configuration where it was read from; the caller's frame knows.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "eval_setup" and isinstance(path := frame.f_locals.get("config_path"), Path):
            return path.absolute().parent
        frame = frame.f_back
    return None


def check_readable(checkpoint: Path) -> None:
    """Raises ValueError if a checkpoint file is truncated or is none."""
    if not zipfile.is_zipfile(checkpoint):
        raise ValueError(
            f"the checkpoint {checkpoint} is truncated or not a checkpoint ({checkpoint.stat().st_size} bytes)"
        )


def plain(state: Any) -> Any:
    """A copy of nested containers in which numpy's scalars, which safe loading refuses, are Python's."""
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, Mapping):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(plain(value) for value in state)
    return state


class StafTrainer(Trainer):
    """The stock trainer, with safer checkpoints."""

    config: StafTrainerConfig
    latest_loss = float("nan")
    """The loss of the last step."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        if self.config.machine.device_type == "cpu":
            keep_freed_memory()
        super().setup(test_mode=test_mode)

    def train_iteration(self, step: int):
        loss, losses, metrics = super().train_iteration(step)
        self.latest_loss = float(loss.detach())
        return loss, losses, metrics

    @shared_cores()
    def train(self) -> None:
        try:
            super().train()
        except KeyboardInterrupt:
            self.save_checkpoint(self.step)
            CONSOLE.print(f"Interrupted at step {self.step}; saved. To go on:\n{self.resume_command()}", soft_wrap=True)
            raise

    def resume_command(self) -> str:
        """The command that goes on from the last checkpoint."""
        data = self.config.pipeline.datamanager.dataparser.data  # pyright: ignore[reportAttributeAccessIssue]
        return f"ns-train {self.config.method_name} --data {data} --load-dir {self.checkpoint_dir}"

    def _load_checkpoint(self) -> None:
        candidates = [self.config.load_checkpoint] if self.config.load_checkpoint is not None else []
        if (folder := self.config.load_dir) is not None:
            candidates = sorted(folder.glob("step-*.ckpt"))[-1:]
            if not candidates:
                raise FileNotFoundError(f"no checkpoint (step-*.ckpt) in {folder}")
        for checkpoint in candidates:
            check_readable(checkpoint)
        super()._load_checkpoint()

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Saves to a file beside the folder and moves it in: what was there stays until the new one is whole.

        Raises:
            OSError: If it cannot be written; earlier checkpoints are as they were.
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
