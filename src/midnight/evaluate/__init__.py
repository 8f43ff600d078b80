"""Downstream evaluation: embeddings, heads fitted by kaiko-eva, the HEST probe, score records."""
