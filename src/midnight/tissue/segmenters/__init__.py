"""From a thumbnail to a tissue mask, by one of the segmenters."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from midnight.config import choose
from midnight.config.pipeline import Tissue
from midnight.tissue.ink import find_ink
from midnight.tissue.morphology import tidy
from midnight.tissue.segmenters import hsv, otsu

Mask = npt.NDArray[np.bool_]
# A segmenter takes a thumbnail (RGB uint8 [h, w, 3]), its µm/px, where ink is and the settings.
Segmenter = Callable[[npt.NDArray[np.uint8], float, Mask, Tissue], Mask]

SEGMENTERS: dict[str, Segmenter] = {"hsv": hsv.find_tissue, "otsu": otsu.find_tissue}


def segment(image: npt.NDArray[np.uint8], mpp: float, config: Tissue) -> Mask:
    """Where there is tissue and no ink.

    Args:
        image: RGB uint8 [h, w, 3], a thumbnail.
        mpp: its µm/px.
        config: which segmenter, its settings, closing and the smallest area.

    Returns:
        bool [h, w].
    """
    ink = find_ink(image, mpp)
    tissue = choose(config.segmenter, SEGMENTERS, "tissue.segmenter")(image, mpp, ink, config)
    return tidy(tissue & ~ink, mpp, config.close_um, config.min_area_mm2) & ~ink
