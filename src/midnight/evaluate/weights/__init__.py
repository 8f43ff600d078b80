"""Weights from anywhere: files and folders of DINOv2's hub, timm, Hugging Face and this project, as one model."""

from midnight.evaluate.weights.load import Loaded, load_weights
from midnight.evaluate.weights.places import find_stored

__all__ = ["Loaded", "find_stored", "load_weights"]
