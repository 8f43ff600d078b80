"""The tile filter: enough pixels in ranges of hue, saturation and value [Midnight, Virchow2].

On OpenCV's 8-bit scale (hue 0–180 for 0–360°, saturation and value 0–255), since that is the one on which the
published ranges make sense: hue 90–180 is cyan to red, all that haematoxylin and eosin produce.
"""

import cv2
import numpy as np
import numpy.typing as npt

from midnight.config.recipe import HsvFilter


def in_range(tile: npt.NDArray[np.uint8], ranges: HsvFilter) -> npt.NDArray[np.uint8]:
    """255 where a pixel of the RGB uint8 [h, w, 3] tile lies in all three ranges (ends included), else 0: [h, w]."""
    low, high = zip(ranges.hue, ranges.saturation, ranges.value, strict=True)
    inside: npt.NDArray[np.uint8] = cv2.inRange(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV), low, high)  # type: ignore[assignment]
    return inside


def fraction(tile: npt.NDArray[np.uint8], ranges: HsvFilter) -> float:
    """Share of the pixels of the RGB uint8 [h, w, 3] tile that lie in all three ranges."""
    return cv2.countNonZero(in_range(tile, ranges)) / (tile.shape[0] * tile.shape[1])


def passes(tile: npt.NDArray[np.uint8], ranges: HsvFilter | None) -> bool:
    """Whether the tile is accepted; None switches the filter off."""
    return ranges is None or fraction(tile, ranges) >= ranges.min_fraction
