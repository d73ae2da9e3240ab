"""Fitting a field to a signal: the loop, the optimisers, several processes."""
