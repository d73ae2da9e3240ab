"""The nerfstudio model: STAF fields with nerfacto's sampling, losses and outputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.losses import MSELoss, interlevel_loss, ray_samples_to_sdist
from nerfstudio.model_components.ray_samplers import UniformSampler
from nerfstudio.model_components.renderers import AccumulationRenderer, DepthRenderer, RGBRenderer
from nerfstudio.model_components.scene_colliders import AABBBoxCollider, NearFarCollider
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.models.nerfacto import NerfactoModel
from nerfstudio.utils import colormaps, writer
from torch import Tensor, nn
from torchmetrics.functional import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio

from staf_nerf.activations import STAF
from staf_nerf.config import ColorConfig, FieldConfig, HashGridConfig, RadianceConfig, SamplingConfig
from staf_nerf.encodings import Implementation
from staf_nerf.fitting.optimizers import ordered_parameters, parameter_groups
from staf_nerf.kernels.rays import distortion
from staf_nerf.metrics.perceptual import load_lpips
from staf_nerf.plugin.field import CubeContraction, ProposalField, StafField
from staf_nerf.plugin.sampling import ProposalSampler, weights_of

FORMAT_VERSION = 2
"""Version of the checkpoint format. It is raised when an older version could not read a newer file."""

STEPS_PER_HISTOGRAM = 100
"""Number of steps between histograms of the frequencies in TensorBoard."""


@dataclass
class StafModelConfig(ModelConfig):
    """Settings of the model."""

    _target: type = dataclasses.field(default_factory=lambda: StafModel)
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    """The geometry network and its encoding."""
    color: ColorConfig = dataclasses.field(default_factory=ColorConfig)
    """The colour network."""
    proposal: FieldConfig = dataclasses.field(default_factory=lambda: RadianceConfig().proposal)
    """The first proposal network. Each further one doubles the resolution of the finest hash grid level."""
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    """Samples along rays."""
    camera_optimizer: CameraOptimizerConfig = dataclasses.field(
        default_factory=lambda: CameraOptimizerConfig(mode="off")
    )
    """Optimisation of the camera poses."""
    background_color: Literal["auto", "random", "last_sample", "black", "white"] = "auto"
    """Background colour. "auto": random if the photos have transparency, otherwise the colour of the last sample."""
    implementation: Implementation = "auto"
    """Implementation of the hash grids. "auto": tiny-cuda-nn if it is installed on a CUDA machine, otherwise ours."""
    # Read by the methods that are inherited from nerfacto.
    use_proposal_weight_anneal = True
    proposal_weights_anneal_slope = 10.0
    proposal_weights_anneal_max_num_iters = 1000

    @property
    def num_proposal_iterations(self) -> int:
        return len(self.sampling.proposal_samples)

    @property
    def interlevel_loss_mult(self) -> float:
        return self.sampling.interlevel_weight

    @property
    def distortion_loss_mult(self) -> float:
        return self.sampling.distortion_weight


def finer(config: FieldConfig, factor: int) -> FieldConfig:
    """Returns a field whose hash grid, if it has one, has the finest level's resolution times a factor."""
    if not isinstance(config.encoding, HashGridConfig):
        return config
    resolution = factor * config.encoding.max_resolution
    return dataclasses.replace(config, encoding=dataclasses.replace(config.encoding, max_resolution=resolution))


