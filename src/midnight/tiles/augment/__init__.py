"""The random views of DINOv2 and the stain augmentation, on CPU cores or on the device that trains."""
