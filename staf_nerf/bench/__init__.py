"""Benchmarks: quality and cost of methods. Each writes JSON and prints a table."""
