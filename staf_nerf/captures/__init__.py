"""Captures: folders of photos with poses. Each format has a reader; all give one `Capture`. No nerfstudio is needed."""
