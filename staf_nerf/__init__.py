"""Signals, shapes and captured scenes as small neural networks with trainable sinusoidal activations (STAF)."""

from staf_nerf.activations import STAF, Sine
from staf_nerf.config import AudioConfig, ColorConfig, FieldConfig, FitConfig, ImageConfig, ShapeConfig
from staf_nerf.fields import NeuralField, RadianceField, SignedDistanceField, SurfaceField
from staf_nerf.fit import fit
from staf_nerf.mesh.extract import extract_mesh
from staf_nerf.mlp import CoordinateMLP
from staf_nerf.signals.audio import AudioSignal
from staf_nerf.signals.image import ImageSignal
from staf_nerf.signals.shape import ShapeSignal
from staf_nerf.theory.kronecker import sine_network, staf_from_sine
from staf_nerf.theory.ntk import empirical_ntk, ntk_spectrum
from staf_nerf.theory.spectrum import frequency_support
from staf_nerf.theory.wide import analytic_ntk, wide_network

__all__ = [
    "STAF",
    "AudioConfig",
    "AudioSignal",
    "ColorConfig",
    "CoordinateMLP",
    "FieldConfig",
    "FitConfig",
    "ImageConfig",
    "ImageSignal",
    "NeuralField",
    "RadianceField",
    "ShapeConfig",
    "ShapeSignal",
    "SignedDistanceField",
    "Sine",
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
