"""The nerfstudio pipeline: the stock one, with checks when a checkpoint is loaded and a viewer that stays quick."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.viewer.viewer_elements import ViewerControl

from staf_nerf.plugin.model import FORMAT_VERSION


@dataclass
class StafPipelineConfig(VanillaPipelineConfig):
    """The pipeline of the STAF methods."""

    _target: type = dataclasses.field(default_factory=lambda: StafPipeline)
    viewer_resolution: int = 512
    """Longest side, in pixels, of the viewer's pictures when it opens (64 to 2048). Its slider changes it."""


class StafPipeline(VanillaPipeline):
    """The stock pipeline for the STAF methods."""

    config: StafPipelineConfig

    def __init__(self, config: StafPipelineConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.viewer_start = _ViewerStart(config.viewer_resolution)

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Loads a checkpoint's weights.

        Raises:
            ValueError: If the checkpoint is another method's, or of a newer version.
        """
        state = {key.removeprefix("module."): value for key, value in loaded_state.items()}
        version = state.get("_model.format_version")
        if version is None:
            raise ValueError("the checkpoint is not one of a STAF method: it lacks a format version")
        if int(version) > FORMAT_VERSION:
            raise ValueError(
                f"the checkpoint has format version {int(version)}, this staf_nerf reads up to {FORMAT_VERSION}: "
                "install a newer staf_nerf"
            )
        # The stock method loads what fits and leaves the rest as it was drawn, without a word.
        own = self.state_dict()
        odd = sorted(key for key in own.keys() ^ state.keys() if key.startswith("_model."))
        odd += sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
        if odd:
            names = ", ".join(key.removeprefix("_model.") for key in odd[:3])
            raise ValueError(
                "the checkpoint does not fit this method and its configuration (was it trained by another method, on "
                f"another capture, or with other sizes?): {len(odd)} parameters differ, such as {names}"
            )
        super().load_pipeline(loaded_state, step)


class _ViewerStart(ViewerControl):
    """Opens the viewer at a resolution at which a connected browser does not stop the training."""

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution

    def _setup(self, viewer: Any) -> None:
        super()._setup(viewer)
        viewer.control_panel._max_res.value = self.resolution
