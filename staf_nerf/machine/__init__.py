"""The machine: memory that is freed, and cores that are shared with other programs."""
