"""Figures as PNG files, by matplotlib."""
