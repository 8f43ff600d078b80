import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from midnight import native
from midnight.config import Crops
from midnight.tiles.augment.axis_map import axis_map, axis_weights
from midnight.tiles.augment.draws import draw_views
from midnight.tiles.augment.resample import Views, combine_rows, render, widen, widen_turned


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Detail of 2-3 px, not near black or white, where Pillow's own clipping half-way would show."""
    noise = np.random.default_rng(0).normal(0, 60, (256, 256, 3))
    return np.clip(150 + cv2.GaussianBlur(noise, (0, 0), 0.8), 40, 215).astype(np.uint8)


def dense(extent: int, size: int, sigma: float) -> np.ndarray:
    first, weights = axis_weights(extent, size, sigma)
    out = np.zeros((size, extent + weights.shape[1]))
    for i in range(size):
        out[i, first[i] : first[i] + weights.shape[1]] = weights[i]
    assert not out[:, extent:].any()
    return out[:, :extent]


def rows(image: np.ndarray, size: int, sigma: float, flip: bool = False, left: int = 0) -> np.ndarray:
    out = np.empty((size, 3 * (image.shape[1] - left)), np.uint8)
    combine_rows(widen(image), 3 * left, axis_map(image.shape[0], size, sigma), flip, out)
    return out.reshape(size, -1, 3)


def resize(image: np.ndarray, size: int, sigma: float = 0.0) -> np.ndarray:
    half = np.ascontiguousarray(rows(image, size, sigma).transpose(1, 0, 2))
    return rows(half, size, sigma).transpose(1, 0, 2)


@given(st.integers(1, 300), st.integers(1, 230), st.sampled_from([0.0, 0.1, 0.7, 2.0]))
def test_each_output_pixel_is_a_mean_of_source_pixels(extent: int, size: int, sigma: float) -> None:
    first, _ = axis_weights(extent, size, sigma)
    assert np.allclose(dense(extent, size, sigma).sum(1), 1)
    assert first.min() >= 0
    assert first.max() < extent
    assert np.all(np.diff(first) >= 0)


@given(st.integers(1, 120), st.floats(0.2, 8), st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.1, 2.0]), st.booleans())
def test_integers_are_close_to_floats(extent: int, scale: float, width: int, sigma: float, flip: bool) -> None:
    size = math.ceil(extent / scale)
    image = np.random.default_rng(extent).integers(0, 256, (extent, width, 3), dtype=np.uint8)
    exact = np.clip(np.einsum("ij,jkc->ikc", dense(extent, size, sigma), image.astype(float)), 0, 255)
    assert np.abs(rows(image, size, sigma, flip) - (exact[::-1] if flip else exact)).max() < 0.8


def test_columns_can_be_cut_off_on_the_left(image: np.ndarray) -> None:
    assert np.array_equal(rows(image, 100, 0.5, left=37), rows(image, 100, 0.5)[:, 37:])


@pytest.mark.parametrize(("height", "width", "size"), [(256, 256, 224), (200, 180, 224), (140, 120, 98), (60, 80, 98)])
def test_it_is_pillow_s_antialiased_bicubic(image: np.ndarray, height: int, width: int, size: int) -> None:
    crop = image[:height, :width].copy()
    theirs = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    error = resize(crop, size) - theirs
    assert np.abs(error).max() <= 2
    assert (np.abs(error) > 1).mean() < 1e-3
    assert abs(error.mean()) < 0.05


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 2.0])
@pytest.mark.parametrize("extent", [150, 98, 60])
def test_blur_is_a_gaussian_of_nine_taps_after_resizing(image: np.ndarray, extent: int, sigma: float) -> None:
    crop = image[:extent, :extent].copy()
    sharp = resize(crop, 98).astype(np.float32)
    theirs = cv2.GaussianBlur(sharp, (9, 9), sigma, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(resize(crop, 98, sigma) - theirs).max() < 2.1
    assert np.abs(resize(crop, 98, sigma) - theirs).mean() < 0.45


def test_the_same_size_changes_nothing(image: np.ndarray) -> None:
    assert np.array_equal(resize(image, 256), image)


def test_stripes_too_fine_for_the_output_vanish_instead_of_turning_coarse() -> None:
    stripes = (127.5 + 100 * np.cos(2 * np.pi * 0.45 * np.arange(147))).astype(np.uint8)
    image = np.repeat(np.repeat(stripes[:, None], 147, 1)[..., None], 3, 2)
    aliased = cv2.resize(image, (98, 98), interpolation=cv2.INTER_CUBIC)[10:-10].std()
    assert resize(image, 98)[10:-10].std() < 0.25 * aliased


def test_widening_transposes(image: np.ndarray) -> None:
    crop = image[:50, :70]
    turned = widen_turned(np.ascontiguousarray(image[:50]).reshape(50, -1), 70)
    assert np.array_equal(turned[:, :150].reshape(70, 50, 3), crop.transpose(1, 0, 2).astype(np.int16) << 7)
    assert np.array_equal(widen(crop.copy())[:, :210].reshape(50, 70, 3), crop.astype(np.int16) << 7)


@pytest.mark.skipif(native.library() is None, reason="installed without a C compiler: there is no compiled twin")
@settings(max_examples=60)
@given(st.integers(0, 10**6), st.tuples(st.integers(9, 300), st.integers(9, 300)), st.sampled_from([9, 20, 98, 224]))
def test_the_compiled_twin_gives_the_same_pixels(seed: int, shape: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(seed)
    tile = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    draws = draw_views(rng, Crops(n_local=3), *shape)

    def views(compiled: bool) -> list[np.ndarray]:
        outs = [np.full((count, side, side, 3), 77, np.uint8) for count, side in ((2, size), (3, 14))]
        parts = (slice(2), slice(2, None))
        kinds = [
            Views(draws.boxes[p], draws.turned[p], draws.sigma[p], out) for p, out in zip(parts, outs, strict=True)
        ]
        render(tile, kinds, compiled)
        return outs

    for compiled, portable in zip(views(True), views(False), strict=True):
        assert np.array_equal(compiled, portable)
