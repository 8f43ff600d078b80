"""Parts of the training step's benchmark: the plain implementation, both sides, what is measured of them."""
