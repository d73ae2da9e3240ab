"""The trainer: nerfstudio's loop, with checkpoints that survive a full disk, a move of the folder and an interrupt.

Besides tensors a checkpoint contains plain Python numbers only, so that torch's safe loading accepts it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import sys
import warnings
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

from staf_nerf.config import Choice
from staf_nerf.cores import shared_cores
from staf_nerf.errors import debugging, explain
from staf_nerf.memory import keep_freed_memory
from staf_nerf.muon import PreciseMuon
from staf_nerf.presets import detect_device, load_preset, resolved


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Fused Adam. With the table of a hash grid, Adam takes a large part of a training step on a CPU."""

    def setup(self, params: list[torch.nn.Parameter]) -> torch.optim.Adam:
        fused = all(parameter.is_floating_point() for parameter in params)  # torch has none for complex weights
        return torch.optim.Adam(params, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay, fused=fused)


@dataclass
class MuonConfig(OptimizerConfig):
    """Muon: updates each matrix by an orthogonal matrix, so by equal amounts in all directions (Jordan et al. 2024)."""

    eps: float = 1e-7
    """Added to the norm of a gradient before the gradient is made orthogonal."""

    def setup(self, params: list[torch.nn.Parameter]) -> torch.optim.Muon:
        kind = PreciseMuon if all(parameter.device.type == "cpu" for parameter in params) else torch.optim.Muon
        return kind(params, lr=self.lr, weight_decay=0.0, eps=self.eps)


@dataclass
class StafTrainerConfig(TrainerConfig):
    """Configuration of a training run."""

    _target: type = dataclasses.field(default_factory=lambda: StafTrainer)

    def __post_init__(self) -> None:
        model: Any = getattr(self.pipeline, "model", None)
        names = [name for name in ("field", "background", "proposal", "color") if hasattr(model, name)]
        if any(isinstance(value, Choice) for name in names for value in vars(getattr(model, name)).values()):
            preset = load_preset(
                str(self.method_name), detect_device()
            )  # the command line's options change those of this
            for name in names:
                setattr(model, name, resolved(getattr(model, name), getattr(preset, name)))

    def __setattr__(self, name: str, value: Any) -> None:
        # `ns-viewer` sets its own defaults, with which the viewer listens on all networks of the machine.
        if name == "viewer" and value.websocket_host == "0.0.0.0" and not _host_was_named():
            value = dataclasses.replace(value, websocket_host="127.0.0.1")
        super().__setattr__(name, value)

    _found: ClassVar[Path | None] = None
    """Folder that config.yml was read from, once it is known."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_found"}

    def print_to_terminal(self) -> None:
        """Prints the method, the capture and the folder of the run. nerfstudio would print the whole configuration."""
        keep_messages_short()
        if debugging():
            super().print_to_terminal()
        else:
            data = self.data or getattr(self.pipeline.datamanager, "data", None)
            CONSOLE.print(f"{self.method_name} on {data}; the results are written to {self.get_base_dir()}")

    def get_base_dir(self) -> Path:
        """Returns the folder of the run. A run may be moved: the folder of a config.yml that was read comes first."""
        if (found := _loaded_from()) is not None and (found / self.relative_model_dir).is_dir():
            self.__dict__["_found"] = found
        return self._found or super().get_base_dir()

    def get_checkpoint_dir(self) -> Path:
        keep_messages_short()
        folder = super().get_checkpoint_dir()
        if _loaded_from() is not None:
            found = sorted(folder.glob("step-*.ckpt"))
            if not found:
                raise FileNotFoundError(f"the run has no checkpoint (step-*.ckpt) in {folder}")
            check_readable(found[-1])
        return folder

    def save_config(self) -> None:
        self.make_paths_absolute()
        super().save_config()

    def make_paths_absolute(self) -> None:
        """Makes all paths absolute, so that later commands may run in any folder."""
        self.output_dir = Path(self.output_dir).expanduser().absolute()
        manager = self.pipeline.datamanager
        for holder in (manager, getattr(manager, "dataparser", None), self):
            data = getattr(holder, "data", None)
            if holder is not None and data is not None and data != Path():
                holder.data = Path(data).expanduser().absolute()


def keep_messages_short() -> None:
    """Makes nerfstudio's commands show errors that a user can fix in a few lines, without a traceback.

    It also hides the libraries' warnings about each other, which a user cannot act on. It has no effect in other
    programs that use the plugin, and with STAF_DEBUG=1.
    """
    if debugging() or not Path(sys.argv[0]).name.startswith("ns-"):
        return
    warnings.filterwarnings("ignore", module=r"(nerfstudio|torch|torchmetrics|torchvision)(\.|$)")

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = explain(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"staf-nerf: {message}", file=sys.stderr)

    sys.excepthook = show


def _host_was_named() -> bool:
    """Returns whether the command line sets the address that the viewer listens on."""
    return any("websocket-host" in word.replace("_", "-") for word in sys.argv)


def _loaded_from() -> Path | None:
    """Returns the folder of the config.yml that nerfstudio's `eval_setup` is reading, or None.

    nerfstudio derives the folder of a run from the working directory and the names in the file. It does not tell the
    configuration where the file lies. The path is therefore taken from the stack frame of `eval_setup`.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "eval_setup" and isinstance(path := frame.f_locals.get("config_path"), Path):
            return path.absolute().parent
        frame = frame.f_back
    return None


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
            CONSOLE.print(
                f"Interrupted and saved at step {self.step}. To continue:\n{self.resume_command()}", soft_wrap=True
            )
            raise

    def _train_complete_viewer(self) -> None:
        """Says what comes next. With a viewer, nerfstudio then waits for Ctrl-C, which here is no interruption."""
        config = self.config.get_base_dir() / "config.yml"
        CONSOLE.print(f"Finished and saved. To make a mesh:\nstaf mesh {config} -o mesh.glb", soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):
            super()._train_complete_viewer()

    def resume_command(self) -> str:
        """Returns the command that continues from the last checkpoint."""
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
