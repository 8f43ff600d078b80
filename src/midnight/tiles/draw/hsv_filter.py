"""The tile filter: enough pixels in ranges of hue, saturation and value [Midnight, Virchow2].

On OpenCV's 8-bit scale (hue 0–180 for 0–360°, saturation and value 0–255), since that is the one on which the
published ranges make sense: hue 90–180 is cyan to red, all that haematoxylin and eosin produce.

OpenCV's conversion is integer arithmetic with two tables, (255 << 12) / value and (180 << 12) / (6 · spread), each
rounded. Here no hue or saturation is made, only compared. All numbers are whole and below 2²⁰, so float32 holds them
exactly, and many pixels are decided at a time: a tile of 256 × 256 px takes 0.08 ms. A table of
all 2²⁴ colours takes 0.06, but 0.18 between other work, which drives it out of the cache (OpenCV 0.17).
"""

import math
from functools import lru_cache

import cv2
import numba
import numpy as np
import numpy.typing as npt

from midnight.config.recipe import HsvFilter

Tile = npt.NDArray[np.uint8]
# Pixels between two looks at whether the outcome is certain.
_BLOCK = 4096
# Added and taken away again, it rounds a float32 below 2²² to the nearest whole number, halves to even.
_ROUND = np.float32(1.5 * 2**23)
_TURN = np.float32(180 << 12)


def in_range(tile: Tile, ranges: HsvFilter) -> Tile:
    """255 where a pixel of the RGB uint8 [h, w, 3] tile lies in all three ranges, by OpenCV itself, else 0: [h, w].

    Ends are included. This is the reference; `fraction` and `passes` decide the same faster.
    """
    low, high = zip(ranges.hue, ranges.saturation, ranges.value, strict=True)
    inside: Tile = cv2.inRange(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV), low, high)  # type: ignore[assignment]
    return inside


@numba.njit(cache=True, nogil=True)
def _count(pixels, limits):  # type: ignore[no-untyped-def]
    """How many of the pixels uint8 [3·n] are in range."""
    h0, h1, s0, s1, v0, v1 = limits[0], limits[1], limits[2], limits[3], limits[4], limits[5]
    one, half, zero = np.float32(1), np.float32(1 << 11), np.float32(0)
    total = np.int32(0)
    for i in range(pixels.size // 3):
        red, green, blue = np.float32(pixels[3 * i]), np.float32(pixels[3 * i + 1]), np.float32(pixels[3 * i + 2])
        value = max(red, max(green, blue))
        spread = value - min(red, min(green, blue))
        other = (blue - red + spread + spread) if value == green else (red - green + spread * np.float32(4))
        sixth = (green - blue) if value == red else other
        per_spread = (np.float32(30 << 12) / max(spread, one) + _ROUND) - _ROUND
        per_value = (np.float32(255 << 12) / max(value, one) + _ROUND) - _ROUND
        hue = sixth * per_spread + half
        hue = hue + (_TURN if hue < zero else zero)
        saturation = spread * per_value
        inside = (hue >= h0) & (hue <= h1) & (saturation >= s0) & (saturation <= s1) & (value >= v0) & (value <= v1)
        total += np.int32(inside)
    return total


@numba.njit(cache=True, nogil=True)
def _at_least(pixels, limits, needed):  # type: ignore[no-untyped-def]
    """Whether `needed` pixels of uint8 [3·n] are in range, looking at no more of them than it takes."""
    found, left = 0, pixels.size // 3
    for start in range(0, pixels.size, 3 * _BLOCK):
        block = pixels[start : start + 3 * _BLOCK]
        found, left = found + np.int64(_count(block, limits)), left - block.size // 3
        if found >= needed or found + left < needed:
            break
    return found >= needed


@lru_cache(maxsize=16)
def _limits(ranges: HsvFilter) -> npt.NDArray[np.float32]:
    """Ends, included, of hue and saturation · 2¹² before they are rounded down, and of value: float32 [6]."""
    (h0, h1), (s0, s1) = ranges.hue, ranges.saturation
    hue = h0 << 12, (h1 << 12) + 4095
    saturation = (s0 << 12) - 2048, (s1 << 12) + 2047
    return np.array([*hue, *saturation, *ranges.value], np.float32)


def fraction(tile: Tile, ranges: HsvFilter) -> float:
    """Share of the pixels of the RGB uint8 [h, w, 3] tile that lie in all three ranges."""
    return int(_count(tile.reshape(-1), _limits(ranges))) / (tile.shape[0] * tile.shape[1])


def pixels_needed(count: int, least: float) -> int:
    """The smallest number of `count` pixels whose share is at least `least`, compared as float64."""
    needed = math.ceil(least * count)
    while needed > 0 and (needed - 1) / count >= least:
        needed -= 1
    while needed / count < least:
        needed += 1
    return needed


def passes(tile: Tile, ranges: HsvFilter | None) -> bool:
    """Whether the tile is accepted; None switches the filter off.

    Args:
        tile: RGB uint8 [h, w, 3].
        ranges: of hue, saturation and value, and the least share of pixels.
    """
    if ranges is None:
        return True
    count = tile.shape[0] * tile.shape[1]
    needed, limits = pixels_needed(count, ranges.min_fraction), _limits(ranges)
    return bool(_at_least(tile.reshape(-1), limits, needed))
