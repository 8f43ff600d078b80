"""From stain concentrations to colour: Beer–Lambert with haematoxylin and eosin."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.demo.noise import Bytes

UNITS = 100.0
"""Plane value of optical density 1 (natural logarithm)."""

RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Haematoxylin and eosin, optical density per channel R, G, B (Ruifrok and Johnston 2001)."""

MACENKO = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
"""The same as measured on other scanners (reference of Macenko et al. 2009)."""


@dataclass(frozen=True)
class Stain:
    """One laboratory's and scanner's look.

    Attributes:
        vectors: float [2, 3], unit rows: haematoxylin and eosin optical density in R, G, B.
        gains: float [2], strength of the two dyes.
        white: float [3], the empty slide's R, G, B in 0–255.
    """

    vectors: npt.NDArray[np.float64]
    gains: npt.NDArray[np.float64]
    white: npt.NDArray[np.float64]


GRAIN_SIDE = 512
_GRAIN_OFFSET = 4


def draw_stain(rng: np.random.Generator, spread: float = 1.0) -> Stain:
    """Draw a stain: vectors between two published pairs, moved a little, and log-normal strengths.

    Args:
        rng: source of randomness.
        spread: width of the variation; 0 gives the same stain always.
    """
    between = 0.55 + spread * rng.uniform(-0.3, 0.3, (2, 1))
    vectors = (1 - between) * RUIFROK + between * MACENKO + spread * rng.normal(0, 0.025, (2, 3))
    vectors = np.clip(vectors, 0.03, None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gains = np.exp(spread * np.clip(rng.normal(0, 0.22, 2), -0.4, 0.4))
    white = 244 + spread * rng.uniform(-5, 5) + spread * rng.uniform(-1.2, 1.2, 3)
    return Stain(vectors, gains, white)


def colourise(haematoxylin: Bytes, eosin: Bytes, stain: Stain) -> Bytes:
    """Colour of a slide with these amounts of dye: I = white · exp(−(h·H + e·E)), per channel.

    The exponential of a sum is a product of two 256-entry tables, so no pixel is exponentiated.

    Args:
        haematoxylin: uint8 [h, w], concentration, `UNITS` = 1.
        eosin: uint8 [h, w], likewise.
        stain: the look.

    Returns:
        uint8 [h, w, 3], RGB, without noise.
    """
    levels = np.arange(256) / UNITS
    optical = -levels[:, None, None] * (stain.gains[:, None] * stain.vectors)
    tables = np.exp(optical)
    first = np.rint(tables[:, 0] * stain.white).astype(np.uint8)
    second = np.rint(tables[:, 1] * 255).astype(np.uint8)
    channels = [
        cv2.multiply(cv2.LUT(haematoxylin, first[:, c]), cv2.LUT(eosin, second[:, c]), scale=1 / 255) for c in range(3)
    ]
    return np.asarray(cv2.merge(channels), np.uint8)


def add_grain(rng: np.random.Generator, image: Bytes) -> None:
    """Add the camera's noise, standard deviation 1 level and the same in all channels, in place.

    Args:
        rng: source of randomness.
        image: uint8 [h, w, 3], RGB.
    """
    grey = np.clip(np.rint(rng.normal(_GRAIN_OFFSET, 1.0, (GRAIN_SIDE, GRAIN_SIDE, 1))), 0, 2 * _GRAIN_OFFSET)
    tile = np.repeat(grey.astype(np.uint8), 3, 2)
    strip = np.tile(tile, (1, -(-image.shape[1] // GRAIN_SIDE), 1))[:, : image.shape[1]]
    for top in range(0, len(image), GRAIN_SIDE):
        rows = image[top : top + GRAIN_SIDE]
        noisy = cv2.add(rows, strip[: len(rows)])
        rows[:] = np.maximum(noisy, _GRAIN_OFFSET) - np.uint8(_GRAIN_OFFSET)
