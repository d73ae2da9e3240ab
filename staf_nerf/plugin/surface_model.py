"""The nerfstudio model of surfaces: NeuS's rendering of a signed distance, with the sampling of the other methods.

It begins as a radiance field. What that shows after some steps becomes the first surface, which is learned further.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nerfstudio.cameras.rays import RaySamples
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Generator, Tensor
from torch.nn.functional import relu

from staf_nerf.config import FieldConfig, SurfaceConfig
from staf_nerf.plugin.field import CubeContraction
from staf_nerf.plugin.model import StafModel, StafModelConfig
from staf_nerf.plugin.surface_field import StafSurfaceField, surface_cube
from staf_nerf.plugin.surface_start import CarvedSignal, start_surface

ANCHOR_POINTS = 2048
"""Points a step at which the surface is held to what was carved."""
DEEP = 0.5
"""Only what was carved as solid, and lies that part of the reach below the surface, is held: its skin may move."""


def first_surface_step(surface: SurfaceConfig, steps: int | None) -> int:
    """The step at which there is a surface: a run shorter than usual gives the density a quarter of its steps."""
    return min(surface.density_steps, steps // 4) if steps is not None else surface.density_steps


@dataclass
class StafSurfaceModelConfig(StafModelConfig):
    """The model of `staf-nerf-sdf`."""

    _target: type = dataclasses.field(default_factory=lambda: StafSurfaceModel)
    surface: SurfaceConfig = dataclasses.field(default_factory=SurfaceConfig)
    """How the signed distance starts and learns."""
    background: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """The density network and its encoding, of the radiance field that there is first, and behind the surface."""

    @property
    def sdf_field(self) -> FieldConfig:
        """What `ns-export marching-cubes` looks for, to know a model of a surface."""
        return self.field


class StafSurfaceModel(StafModel):
    """A STAF signed distance, rendered; behind it a STAF radiance field where the capture is not bounded."""

    config: StafSurfaceModelConfig
    anchor: tuple[CarvedSignal, Generator] | None = None
    """What the first surface was carved from, as long as it holds the surface, and what draws points of it."""
    steps_of_surface = 0
    """Steps since there is one."""

    def _make_field(self, contraction: CubeContraction | None) -> StafSurfaceField:
        aabb, config = self.scene_box.aabb, self.config
        look = self.kwargs.get("metadata", {}).get("attention")
        cube = surface_cube(config.surface, look, None if contraction is not None else aabb)
        return StafSurfaceField(
            aabb,
            self.num_train_data,
            config.field,
            config.color,
            config.surface,
            cube=cube,
            background=config.background,
            look=look,
            contraction=contraction,
            implementation=config.implementation,
        )

    def shade(self, samples: RaySamples) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if not self.field.started:
            return self.shade_density(self.field.background, samples)
        found = self.field(samples)
        weights = RaySamples.get_weights_and_transmittance_from_alphas(found["alpha"], weights_only=True)
        if self.training:
            return weights, found[FieldHeadNames.RGB], {"gradient": found["gradient"]}
        normals = 0.5 + 0.5 * (weights * found[FieldHeadNames.NORMALS]).sum(-2)
        return weights, found[FieldHeadNames.RGB], {"normals": normals}

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training and len(outputs.get("gradient", ())):
            length = outputs["gradient"].norm(dim=-1)
            losses["eikonal_loss"] = self.config.surface.eikonal_weight * (length - 1.0).square().mean()
        if self.training and self.anchor is not None:
            fading = max(1.0 - self.steps_of_surface / self.config.surface.anchor_steps, 0.0)
            losses["anchor_loss"] = self.config.surface.anchor_weight * fading * self._anchor_loss(*self.anchor)
        return losses

    def _anchor_loss(self, signal: CarvedSignal, generator: Generator) -> Tensor:
        """How far what was carved as solid, well below its surface, has become free; in parts of the reach."""
        points, distance, known = signal.carved(ANCHOR_POINTS, generator)
        solid = points[known & (distance < -DEEP * signal.reach)]
        return relu(self.field.signed_distance(solid)).sum() / (ANCHOR_POINTS * signal.reach)

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        metrics = super().get_metrics_dict(outputs, batch)
        metrics["sharpness"] = self.field.sharpness.detach()
        return metrics

    def start_surface(self, manager: DataManager, *, steps: int) -> None:
        """Gives the signed distance the surface that the density shows to the training cameras."""
        CONSOLE.print("A first surface is made of what the density shows to the cameras.")
        carved = start_surface(self, manager, steps=steps)
        self.anchor = (carved, Generator().manual_seed(0)) if carved is not None else None

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        pipeline: Any = training_callback_attributes.pipeline
        trainer = training_callback_attributes.trainer
        start = first_surface_step(self.config.surface, trainer.config.max_num_iterations if trainer else None)

        def prepare(step: int) -> None:
            if step >= start and not self.field.started:
                self.start_surface(pipeline.datamanager, steps=start)
            self.steps_of_surface = step - start
            if self.steps_of_surface >= self.config.surface.anchor_steps:
                self.anchor = None
            steps = self.config.surface.anneal_steps
            self.field.anneal = min((step - start) / steps, 1.0) if steps else 1.0

        return [
            *super().get_training_callbacks(training_callback_attributes),
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], update_every_num_iters=1, func=prepare
            ),
        ]
