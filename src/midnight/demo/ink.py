"""Pen marks: what pathologists draw on the glass, over tissue and background alike."""

import cv2
import numpy as np

from midnight.demo.noise import Bytes, smooth_noise

INKS = {"red": (0.81, 0.07, 0.08), "green": (0.16, 0.62, 0.34), "blue": (0.20, 0.32, 0.78)}
"""Share of light that passes each ink, R, G, B."""

WIDTH_UM = 120.0


def draw_ink(rng: np.random.Generator, image: Bytes, mpp: float) -> None:
    """Draw one stroke of each ink on the image, in place.

    Args:
        rng: source of randomness.
        image: uint8 [h, w, 3], RGB.
        mpp: its resolution, µm/px.
    """
    for colour in INKS.values():
        _stroke(rng, image, np.array(colour), WIDTH_UM / mpp)


def _stroke(rng: np.random.Generator, image: Bytes, colour: np.ndarray, width: float) -> None:
    """One curved stroke from the rim across the slide, drawn at an eighth of the resolution and only where it lies."""
    height, length = (side // 8 for side in image.shape[:2])
    side = rng.uniform(0, 2 * np.pi)
    start = (0.5 + 0.4 * np.array([np.cos(side), np.sin(side)])) * (length, height)
    turn = side + np.pi + rng.normal(0, 0.4) + np.cumsum(rng.normal(0, 0.08, 60))
    step = 0.011 * length
    path = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], -1) * step, 0)
    mask = np.zeros((height, length), np.uint8)
    cv2.polylines(mask, [np.rint(path).astype(np.int32)], False, 255, max(int(width / 8), 2), cv2.LINE_AA)
    x, y, w, h = cv2.boundingRect(mask)
    streaks = 0.86 + 0.14 * np.tanh(smooth_noise(rng, (h, w), 9))
    cover = mask[y : y + h, x : x + w].astype(np.float32) / 255 * streaks.astype(np.float32)
    full = cv2.resize(cover, (w * 8, h * 8))[..., None]
    window = image[y * 8 : (y + h) * 8, x * 8 : (x + w) * 8]
    window[:] = np.rint(window * (1 + full * (colour.astype(np.float32) - 1)))
