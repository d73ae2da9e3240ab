"""The nerfstudio model of surfaces: a signed distance rendered as in NeuS, with the sampling of the other methods.

Training starts with a density. After some steps the surface is initialised from it, and is then trained further.
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
from staf_nerf.plugin.cameras import refuse_one_place
from staf_nerf.plugin.field import CubeContraction
from staf_nerf.plugin.model import StafModel, StafModelConfig
from staf_nerf.plugin.surface_field import StafSurfaceField, surface_cube
from staf_nerf.plugin.surface_start import CarvedSignal, start_surface

PRIOR_POINTS = 2048
"""Number of points per step for the prior loss."""
PRIOR_DEPTH = 0.5
"""The prior loss holds only points that were carved as solid and lie this fraction of the reach below the surface.
The surface itself may move."""


def first_surface_step(surface: SurfaceConfig, steps: int | None) -> int:
    """Returns the step at which the surface is initialised: at most a quarter of all steps."""
    return min(surface.density_steps, steps // 4) if steps is not None else surface.density_steps


@dataclass
class StafSurfaceModelConfig(StafModelConfig):
    """Settings of the model."""

    _target: type = dataclasses.field(default_factory=lambda: StafSurfaceModel)
    surface: SurfaceConfig = dataclasses.field(default_factory=SurfaceConfig)
    """Settings of the signed distance field."""
    background: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """The density network, which is trained first and then models what lies behind the surface."""

    @property
    def sdf_field(self) -> FieldConfig:
        """The attribute by which `ns-export marching-cubes` recognises a model with a signed distance."""
        return self.field


class StafSurfaceModel(StafModel):
    """A STAF signed distance field, and a STAF radiance field behind it for captures without bounds."""

    config: StafSurfaceModelConfig
    prior: tuple[CarvedSignal, Generator] | None = None
    """The carved points and their random generator, while the prior loss is active."""
    steps_of_surface = 0
    """Number of steps since the surface was initialised."""

    def _make_field(self, contraction: CubeContraction | None) -> StafSurfaceField:
        aabb, config = self.scene_box.aabb, self.config
        metadata = self.kwargs.get("metadata", {})
        refuse_one_place(metadata)
        focus = metadata.get("focus")
        cube = surface_cube(config.surface, focus, None if contraction is not None else aabb)
        return StafSurfaceField(
            aabb,
            self.num_train_data,
            config.field,
            config.color,
            config.surface,
            cube=cube,
            background=config.background,
            focus=focus,
            contraction=contraction,
            implementation=config.implementation,
        )

    def shade(self, samples: RaySamples) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if not self.field.started:
            return self.shade_density(self.field.background, samples)
        outputs = self.field(samples)
        weights = RaySamples.get_weights_and_transmittance_from_alphas(outputs["alpha"], weights_only=True)
        if self.training:
            return weights, outputs[FieldHeadNames.RGB], {"gradient": outputs["gradient"]}
        normals = 0.5 + 0.5 * (weights * outputs[FieldHeadNames.NORMALS]).sum(-2)
        return weights, outputs[FieldHeadNames.RGB], {"normals": normals}

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training and len(outputs.get("gradient", ())):
            length = outputs["gradient"].norm(dim=-1)
            losses["eikonal_loss"] = self.config.surface.eikonal_weight * (length - 1.0).square().mean()
        if self.training and self.prior is not None:
            fading = max(1.0 - self.steps_of_surface / self.config.surface.prior_steps, 0.0)
            losses["prior_loss"] = self.config.surface.prior_weight * fading * self._prior_loss(*self.prior)
        return losses

    def _prior_loss(self, signal: CarvedSignal, generator: Generator) -> Tensor:
        """Returns how far points that were carved as solid now lie outside the surface, relative to the reach."""
        points, distance, known = signal.carved(PRIOR_POINTS, generator)
        solid = points[known & (distance < -PRIOR_DEPTH * signal.reach)]
        return relu(self.field.signed_distance(solid)).sum() / (PRIOR_POINTS * signal.reach)

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        metrics = super().get_metrics_dict(outputs, batch)
        metrics["sharpness"] = self.field.sharpness.detach()
        return metrics

    def start_surface(self, manager: DataManager, *, steps: int) -> None:
        """Initialises the signed distance from depth maps that the density gives for the training cameras."""
        CONSOLE.print("The surface is initialised from depth maps of the density.")
        signal = start_surface(self, manager, steps=steps)
        self.prior = (signal, Generator().manual_seed(0)) if signal is not None else None

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
            if self.steps_of_surface >= self.config.surface.prior_steps:
                self.prior = None
            steps = self.config.surface.anneal_steps
            self.field.anneal = min((step - start) / steps, 1.0) if steps else 1.0

        return [
            *super().get_training_callbacks(training_callback_attributes),
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], update_every_num_iters=1, func=prepare
            ),
        ]
