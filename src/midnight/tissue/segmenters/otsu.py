"""Tissue by Otsu's threshold on saturation [Otsu 1979]."""

import cv2
import numpy as np
import numpy.typing as npt

from midnight.config.pipeline import Tissue

Mask = npt.NDArray[np.bool_]

# A threshold below this says that there is nothing but background, whose saturation is noise.
LEAST_SATURATION = 16
# Tissue as dense as to be all over the slide would be split in two: what is this saturated is tissue anyway.
SURE_SATURATION = 40


def find_tissue(image: npt.NDArray[np.uint8], mpp: float, ink: Mask, config: Tissue) -> Mask:
    """Pixels of an RGB uint8 [h, w, 3] thumbnail more saturated than Otsu's threshold.

    The threshold comes from pixels without ink, which would otherwise make the third and most saturated class, and
    is kept between 16 and 40 of 255.
    """
    side = max(1, round(config.otsu.blur_um / mpp)) | 1
    saturation = cv2.medianBlur(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))[..., 1].copy(), side)
    values = saturation[~ink]
    if values.size == 0:
        return np.zeros(ink.shape, bool)
    threshold, _ = cv2.threshold(values, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(saturation > min(max(threshold, LEAST_SATURATION), SURE_SATURATION))
