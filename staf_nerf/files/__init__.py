"""Files of signals: images and sounds, read and written."""
