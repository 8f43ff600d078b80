import math

import cv2
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config import HsvFilter
from midnight.tiles.draw.hsv_filter import _count, _limits, fraction, in_range, passes, pixels_needed

pairs = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: (min(pair), max(pair)))
hues = st.tuples(st.integers(0, 180), st.integers(0, 180)).map(lambda pair: (min(pair), max(pair)))
RANGES = [HsvFilter(), HsvFilter((10, 100), (20, 200), (5, 180)), HsvFilter((0, 0), (0, 255), (0, 255))]


def opencv_s_integers(tile: np.ndarray) -> list[np.ndarray]:
    """Hue, saturation and value [h, w] by the published integer form of OpenCV's 8-bit conversion, written anew."""
    red, green, blue = np.moveaxis(tile.astype(np.int64), 2, 0)
    value, least = tile.max(2).astype(np.int64), tile.min(2).astype(np.int64)
    spread = value - least
    steps = np.arange(256)
    per_value = np.rint((255 << 12) / np.maximum(steps, 1)).astype(np.int64)
    per_spread = np.rint((180 << 12) / (6 * np.maximum(steps, 1))).astype(np.int64)
    saturation = (spread * per_value[value] + (1 << 11)) >> 12
    hue = np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    hue = (np.where(value == red, green - blue, hue) * per_spread[spread] + (1 << 11)) >> 12
    return [np.where(hue < 0, hue + 180, hue), saturation, value]


@numba.njit
def one_by_one(pixels, limits):
    out = np.zeros(pixels.size // 3, np.bool_)
    for i in range(out.size):
        out[i] = _count(pixels[3 * i : 3 * i + 3], limits) == 1
    return out


def test_every_colour_is_decided_as_opencv_and_the_closed_form_do() -> None:
    plane = np.empty((256, 256, 3), np.uint8)
    plane[..., 1], plane[..., 2] = np.arange(256)[:, None], np.arange(256)
    for red in range(256):
        plane[..., 0] = red
        channels = opencv_s_integers(plane)
        for ranges in RANGES:
            ends = (ranges.hue, ranges.saturation, ranges.value)
            expected = np.all([(c >= low) & (c <= high) for c, (low, high) in zip(channels, ends, strict=True)], axis=0)
            assert np.array_equal(in_range(plane, ranges) == 255, expected)
            limits = _limits(ranges)
            assert [_count(row, limits) for row in plane.reshape(256, -1)] == expected.sum(1).tolist()
            assert np.array_equal(one_by_one(plane.reshape(-1), limits), expected.reshape(-1))


@given(st.integers(0, 2**32 - 1), hues, pairs, pairs)
def test_any_ranges_are_decided_as_opencv_does(seed: int, hue: tuple, saturation: tuple, value: tuple) -> None:
    tile = np.random.default_rng(seed).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    h, s, v = np.moveaxis(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV), 2, 0).astype(int)
    expected = (h >= hue[0]) & (h <= hue[1]) & (s >= saturation[0]) & (s <= saturation[1])
    expected &= (v >= value[0]) & (v <= value[1])
    ranges = HsvFilter(hue, saturation, value)
    assert np.array_equal(in_range(tile, ranges) == 255, expected)
    assert fraction(tile, ranges) == pytest.approx(expected.mean())


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 9000))
def test_stopping_early_changes_no_decision(seed: int, least: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    inside = np.sort(rng.random(count)) if seed % 2 else rng.random(count)
    tile = np.where(inside[:, None] < rng.random(), (205, 130, 180), (255, 255, 255)).astype(np.uint8)[None]
    ranges = HsvFilter(min_fraction=least)
    assert passes(tile, ranges) is (fraction(tile, ranges) >= least)


@given(st.integers(1, 2**18), st.floats(0, 1))
def test_as_many_pixels_as_the_share_says(count: int, least: float) -> None:
    needed = pixels_needed(count, least)
    assert needed / count >= least
    assert needed == 0 or (needed - 1) / count < least


@pytest.mark.parametrize("count", [49, 196, 1000, 50176, 65536])
def test_a_share_just_above_a_number_of_pixels_needs_one_more(count: int) -> None:
    """Where the product of share and count rounds to the number itself."""
    for pixels in range(0, count, max(1, count // 500)):
        assert pixels_needed(count, pixels / count) == pixels
        assert pixels_needed(count, math.nextafter(pixels / count, 1)) == pixels + 1


@pytest.mark.parametrize(
    ("colour", "tissue"),
    [
        ((120, 80, 150), True),
        ((205, 130, 180), True),
        ((244, 243, 245), False),
        ((60, 170, 120), False),
        ((30, 20, 40), False),
        ((220, 200, 90), False),
    ],
)
def test_what_the_published_ranges_take_for_tissue(colour: tuple[int, int, int], tissue: bool) -> None:
    assert passes(np.full((8, 8, 3), colour, np.uint8), HsvFilter()) is tissue


@pytest.mark.parametrize(("rows", "accepted"), [(59, False), (60, True), (61, True)])
def test_sixty_percent_suffice(rows: int, accepted: bool) -> None:
    tile = np.full((100, 10, 3), 255, np.uint8)
    tile[:rows] = (205, 130, 180)
    assert passes(tile, HsvFilter()) is accepted


def test_a_tile_that_is_part_of_a_region_is_looked_at_alone() -> None:
    region = np.full((40, 40, 3), 255, np.uint8)
    region[10:20, 10:20] = (205, 130, 180)
    assert fraction(region[10:20, 10:20], HsvFilter()) == 1


def test_no_filter_accepts_everything() -> None:
    assert passes(np.zeros((4, 4, 3), np.uint8), None)
