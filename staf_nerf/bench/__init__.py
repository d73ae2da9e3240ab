"""Benchmarks: what produces the figures in the README, as JSON with seeds, versions and commit."""
