"""Tiles of one's own to train on, without slides: folders of images, or of WebDataset tars."""
