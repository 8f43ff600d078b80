import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config import HsvFilter
from midnight.tiles.hsv_filter import fraction, in_range, passes

pairs = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: (min(pair), max(pair)))
hues = st.tuples(st.integers(0, 180), st.integers(0, 180)).map(lambda pair: (min(pair), max(pair)))


@given(st.integers(0, 2**32 - 1), hues, pairs, pairs)
def test_it_decides_as_opencv_s_hsv_does(seed: int, hue: tuple, saturation: tuple, value: tuple) -> None:
    tile = np.random.default_rng(seed).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    h, s, v = np.moveaxis(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV), 2, 0).astype(int)
    expected = (h >= hue[0]) & (h <= hue[1]) & (s >= saturation[0]) & (s <= saturation[1])
    expected &= (v >= value[0]) & (v <= value[1])
    ranges = HsvFilter(hue, saturation, value)
    assert np.array_equal(in_range(tile, ranges) == 255, expected)
    assert fraction(tile, ranges) == pytest.approx(expected.mean())


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


def test_no_filter_accepts_everything() -> None:
    assert passes(np.zeros((4, 4, 3), np.uint8), None)
