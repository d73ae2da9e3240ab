"""Signals: what a field is fitted to. Each gives points, a loss, and measures of the result; none trains."""
