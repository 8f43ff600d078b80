"""Tissue by ranges of hue, saturation and value: those of the tile filter, on the thumbnail."""

import cv2
import numpy as np
import numpy.typing as npt

from midnight.config.pipeline import Tissue

Mask = npt.NDArray[np.bool_]


def find_tissue(image: npt.NDArray[np.uint8], mpp: float, ink: Mask, config: Tissue) -> Mask:
    """Pixels of an RGB uint8 [h, w, 3] thumbnail within `config.hsv`, after a 3 px median against single pixels."""
    pixels = cv2.cvtColor(cv2.medianBlur(image, 3), cv2.COLOR_RGB2HSV)
    ranges = config.hsv
    low, high = zip(ranges.hue, ranges.saturation, ranges.value, strict=True)
    return np.asarray(cv2.inRange(pixels, np.array(low), np.array(high)) > 0)
