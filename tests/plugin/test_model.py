"""The nerfstudio model: gradients, backgrounds, contraction, and quality on a small run."""

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.spatial_distortions import SceneContraction
from nerfstudio.model_components.losses import ray_samples_to_sdist

from staf_nerf.plugin.field import CubeContraction
from staf_nerf.plugin.sampling import positions_of
from tests.conftest import write_capture
from tests.plugin.test_checkpoints import trainer


def rays(count=16):
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return RayBundle(
        origins=torch.zeros(count, 3),
        directions=directions,
        pixel_area=torch.full((count, 1), 1e-4),
        camera_indices=torch.zeros(count, 1, dtype=torch.long),
        metadata={"directions_norm": torch.ones(count, 1)},
    )


def test_contraction_is_nerfstudio_s(generator):
    x = 5 * torch.randn(200, 7, 3, generator=generator)
    found = []
    for contraction in (CubeContraction(), SceneContraction(order=float("inf"))):
        points = x.clone().requires_grad_()
        torch.testing.assert_close(contraction(x), contraction(points))
        found.append((contraction(x), *torch.autograd.grad(contraction(points).square().sum(), points)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert CubeContraction()(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def test_every_parameter_learns_and_colours_are_in_range(tmp_path):
    made = trainer(tmp_path)
    made.train_iteration(0)
    model = made.pipeline.model
    gradients = {name: p.grad for name, p in model.named_parameters() if p.numel()}
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    assert not [name for name, gradient in gradients.items() if not gradient.any()]
    model.eval()
    outputs = model(rays())
    assert ((outputs["rgb"] >= 0) & (outputs["rgb"] <= 1)).all()
    assert ((outputs["accumulation"] >= 0) & (outputs["accumulation"] <= 1 + 1e-5)).all()


def test_leaving_out_unseen_colours_changes_less_than_half_a_grey_level(tmp_path, monkeypatch):
    from staf_nerf.plugin import field

    made = trainer(tmp_path)
    model = made.pipeline.model.eval()
    with torch.no_grad():
        some = model(rays(200))["rgb"]
        monkeypatch.setattr(field, "UNSEEN_WEIGHT", -1.0)
        full = model(rays(200))["rgb"]
    assert (some - full).abs().max() < 0.5 / 255


def test_what_depends_on_the_ray_alone_is_computed_once_and_equals_each_sample_s_own(tmp_path):
    model = trainer(tmp_path).pipeline.model
    samples = model.proposal_sampler.initial_sampler(model.collider(rays()), num_samples=6)
    shapes = []
    model.field.field.direction_encoding.register_forward_hook(lambda *call: shapes.append(call[2].shape))
    shared = model.field(samples)
    samples.frustums.directions = samples.frustums.directions.contiguous()
    samples.camera_indices = samples.camera_indices.contiguous()
    own = model.field(samples)
    assert shapes == [(16, 1, 16), (16, 6, 16)]
    for name in shared:
        torch.testing.assert_close(shared[name], own[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_samples_and_weights_are_those_of_nerfstudio_s_sampler(tmp_path, training):
    from nerfstudio.model_components.ray_samplers import ProposalNetworkSampler

    model = trainer(tmp_path).pipeline.model.train(training)
    ours = model.proposal_sampler
    ours.set_anneal(0.5)
    theirs = ProposalNetworkSampler.__new__(ProposalNetworkSampler)
    theirs.__dict__.update(ours.__dict__)
    bundle = model.collider(rays())
    found = []
    for sampler in (ours, theirs):
        torch.manual_seed(0)
        samples, weights, others = sampler(bundle, density_fns=model.density_fns)
        edges = [ray_samples_to_sdist(one) for one in (*others, samples)]
        found.append((samples.frustums.starts, samples.deltas, samples.camera_indices, *weights, *edges))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_points_of_samples_are_nerfstudio_s_with_gradients_too(tmp_path):
    model = trainer(tmp_path).pipeline.model
    bundle = model.collider(rays())
    for learned in (False, True):
        bundle.origins.requires_grad_(learned)
        samples = model.proposal_sampler.initial_sampler(bundle, num_samples=6)
        points = positions_of(samples)
        assert points.requires_grad == learned
        torch.testing.assert_close(points, samples.frustums.get_positions())
    samples.frustums.set_offsets(torch.ones(3))
    torch.testing.assert_close(positions_of(samples), samples.frustums.get_positions())


def test_the_proposal_networks_loss_stays_as_it_was_while_they_do_not_learn(tmp_path):
    made = trainer(tmp_path)
    model = made.pipeline.model
    found = []
    for interval in (0, 1e9, 1e9, 0):
        model.proposal_sampler.update_sched = lambda step, interval=interval: interval
        model.proposal_sampler._step, model.proposal_sampler._steps_since_update = 100, 1
        _, losses, _ = made.train_iteration(0)
        found.append((float(losses["interlevel_loss"].detach()), losses["interlevel_loss"].requires_grad))
    values, learning = zip(*found, strict=True)
    assert learning == (True, False, False, True)
    assert values[0] == values[1] == values[2] != values[3]


def test_transparent_photos_train_with_a_random_background(tmp_path):
    write_capture(tmp_path / "capture", mode="RGBA")
    assert trainer(tmp_path).pipeline.model.renderer_rgb.background_color == "random"
    white = trainer(tmp_path, changes={"background_color": "white"})
    assert white.pipeline.model.renderer_rgb.background_color == "white"
    clear = torch.zeros(1, 4)
    assert white.pipeline.model.renderer_rgb.blend_background(clear).tolist() == [[1.0, 1.0, 1.0]]
    white.train_iteration(0)


def test_opaque_photos_train_with_the_last_sample_behind(tmp_path):
    assert trainer(tmp_path).pipeline.model.renderer_rgb.background_color == "last_sample"


def test_the_camera_optimizer_receives_gradients_through_the_hash_grid(tmp_path):
    made = trainer(tmp_path, changes={"training": {"camera_optimizer": True}})
    made.train_iteration(0)
    adjustment = made.pipeline.model.camera_optimizer.pose_adjustment
    assert adjustment.grad is not None
    assert adjustment.grad.abs().sum() > 0


@pytest.mark.parametrize("activation", ["relu", "sine", "finer", "gaussian", "gabor"])
def test_other_activations_are_one_key(tmp_path, activation):
    made = trainer(tmp_path, changes={"field": {"activation": activation}})
    loss, _, _ = made.train_iteration(0)
    assert loss.isfinite()


@pytest.mark.parametrize("method", ["staf-nerf", "staf-nerf-mlp", "siren-nerf", "paper-nerf", "staf-nerf-sdf"])
def test_equal_seeds_give_equal_weights(tmp_path, method):
    from staf_nerf.plugin import run

    weights = []
    for _ in range(2):
        made = trainer(tmp_path, method)
        run.train(made)
        weights.append([p.detach().clone() for p in made.pipeline.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
