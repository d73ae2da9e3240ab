"""Files of earlier versions: what they say, in the words of this one.

Fields (`field.safetensors`) have a number of their format in their description:

1. Version 0.1. An image's settings also had those of super-resolution and denoising.
2. The field's words: epochs, bandwidth, photon_count, read_noise, align_corners, value_min.
3. Learning rates say what they are for: hidden_learning_rate, first_layer_learning_rate, learning_rate_decay. A network
   consists of layers, which have a linear map and an activation: `layers.0.linear.weight` was `linears.0.weight`.

Checkpoints of nerfstudio have the same names of parameters; see `parameter_name`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FIELD_FORMAT = 3
"""Format of the fields that this version writes."""

RENAMED = {
    "anchor_steps": "prior_steps",
    "anchor_weight": "prior_weight",
    "band": "bandwidth",
    "corners": "align_corners",
    "final_learning_rate": "learning_rate_decay",
    "first_learning_rate": "first_layer_learning_rate",
    "floor": "value_min",
    "learning_rate": "encoding_learning_rate",
    "matrix_iterations": "muon_ns_steps",
    "matrix_learning_rate": "hidden_learning_rate",
    "matrix_momentum": "muon_momentum",
    "passes": "epochs",
    "photons": "photon_count",
    "readout": "read_noise",
}
"""Keys of earlier formats, in settings and frames."""
RENAMED_GROUPS = {"matrix": "hidden"}
"""Groups of parameters of earlier versions, in checkpoints of radiance fields."""
RENAMED_IN_RESULTS = {
    "measures": "metrics",
    "psnr_on_the_way": "psnr_during_training",
    "score": "metric",
    "score_every": "steps_per_eval",
}
"""Keys of earlier versions in JSON files of results."""
OF_TASKS = {"factor": ("superres",), "photons": ("denoise",), "readout": ("denoise",)}
"""Settings of format 1 that every image had, and that only these tasks have since."""


def migrate(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description of a field in the present format.

    Raises:
        ValueError: If its format is unknown.
    """
    found = dict(description)
    if found.get("format") in (1, 2):
        task = found.get("task")
        found = {name: _renamed(value, task) for name, value in found.items()} | {"format": FIELD_FORMAT}
    if found.get("format") != FIELD_FORMAT:
        raise ValueError(
            f"has format {found.get('format')}, this version of staf_nerf reads formats up to {FIELD_FORMAT}"
        )
    return found


def migrate_results(result: Any) -> Any:
    """Returns the content of a JSON file of results (`staf bench`, `staf fit`, `staf eval`) with the present keys."""
    if isinstance(result, Mapping):
        return {RENAMED_IN_RESULTS.get(key, key): migrate_results(value) for key, value in result.items()}
    return [migrate_results(value) for value in result] if isinstance(result, list) else result


def _renamed(value: Any, task: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {name: item for name, item in value.items() if task in OF_TASKS.get(name, (task,))}
    return {RENAMED.get(name, name): _renamed(item, task) for name, item in kept.items()}


LAYERS = (
    (re.compile(r"(^|\.)linears\.(\d+)\."), r"\1layers.\2.linear."),
    (re.compile(r"(^|\.)activations\.(\d+)\.filter\."), r"\1layers.\2.filter."),
    (re.compile(r"(^|\.)activations\.(\d+)\."), r"\1layers.\2.activation."),
)
"""Names of a network's parameters before format 3, and what they are now."""


def parameter_name(name: str) -> str:
    """Returns the present name of a parameter, with or without the name of the network before it."""
    for old, new in LAYERS:
        name = old.sub(new, name)
    return name
