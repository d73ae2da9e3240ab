"""The nerfstudio pipeline: the standard one with checks of checkpoints, and settings of evaluation and viewer."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.viewer.viewer_elements import ViewerControl

from staf_nerf.migrations import parameter_name
from staf_nerf.plugin.held_out import HeldOutViews
from staf_nerf.plugin.model import FORMAT_VERSION


@dataclass
class StafPipelineConfig(VanillaPipelineConfig):
    """Settings of the pipeline."""

    _target: type = dataclasses.field(default_factory=lambda: StafPipeline)
    viewer_resolution: int = 512
    """Longest side of the viewer's images in pixels when it opens (64 to 2048). A slider in the viewer changes it."""
    eval_views: int | None = None
    """Largest number of held-out views that `ns-eval` measures, spread evenly over all. Defaults to all."""


class StafPipeline(VanillaPipeline):
    """nerfstudio's standard pipeline, with checks of checkpoints."""

    config: StafPipelineConfig

    def __init__(self, config: StafPipelineConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.viewer_start = _ViewerStart(config.viewer_resolution)

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, float]:
        """Returns the metrics of the held-out views, at most `eval_views` of them."""
        views = HeldOutViews(self.datamanager.fixed_indices_eval_dataloader, self.config.eval_views, say_progress)
        return self.get_average_image_metrics(views, "eval", step, output_path, get_std)

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Loads a checkpoint's weights.

        Raises:
            ValueError: If the checkpoint is from another method or a newer version.
        """
        state = {parameter_name(key.removeprefix("module.")): value for key, value in loaded_state.items()}
        version = state.get("_model.format_version")
        if version is None:
            raise ValueError("the checkpoint is not from a STAF method: it has no format version")
        if int(version) > FORMAT_VERSION:
            raise ValueError(
                f"the checkpoint has format version {int(version)}, this version of staf_nerf reads up to "
                f"{FORMAT_VERSION}: install a newer staf_nerf"
            )
        state["_model.format_version"] = self.model.format_version  # what is saved next has the present names
        # The standard method loads what fits and silently leaves the rest at its initialisation.
        own = self.state_dict()
        odd = sorted(key for key in own.keys() ^ state.keys() if key.startswith("_model."))
        odd += sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
        if odd:
            names = ", ".join(key.removeprefix("_model.") for key in odd[:3])
            raise ValueError(
                "the checkpoint does not match this method and its configuration (was it trained by another method, on "
                f"another capture, or with other sizes?): {len(odd)} parameters differ, for example {names}"
            )
        super().load_pipeline(state, step)


def say_progress(done: int, total: int) -> None:
    """Prints about ten lines, where there is no terminal. In a terminal nerfstudio shows a progress bar."""
    if not sys.stdout.isatty() and (done % max(total // 10, 1) == 0 or done == total):
        print(f"evaluated {done} of {total} views", flush=True)


class _ViewerStart(ViewerControl):
    """Opens the viewer at a resolution at which a connected browser does not stall training."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        viewer.control_panel._max_res.value = self.resolution
