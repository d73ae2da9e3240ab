"""Signals, shapes and captured scenes as small neural networks with trainable sinusoidal activations (STAF)."""

from staf_nerf.activations import STAF, Sine
from staf_nerf.config import ColorConfig, FieldConfig
from staf_nerf.fields import NeuralField, RadianceField
from staf_nerf.mlp import CoordinateMLP

__all__ = ["STAF", "ColorConfig", "CoordinateMLP", "FieldConfig", "NeuralField", "RadianceField", "Sine"]
