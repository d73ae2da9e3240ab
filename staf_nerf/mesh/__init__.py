"""Triangle meshes: read, extracted from fields, cleaned, compared, written."""
