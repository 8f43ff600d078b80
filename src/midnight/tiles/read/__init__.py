"""Slides read at exact resolutions: straight from their files where that is possible, else through OpenSlide."""
