"""Files of earlier versions: what they say, in the words of this one.

Fields (`field.safetensors`) have a number of their format in their description:

1. Version 0.1. An image's settings also had those of super-resolution and denoising.
2. The field's words: epochs, bandwidth, photon_count, read_noise, align_corners, value_min.
3. Learning rates say what they are for: hidden_learning_rate, first_layer_learning_rate, learning_rate_decay.
   An encoding and an activation hold their own options. A fit has one budget: minutes, steps or epochs. A network
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
"""Groups of parameters of earlier versions, in checkpoints of radiance fields; see `present_groups`."""
RENAMED_IN_RESULTS = {
    "measures": "metrics",
    "psnr_on_the_way": "psnr_during_training",
    "score": "metric",
    "score_every": "steps_per_eval",
}
"""Keys of earlier versions in JSON files of results."""
OF_TASKS = {"factor": ("superres",), "photons": ("denoise",), "readout": ("denoise",)}
"""Settings of format 1 that every image had, and that only these tasks have since."""

ABOUT = ("task", "description")
"""Settings before format 3 that are about the preset, and not about the fit."""

_PERIODIC = ("staf", "sine", "finer", "gabor", "sinc")
MOVED: dict[str, tuple[str, dict[str, str]]] = {
    "num_levels": ("encoding", {"hash": "num_levels"}),
    "features_per_level": ("encoding", {"hash": "features_per_level"}),
    "log2_table_size": ("encoding", {"hash": "log2_table_size"}),
    "base_resolution": ("encoding", {"hash": "base_resolution"}),
    "max_resolution": ("encoding", {"hash": "max_resolution"}),
    "feature_scale": ("encoding", {"hash": "feature_scale"}),
    "coordinate_scale": ("encoding", {"hash": "coordinate_scale"}),
    "encoding_frequencies": ("encoding", {"fourier": "num_frequencies", "octaves": "num_frequencies"}),
    "encoding_scale": ("encoding", {"fourier": "scale"}),
    "num_frequencies": ("activation", {"staf": "num_frequencies"}),
    "sharing": ("activation", {"staf": "sharing"}),
    "initialization": ("activation", {"staf": "initialization"}),
    "gaussian_width": ("activation", {"gaussian": "width"}),
    "gabor_scale": ("activation", {"gabor": "scale"}),
    "first_bias": ("activation", {"finer": "first_bias"}),
    "first_omega": ("activation", dict.fromkeys((*_PERIODIC, "filter"), "first_omega")),
    "hidden_omega": ("activation", dict.fromkeys(_PERIODIC, "hidden_omega")),
}
"""Options of a field before format 3: what has them now, and their names in each encoding or activation that does."""
INITIALIZATIONS = {"theorem": "staf-theorem", "published": "staf-published"}
"""Names of initialisations before format 3."""
BUDGETS = ("epochs", "steps", "minutes")
"""Budgets of a fit. Before format 3 the first one that is positive decided, and 0 stood for none."""


def migrate(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description of a field in the present format.

    Raises:
        ValueError: If its format is unknown.
    """
    found = dict(description)
    if found.get("format") in (1, 2):
        task = found.get("task")
        found = {name: _renamed(value, task) for name, value in found.items()} | {"format": FIELD_FORMAT}
        if isinstance(config := found.get("config"), Mapping):
            nested = {"field": nested_field, "fit": one_budget}
            kept = {key: value for key, value in config.items() if key not in ABOUT}
            found["config"] = {key: nested[key](value) if key in nested else value for key, value in kept.items()}
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


def present_groups(of_groups: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what there is for each group of parameters, by the group's present name."""
    return {RENAMED_GROUPS.get(name, name): value for name, value in of_groups.items()}


def parameter_name(name: str) -> str:
    """Returns the present name of a parameter, with or without the name of the network before it."""
    for old, new in LAYERS:
        name = old.sub(new, name)
    return name


def nested_field(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a field before format 3 with an encoding and an activation that hold their options."""
    encoding, activation = flat.get("encoding", "identity"), flat.get("activation", "staf")
    return {key: value for key, value in flat.items() if key not in MOVED} | {
        "encoding": {"name": encoding} | _options(flat, "encoding", encoding),
        "activation": {"name": activation, "options": _options(flat, "activation", activation)},
    }


def _options(flat: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Returns the options that one encoding or activation had."""
    own = {key: MOVED[key][1][name] for key in flat if key in MOVED and MOVED[key][0] == kind and name in MOVED[key][1]}
    return {new: option_value(key, flat[key]) for key, new in own.items()}


def option_value(key: str, value: Any) -> Any:
    """Returns the value of an option by its present name."""
    return INITIALIZATIONS.get(value, value) if key == "initialization" else value


def one_budget(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a fit before format 3 with one budget."""
    given = [name for name in BUDGETS if fit.get(name)]
    return {key: value for key, value in fit.items() if key not in BUDGETS or key in given[:1]}


def as_it_is_written_now(key: str, value: Any) -> tuple[str, dict[str, Any]]:
    """Returns what an option of a field before format 3 belongs to, and its name and value there."""
    kind, names = MOVED[key]
    name, option = next(iter(names.items()))
    return kind, {"name": name, option: option_value(key, value)}


def migrated(kind: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a configuration that nerfstudio stored as an object in config.yml.

    Args:
        kind: Name of its class.
        state: Its values, perhaps by the names of an earlier version.

    Returns:
        Its values by their present names. An encoding or an activation that it did not have as an object is a table.
    """
    values = {RENAMED.get(key, key): value for key, value in state.items()}
    if kind == "FieldConfig" and isinstance(values.get("encoding"), str):
        return nested_field(values)
    if kind == "ColorConfig" and "activation" not in values:
        scales = {key: values.pop(key) for key in ("first_omega", "hidden_omega") if key in values}
        options = {key: value for key, value in scales.items() if value != 1.0}
        values["activation"] = {"name": "field", "options": options}
    return values
