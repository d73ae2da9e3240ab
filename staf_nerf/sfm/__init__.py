"""Structure from motion: from photos or a video to a capture, by pycolmap, which runs in a process of its own."""
