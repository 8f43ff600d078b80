"""Parts of the tile benchmark and of the soak: generated slides, both sides, the limits, what they cost."""
