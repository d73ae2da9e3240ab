"""Which optimiser trains which parameter, and how fast: one policy for signals and radiance fields.

- Muon trains the weight matrices of hidden layers, Adam everything else. On a CPU Muon computes in float32.
- Adam trains weights that read coordinates, too. They change a phase ω w·x, and a suitable rate of change of the phase
  does not depend on ω. The configured rate is that of ω w.
- Adam's epsilon is small, because the gradients of a hash grid are (instant-ngp, arXiv 2201.05989, section 4).
- All learning rates decay exponentially, to the same fraction of their start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from staf_nerf.activations import STAF
from staf_nerf.config import OptimizationConfig
from staf_nerf.encodings import HashGrid
from staf_nerf.fitting.muon import PreciseMuon
from staf_nerf.mlp import CoordinateMLP

ADAM_EPS = 1e-15
MUON_EPS = 1e-7
"""Smallest norm that Muon divides a gradient by."""


def parameter_groups(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Groups a module's parameters by the optimizer and learning rate that suit them.

    Returns:
        "encoding": tables of hash grids. "first_layer": weights of layers that read coordinates. "hidden": real weight
        matrices (..., n_out, n_in) of the other hidden layers, for Muon. "activation": C, Ω and Φ. "network": all
        others.
    """
    names = ("encoding", "first_layer", "hidden", "activation", "network")
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    special: dict[nn.Parameter, str] = {}
    for mlp in module.modules():
        if isinstance(mlp, CoordinateMLP):
            weights = [layer.linear.weight for layer in mlp.layers]
            special |= dict.fromkeys((w for w in weights if not w.is_complex()), "hidden")
            special |= dict.fromkeys(weights[: int(mlp.reads_coordinates)], "first_layer")
    for owner, parameter in _owned_parameters(module):
        kind = "encoding" if isinstance(owner, HashGrid) else "activation" if isinstance(owner, STAF) else "network"
        groups[special.get(parameter, kind)].append(parameter)
    return groups


def ordered_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters in the order of optimisers' states: a network's linear maps, its activations, the rest."""
    return [parameter for _, parameter in _owned_parameters(module)]


def _owned_parameters(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Parameter]]:
    """Yields each parameter once, after the module that owns it. The order is that of states in files."""
    seen: set[nn.Parameter] = set()
    for child in module.modules():  # a network comes before its own layers
        owners = [layer.linear for layer in child.layers] if isinstance(child, CoordinateMLP) else [child]
        for owner in owners:
            for parameter in owner.parameters(recurse=False):
                if parameter not in seen:
                    seen.add(parameter)
                    yield owner, parameter


def first_layer_scales(module: nn.Module) -> list[float]:
    """Returns the frequency scale ω of each weight in the group "first_layer", in its order."""
    networks = [m for m in module.modules() if isinstance(m, CoordinateMLP) and m.reads_coordinates and m.layers]
    return [network.layers[0].activation.argument_scale for network in networks]


def learning_rates(config: OptimizationConfig) -> dict[str, float]:
    """Returns the first learning rate of each group."""
    return {
        "encoding": config.encoding_learning_rate,
        "first_layer": config.first_layer_learning_rate,
        "hidden": config.hidden_learning_rate,
        "activation": config.activation_learning_rate,
        "network": config.network_learning_rate,
    }


def muon(
    matrices: Sequence[nn.Parameter],
    learning_rate: float,
    *,
    momentum: float = 0.95,
    ns_steps: int = 5,
    eps: float = MUON_EPS,
) -> torch.optim.Muon:
    """Returns Muon for matrices (n_out, n_in), in their own precision on a CPU and in bfloat16 elsewhere."""
    kind = PreciseMuon if all(matrix.device.type == "cpu" for matrix in matrices) else torch.optim.Muon
    return kind(matrices, lr=learning_rate, momentum=momentum, ns_steps=ns_steps, weight_decay=0.0, eps=eps)


def adam(groups: Sequence[dict[str, Any]]) -> torch.optim.Adam:
    """Returns Adam for groups of parameters. It is fused: a hash grid's table takes a large part of a step on a CPU."""
    real = all(p.is_floating_point() for group in groups for p in group["params"])  # torch fuses none for complex ones
    return torch.optim.Adam(groups, eps=ADAM_EPS, fused=real)


def make_optimizers(model: nn.Module, config: OptimizationConfig) -> list[torch.optim.Optimizer]:
    """Returns the optimisers of all parameters of a model. The groups of Adam have a "name"."""
    groups, rates = parameter_groups(model), learning_rates(config)
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon" and (matrices := groups.pop("hidden")):
        momentum, ns_steps = config.muon_momentum, config.muon_ns_steps
        optimizers.append(muon(matrices, rates["hidden"], momentum=momentum, ns_steps=ns_steps))
    firsts = zip(groups.pop("first_layer"), first_layer_scales(model), strict=True)
    rest = [{"params": groups[name], "lr": rates[name], "name": name} for name in groups if groups[name]]
    rest += [{"params": [w], "lr": rates["first_layer"] / scale, "name": "first_layer"} for w, scale in firsts]
    return [*optimizers, adam(rest)]
