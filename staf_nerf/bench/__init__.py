"""Benchmarks. Each writes JSON with its settings, seeds, package versions and the commit."""
