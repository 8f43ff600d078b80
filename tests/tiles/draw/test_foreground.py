from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.tiles.draw.foreground import MaskCache, MaskView, mask_view
from midnight.tissue.blocks import to_blocks
from midnight.tissue.index import training_slides, write_records
from midnight.tissue.maskfile import masks_path
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


@given(st.integers(0, 999), st.floats(0.2, 7.0), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.booleans())
def test_fractions_of_mask_pixels_count_as_such(
    seed: int, scale: float, x: float, y: float, side: float, coarse: bool
) -> None:
    """Against the same sum with each mask pixel's overlap, over one to several blocks, sure and mixed ones."""
    mask = masks(seed, 3, 4).repeat(32, 0).repeat(32, 1) if coarse else masks(seed, 70, 99)
    height, width = mask.shape
    view = MaskView(to_blocks(np.packbits(mask, axis=1), width, height), 1 / scale, 1 / scale)
    length = side * min(height, width) * scale
    left, top = x * (width * scale - length), y * (height * scale - length)
    across, down = (
        np.clip(np.minimum(np.arange(size) + 1, (at + length) / scale) - np.maximum(np.arange(size), at / scale), 0, 1)
        for at, size in ((left, width), (top, height))
    )
    expected = down @ mask @ across / (down.sum() * across.sum())
    assert view.share(left, top, length) == pytest.approx(expected, abs=1e-7)


@given(st.integers(0, 999), st.floats(0.0, 1.0), st.integers(1, 5))
def test_find_gives_the_first_places_with_enough_tissue(seed: int, foreground: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    view = mask_view(make_record(np.kron(masks(seed, 5, 6), np.ones((9, 9))).astype(bool), scale=8))
    draws, area, step, side = rng.random((40, 2)), (3, 50, 5, 40), 2.003, 101.5
    places = [(3 + int(u * 50), 5 + int(v * 40)) for u, v in draws]
    right = [(c, r) for c, r in places if view.share(round(c * step), round(r * step), side) >= foreground]
    assert view.find(draws, area, step, side, foreground, most) == right[:most]


@given(st.integers(0, 999), st.floats(0.0, 1.0), st.sampled_from([8.0, 101.5, 400.0]))
def test_bits_that_are_read_when_needed_decide_as_those_at_hand(seed: int, foreground: float, side: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(masks(seed, 5, 6), np.ones((25, 25))).astype(bool)
    view = mask_view(make_record(mask, scale=8))
    lazy = replace(view, mask=replace(view.mask, bits=None))
    draws, area = rng.random((16, 2)), (0, 150 * 8 - 400, 0, 125 * 8 - 400)
    expected = view.find(draws, area, 1.0, side, foreground, 5)
    assert lazy.find(draws, area, 1.0, side, foreground, 5) == expected
    assert lazy.mask.bits is None
    assert all(lazy.share(x, y, side) == view.share(x, y, side) >= foreground for x, y in expected)
    assert view.find(rng.random((100, 2)), area, 1.0, side, foreground, 5) is not None


def test_masks_come_from_the_file_beside_the_index(tmp_path: Path) -> None:
    records = [make_record(masks(i, 40, 70), f"s{i}") for i in range(5)]
    write_records(records, tmp_path / "index.parquet")
    cache = MaskCache()
    for fresh, stored in zip(records, training_slides(tmp_path / "index.parquet"), strict=True):
        assert np.array_equal(cache.get(stored).unpack(), fresh.mask())
    assert masks_path(tmp_path / "index.parquet").exists()
