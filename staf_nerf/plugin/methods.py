"""The methods for `ns-train`: presets from `method_configs/`, for this machine's device, as trainer configurations.

nerfstudio loads this module for every command and every method. Its import must be fast and must not fail.
"""

from __future__ import annotations

from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from staf_nerf.config import RadianceConfig, TrainingConfig
from staf_nerf.fitting.optimizers import learning_rates
from staf_nerf.machine.device import detect_device
from staf_nerf.plugin.dataparser import CaptureDataParserConfig
from staf_nerf.plugin.model import StafModelConfig
from staf_nerf.plugin.pipeline import StafPipelineConfig
from staf_nerf.plugin.surface_model import StafSurfaceModelConfig
from staf_nerf.plugin.trainer import FusedAdamConfig, MuonConfig, StafTrainerConfig
from staf_nerf.plugin.workarounds import name_unreadable_runs
from staf_nerf.presets import Device, load_preset


def trainer_config(name: str, preset: RadianceConfig, device: Device) -> StafTrainerConfig:
    """Returns nerfstudio's trainer configuration for a method and its preset."""
    training = preset.training
    rates = learning_rates(training)
    optimizers = {
        group: {
            "optimizer": _optimizer(group, rate, training),
            "scheduler": ExponentialDecaySchedulerConfig(
                lr_final=rate * training.learning_rate_decay, max_steps=training.steps
            ),
        }
        for group, rate in {**rates, "proposal_networks": rates["encoding"]}.items()
    }
    optimizers["camera_opt"] = {
        "optimizer": FusedAdamConfig(lr=training.camera_learning_rate),
        "scheduler": ExponentialDecaySchedulerConfig(
            lr_final=training.camera_learning_rate * training.learning_rate_decay,
            max_steps=training.steps,
            warmup_steps=training.camera_warmup,
            lr_pre_warmup=0.0,
        ),
    }
    return StafTrainerConfig(
        method_name=name,
        steps_per_eval_batch=max(training.steps // 6, 1),
        steps_per_eval_image=max(training.steps // 3, 1),
        steps_per_eval_all_images=training.steps + 1,
        steps_per_save=max(training.steps // 3, 1),
        max_num_iterations=training.steps,
        mixed_precision=device == "cuda",
        machine=MachineConfig(device_type=device),
        viewer=ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=training.rays_per_chunk),
        vis="viewer+tensorboard",
        optimizers=optimizers,
        pipeline=StafPipelineConfig(
            viewer_resolution=training.viewer_resolution,
            datamanager=VanillaDataManagerConfig(
                dataparser=CaptureDataParserConfig(
                    max_image_size=training.max_image_size, train_every=training.train_every
                ),
                train_num_rays_per_batch=training.rays_per_step,
                eval_num_rays_per_batch=training.rays_per_step,
            ),
            model=_model_config(preset),
        ),
    )


def _optimizer(group: str, rate: float, training: TrainingConfig) -> FusedAdamConfig | MuonConfig:
    if group == "hidden" and training.optimizer == "muon":
        return MuonConfig(lr=rate, momentum=training.muon_momentum, ns_steps=training.muon_ns_steps)
    return FusedAdamConfig(lr=rate)


def _model_config(preset: RadianceConfig) -> StafModelConfig:
    camera_mode = "SO3xR3" if preset.training.camera_optimizer else "off"
    options = {
        "field": preset.field,
        "color": preset.color,
        "proposal": preset.proposal,
        "sampling": preset.sampling,
        "background_color": preset.background_color,
        "camera_optimizer": CameraOptimizerConfig(mode=camera_mode),
        "eval_num_rays_per_chunk": preset.training.rays_per_chunk,
    }
    if preset.geometry == "signed-distance":
        return StafSurfaceModelConfig(surface=preset.surface, background=preset.background, **options)
    return StafModelConfig(**options)


def method(name: str) -> MethodSpecification:
    """Returns the method of a shipped preset, for this machine's device."""
    device = detect_device()
    preset = load_preset(name, device)
    return MethodSpecification(config=trainer_config(name, preset, device), description=preset.description)


staf_nerf = method("staf-nerf")
staf_nerf_mlp = method("staf-nerf-mlp")
staf_nerf_sdf = method("staf-nerf-sdf")
siren_nerf = method("siren-nerf")
paper_nerf = method("paper-nerf")

name_unreadable_runs()  # nerfstudio's commands load this module before they read a run
