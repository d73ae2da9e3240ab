"""Triangle meshes: reading, extraction from fields, cleaning, comparison and writing."""
