"""Which tiles: places with enough tissue, drawn uniformly, read, and passed through the HSV filter."""
