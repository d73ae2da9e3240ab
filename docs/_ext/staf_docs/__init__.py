"""Sphinx extensions of these docs: what is generated from the package, so that it cannot go stale."""
