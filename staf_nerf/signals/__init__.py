"""Signals: the data that a field is fitted to. Each provides batches, losses and metrics."""
