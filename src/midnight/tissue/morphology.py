"""Tidying masks: gaps closed, specks and pinholes removed."""

import math

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def tidy(mask: Mask, mpp: float, close_um: float, min_area_mm2: float) -> Mask:
    """Close gaps up to `close_um` µm, then remove pieces and fill holes below `min_area_mm2` mm².

    Args:
        mask: bool [h, w].
        mpp: its µm/px.
        close_um: diameter of the closing, µm.
        min_area_mm2: smallest piece and smallest hole, mm².

    Returns:
        bool [h, w].
    """
    least = math.ceil(min_area_mm2 * 1e6 / mpp**2)
    closed = close(mask, close_um / mpp)
    return ~remove_small(~remove_small(closed, least), least)


def close(mask: Mask, diameter: float) -> Mask:
    """Closing with a disc of `diameter` px; what lies outside the image counts as no tissue."""
    radius = round(diameter / 2)
    if radius < 1:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), radius, radius, radius, radius, cv2.BORDER_CONSTANT, value=0)
    out = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)
    return out[radius:-radius, radius:-radius].astype(bool)


def remove_small(mask: Mask, least: int) -> Mask:
    """Without the 8-connected pieces of fewer than `least` px."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    kept = np.asarray(stats)[:, cv2.CC_STAT_AREA] >= least
    kept[0] = False
    return np.asarray(kept[labels])
