"""Samples along nerfstudio's rays: positions, weights, and sampling by proposal networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.losses import ray_samples_to_sdist
from nerfstudio.model_components.ray_samplers import ProposalNetworkSampler
from torch import Tensor

from staf_nerf.kernels import rays


def positions_of(samples: RaySamples) -> Tensor:
    """Returns the midpoints of samples (rays, samples, 3), as nerfstudio's `get_positions`."""
    frustums = samples.frustums
    origins, directions = frustums.origins, frustums.directions
    shared = origins.ndim == 3 and origins.stride(1) == directions.stride(1) == 0
    if not shared or frustums.offsets is not None:
        return frustums.get_positions()
    return rays.sample_points(origins[:, 0], directions[:, 0], frustums.starts[..., 0], frustums.ends[..., 0])


def weights_of(samples: RaySamples, density: Tensor) -> Tensor:
    """Returns the weights of samples for their densities, both (rays, samples, 1), as nerfstudio's `get_weights`."""
    assert samples.deltas is not None
    return rays.sample_weights((samples.deltas * density)[..., 0])[..., None]


class ProposalSampler(ProposalNetworkSampler):
    """nerfstudio's `ProposalNetworkSampler` with the faster functions of `staf_nerf.kernels.rays`."""

    def generate_ray_samples(
        self, ray_bundle: RayBundle | None = None, density_fns: Sequence[Callable[..., Tensor]] | None = None
    ) -> tuple[RaySamples, list[Tensor], list[RaySamples]]:
        """Returns the field's samples, and for each proposal network its weights (rays, samples, 1) and samples."""
        assert ray_bundle is not None
        assert density_fns is not None
        learns = self._steps_since_update > self.update_sched(self._step) or self._step < 10
        first, *others = (*self.num_proposal_samples_per_ray, self.num_nerf_samples_per_ray)
        samples = self.initial_sampler(ray_bundle, num_samples=first)
        weights_list, samples_list = [], []
        for density_fn, number in zip(density_fns, others, strict=True):
            with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
                weights = weights_of(samples, density_fn(positions_of(samples)))
            weights_list.append(weights)
            samples_list.append(samples)
            samples = self._resample(ray_bundle, samples, weights.detach()[..., 0] ** self._anneal, number)
        if learns:
            self._steps_since_update = 0
        return samples, weights_list, samples_list

    def _resample(self, bundle: RayBundle, samples: RaySamples, weights: Tensor, number: int) -> RaySamples:
        shift = weights.new_full((len(weights), 1), 0.5)
        if self.training:
            shift.uniform_()
        edges = rays.resample(ray_samples_to_sdist(samples), weights, shift, number + 1)
        to_distance: Any = samples.spacing_to_euclidean_fn
        distances = to_distance(edges)
        return bundle.get_ray_samples(
            bin_starts=distances[..., :-1, None],
            bin_ends=distances[..., 1:, None],
            spacing_starts=edges[..., :-1, None],
            spacing_ends=edges[..., 1:, None],
            spacing_to_euclidean_fn=to_distance,
        )
