import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.tiles.foreground import MaskCache, mask_view
from tests.tissue.small_slides import make_record


def masks(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < 0.5


@given(st.integers(0, 999), st.integers(3, 20), st.integers(3, 20), st.data())
def test_shares_are_exact_to_single_level_0_pixels(seed: int, height: int, width: int, data: st.DataObject) -> None:
    mask = masks(seed, height, width)
    view = mask_view(make_record(mask, scale=8))
    side = data.draw(st.integers(1, 8 * min(height, width)))
    x = data.draw(st.integers(0, 8 * width - side))
    y = data.draw(st.integers(0, 8 * height - side))
    pixels = np.kron(mask, np.ones((8, 8)))[y : y + side, x : x + side]
    assert view.share(x, y, side) == pytest.approx(pixels.mean())


def test_what_reaches_beyond_the_mask_is_cut() -> None:
    view = mask_view(make_record(np.ones((10, 10), bool), scale=8))
    assert view.share(70, 70, 10.3) == pytest.approx(1.0)


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    records = [make_record(masks(i, 10, 10), f"s{i}") for i in range(5)]
    cache = MaskCache(size=2)
    first = cache.get(records[0])
    for record in records[1:]:
        cache.get(record)
        assert cache.get(records[0]) is first
    assert len(cache._views) == 2
