"""Tiles of your own to train on, without slides: folders of images, or of WebDataset tars."""
