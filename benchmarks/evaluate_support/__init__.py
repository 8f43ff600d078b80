"""Parts of the evaluation's benchmark: its data and model, both sides, what is measured of them."""
