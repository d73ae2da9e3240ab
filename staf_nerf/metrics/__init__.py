"""Metrics of images, sounds and shapes."""
