"""The nerfstudio model of surfaces: NeuS's rendering of a signed distance, with the sampling of the other methods."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nerfstudio.cameras.rays import RaySamples
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from staf_nerf.config import FieldConfig, SurfaceConfig
from staf_nerf.plugin.field import CubeContraction
from staf_nerf.plugin.model import StafModel, StafModelConfig
from staf_nerf.plugin.surface_field import StafSurfaceField, surface_cube


@dataclass
class StafSurfaceModelConfig(StafModelConfig):
    """The model of `staf-nerf-sdf`."""

    _target: type = dataclasses.field(default_factory=lambda: StafSurfaceModel)
    surface: SurfaceConfig = dataclasses.field(default_factory=SurfaceConfig)
    """How the signed distance starts and learns."""

    @property
    def sdf_field(self) -> FieldConfig:
        """What `ns-export marching-cubes` looks for, to know a model of a surface."""
        return self.field


class StafSurfaceModel(StafModel):
    """A STAF signed distance, rendered; behind it a STAF radiance field where the capture is not bounded."""

    config: StafSurfaceModelConfig

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
            look=look,
            background=None if contraction is None else config.field,
            contraction=contraction,
            implementation=config.implementation,
        )

    def shade(self, samples: RaySamples) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
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
        if self.training and len(outputs["gradient"]):
            length = outputs["gradient"].norm(dim=-1)
            losses["eikonal_loss"] = self.config.surface.eikonal_weight * (length - 1.0).square().mean()
        return losses

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        metrics = super().get_metrics_dict(outputs, batch)
        metrics["sharpness"] = self.field.sharpness.detach()
        return metrics

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        steps = self.config.surface.anneal_steps

        def anneal(step: int) -> None:
            self.field.anneal = min(step / steps, 1.0) if steps else 1.0

        return [
            *super().get_training_callbacks(training_callback_attributes),
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], update_every_num_iters=1, func=anneal
            ),
        ]
