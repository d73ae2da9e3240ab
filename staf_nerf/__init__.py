"""Signals, shapes and captured scenes as small neural networks with trainable sinusoidal activations (STAF)."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from staf_nerf.activations import STAF, Sine
    from staf_nerf.config import (
        ActivationConfig,
        AudioConfig,
        ColorConfig,
        DenoisingConfig,
        FieldConfig,
        FitConfig,
        FourierConfig,
        HashGridConfig,
        IdentityConfig,
        ImageConfig,
        OctavesConfig,
        ShapeConfig,
        SuperResolutionConfig,
    )
    from staf_nerf.fields import NeuralField, RadianceField, SignedDistanceField, SurfaceField
    from staf_nerf.fitting.loop import fit
    from staf_nerf.mesh.extract import extract_mesh
    from staf_nerf.mlp import CoordinateMLP
    from staf_nerf.signals.audio import AudioSignal
    from staf_nerf.signals.image import ImageSignal
    from staf_nerf.signals.shape import ShapeSignal
    from staf_nerf.signals.signal import Signal
    from staf_nerf.theory.infinite_width import analytic_ntk, wide_network
    from staf_nerf.theory.kronecker import sine_network, staf_from_sine
    from staf_nerf.theory.ntk import empirical_ntk, ntk_spectrum
    from staf_nerf.theory.spectrum import frequency_support

__all__ = [
    "STAF",
    "ActivationConfig",
    "AudioConfig",
    "AudioSignal",
    "ColorConfig",
    "CoordinateMLP",
    "DenoisingConfig",
    "FieldConfig",
    "FitConfig",
    "FourierConfig",
    "HashGridConfig",
    "IdentityConfig",
    "ImageConfig",
    "ImageSignal",
    "NeuralField",
    "OctavesConfig",
    "RadianceField",
    "ShapeConfig",
    "ShapeSignal",
    "Signal",
    "SignedDistanceField",
    "Sine",
    "SuperResolutionConfig",
    "SurfaceField",
    "analytic_ntk",
    "empirical_ntk",
    "extract_mesh",
    "fit",
    "frequency_support",
    "ntk_spectrum",
    "sine_network",
    "staf_from_sine",
    "wide_network",
]

try:
    __version__ = version("staf-nerf")
except PackageNotFoundError:  # the package was not installed, only put on Python's path
    __version__ = "0+unknown"

_MODULES = {
    "ActivationConfig": "staf_nerf.config",
    "AudioConfig": "staf_nerf.config",
    "AudioSignal": "staf_nerf.signals.audio",
    "ColorConfig": "staf_nerf.config",
    "CoordinateMLP": "staf_nerf.mlp",
    "DenoisingConfig": "staf_nerf.config",
    "FieldConfig": "staf_nerf.config",
    "FitConfig": "staf_nerf.config",
    "FourierConfig": "staf_nerf.config",
    "HashGridConfig": "staf_nerf.config",
    "IdentityConfig": "staf_nerf.config",
    "ImageConfig": "staf_nerf.config",
    "ImageSignal": "staf_nerf.signals.image",
    "NeuralField": "staf_nerf.fields",
    "OctavesConfig": "staf_nerf.config",
    "RadianceField": "staf_nerf.fields",
    "STAF": "staf_nerf.activations",
    "ShapeConfig": "staf_nerf.config",
    "ShapeSignal": "staf_nerf.signals.shape",
    "Signal": "staf_nerf.signals.signal",
    "SignedDistanceField": "staf_nerf.fields",
    "Sine": "staf_nerf.activations",
    "SuperResolutionConfig": "staf_nerf.config",
    "SurfaceField": "staf_nerf.fields",
    "analytic_ntk": "staf_nerf.theory.infinite_width",
    "empirical_ntk": "staf_nerf.theory.ntk",
    "extract_mesh": "staf_nerf.mesh.extract",
    "fit": "staf_nerf.fitting.loop",
    "frequency_support": "staf_nerf.theory.spectrum",
    "ntk_spectrum": "staf_nerf.theory.ntk",
    "sine_network": "staf_nerf.theory.kronecker",
    "staf_from_sine": "staf_nerf.theory.kronecker",
    "wide_network": "staf_nerf.theory.infinite_width",
}
"""Where each name is defined. Its module, and torch with it, is imported at the first use of the name."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