class StafModel(NerfactoModel):
    """nerfacto with STAF fields, hash grids that are fast on a CPU, and no downloads."""

    config: StafModelConfig
    field: Any

    def populate_modules(self) -> None:
        Model.populate_modules(self)  # nerfacto's own constructs LPIPS, which downloads weights
        config, sampling = self.config, self.config.sampling
        metadata = self.kwargs.get("metadata", {})
        bounded = bool(metadata.get("bounded"))
        background = config.background_color
        if background == "auto":
            background = "random" if metadata.get("has_alpha") else "last_sample"

        contraction = None if bounded else CubeContraction()
        aabb, implementation = self.scene_box.aabb, config.implementation
        self.field = self._make_field(contraction)
        self.proposal_networks = nn.ModuleList()
        for i in range(config.num_proposal_iterations):
            proposal = finer(config.proposal, 2**i)
            self.proposal_networks.append(ProposalField(aabb, contraction, proposal, implementation=implementation))
        self.density_fns = [network.density_fn for network in self.proposal_networks]
        self.camera_optimizer = config.camera_optimizer.setup(num_cameras=self.num_train_data, device="cpu")

        self.proposal_sampler = ProposalSampler(
            num_nerf_samples_per_ray=sampling.field_samples,
            num_proposal_samples_per_ray=sampling.proposal_samples,
            num_proposal_network_iterations=config.num_proposal_iterations,
            single_jitter=True,
            update_sched=self._proposal_interval,
            initial_sampler=UniformSampler(single_jitter=True) if bounded else None,
        )
        if bounded:
            self.collider = AABBBoxCollider(self.scene_box, near_plane=sampling.near)
        else:
            self.collider = NearFarCollider(near_plane=sampling.near, far_plane=sampling.far)

        self.renderer_rgb = RGBRenderer(background_color=background)
        self.renderer_accumulation = AccumulationRenderer()
        self.renderer_depth = DepthRenderer(method="median")
        self.renderer_expected_depth = DepthRenderer(method="expected")
        self.rgb_loss = MSELoss()
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.ssim = structural_similarity_index_measure
        self.step = 0
        self.interlevel_loss = torch.zeros(())
        self.register_buffer("format_version", torch.tensor(FORMAT_VERSION))

    def _make_field(self, contraction: CubeContraction | None) -> Any:
        return StafField(
            self.scene_box.aabb,
            self.num_train_data,
            self.config.field,
            self.config.color,
            contraction=contraction,
            implementation=self.config.implementation,
        )

    def shade(self, samples: RaySamples) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns weights (rays, samples, 1) and colours (rays, samples, 3) of samples, and additional outputs."""
        return self.shade_density(self.field, samples)

    def shade_density(self, field: StafField, samples: RaySamples) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns the same for a density field."""
        outputs = field(samples)
        return weights_of(samples, outputs[FieldHeadNames.DENSITY]), outputs[FieldHeadNames.RGB], {}

    def _proposal_interval(self, step: int) -> float:
        """Returns the steps between updates of the proposal networks, which grow from 1 over the warm-up."""
        sampling = self.config.sampling
        warm = np.interp(step, [0, max(sampling.proposal_warmup, 1)], [0, sampling.proposal_update_every])
        return float(np.clip(warm, 1, sampling.proposal_update_every))

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = {"proposal_networks": ordered_parameters(self.proposal_networks), **parameter_groups(self.field)}
        self.camera_optimizer.get_param_groups(param_groups=groups)
        return {name: parameters for name, parameters in groups.items() if parameters}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        return [
            *super().get_training_callbacks(training_callback_attributes),
            TrainingCallback(
                where_to_run=[TrainingCallbackLocation.AFTER_TRAIN_ITERATION],
                update_every_num_iters=STEPS_PER_HISTOGRAM,
                func=self._write_histograms,
            ),
        ]

    def _write_histograms(self, step: int) -> None:
        """Writes histograms of each layer's frequencies and amplitudes to TensorBoard, if it is on."""
        boards = [w.tb_writer for w in writer.EVENT_WRITERS if isinstance(w, writer.TensorboardWriter)]
        for name, module in self.field.named_modules():
            if boards and isinstance(module, STAF):
                for board in boards:
                    board.add_histogram(f"frequency/{name}", module.frequency.detach(), step)
                    board.add_histogram(f"amplitude/{name}", module.amplitude.detach(), step)

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Returns colour and accumulation of rays, with depths at evaluation and what the losses need in training."""
        if self.training:
            self.camera_optimizer.apply_to_raybundle(ray_bundle)
        samples, weights_list, samples_list = self.proposal_sampler(ray_bundle, density_fns=self.density_fns)
        weights, rgb, more = self.shade(samples)
        weights_list, samples_list = [*weights_list, weights], [*samples_list, samples]
        outputs: dict[str, Any] = {
            "rgb": self.renderer_rgb(rgb=rgb, weights=weights),
            "accumulation": self.renderer_accumulation(weights=weights),
            **more,
        }
        if self.training:
            return outputs | {"weights_list": weights_list, "ray_samples_list": samples_list}
        outputs["depth"] = self.renderer_depth(weights=weights, ray_samples=samples)
        outputs["expected_depth"] = self.renderer_expected_depth(weights=weights, ray_samples=samples)
        for i in range(self.config.num_proposal_iterations):
            outputs[f"prop_depth_{i}"] = self.renderer_depth(weights=weights_list[i], ray_samples=samples_list[i])
        return outputs

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        truth = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        # The function of torchmetrics: its class also accumulates over batches and takes twice as long.
        metrics = {"psnr": peak_signal_noise_ratio(outputs["rgb"], truth, data_range=1.0)}
        if self.training:
            samples, weights = outputs["ray_samples_list"][-1], outputs["weights_list"][-1][..., 0]
            metrics["distortion"] = distortion(ray_samples_to_sdist(samples), weights).mean()
        self.camera_optimizer.get_metrics_dict(metrics)
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        predicted, truth = self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"],
            pred_accumulation=outputs["accumulation"],
            gt_image=batch["image"].to(self.device),
        )
        losses = {"rgb_loss": self.rgb_loss(truth, predicted)}
        if self.training:
            assert metrics_dict is not None
            weights, samples = outputs["weights_list"], outputs["ray_samples_list"]
            if any(w.requires_grad for w in weights[:-1]):
                self.interlevel_loss = interlevel_loss(weights, samples)
            else:  # most steps do not train the proposal networks; keep the sum of the losses smooth
                self.interlevel_loss = self.interlevel_loss.detach()
            losses["interlevel_loss"] = self.config.interlevel_loss_mult * self.interlevel_loss
            losses["distortion_loss"] = self.config.distortion_loss_mult * metrics_dict["distortion"]
            self.camera_optimizer.get_loss_dict(losses)
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Returns the metrics of a view, and pictures for TensorBoard. nerfacto's own needs the weights of LPIPS."""
        truth = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        rgb, accumulation = outputs["rgb"], outputs["accumulation"]
        images = {
            "img": torch.cat([truth, rgb], dim=1),
            "accumulation": colormaps.apply_colormap(accumulation),
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=accumulation),
        }
        for i in range(self.config.num_proposal_iterations):
            depth = outputs[f"prop_depth_{i}"]
            images[f"prop_depth_{i}"] = colormaps.apply_depth_colormap(depth, accumulation=accumulation)
        pair = [image.moveaxis(-1, 0)[None] for image in (truth, rgb)]
        metrics = {"psnr": float(self.psnr(*pair)), "ssim": float(self.ssim(*pair))}  # pyright: ignore
        if (lpips := load_lpips(self.device)) is not None:
            metrics["lpips"] = float(lpips(*pair))
        return metrics, images
