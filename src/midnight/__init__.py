"""Midnight: train and evaluate pathology foundation models, from the public slides to the published table."""

__version__ = "0.1.0"
