"""Area averages are exact, the same however they are made, and taken once."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midnight import native
from midnight.tiles.read.area import area_average, area_map
from midnight.tiles.read.reader import ReferenceSlide, SlideReader, Window, plan
from midnight.tissue.index import TissueRecord
from tests.tiles.read.jpegs import encoded, texture
from tests.tiles.read.test_direct import record_of
from tests.tiles.read.test_reader import averaged
from tests.tiles.read.tiffs import aperio, page, write_tiff
from tests.tissue.small_slides import write_slide

SIDE = 1100
RATIOS = (1.0, 1.004, 1.1, 1.5, 1.9, 1.99, 2.0, 2.008, 2.1, 2.3, 2.7, 3.0, 3.5, 3.97, 4.0, 4.1, 4.6, 5.5, 7.3, 8.0)


def pixels_of(seed: int, side: float) -> np.ndarray:
    length = math.ceil(side - 1e-6)
    return np.random.default_rng(seed).integers(0, 256, (length, length, 3), dtype=np.uint8)


@given(st.integers(0, 999), st.integers(1, 70), st.floats(1.0001, 9.0))
@example(0, 27, 1.2963305581195037)
@example(0, 64, 17.3)
@example(0, 2, 90.7)
def test_averages_are_exact_fractions_included(seed: int, size: int, scale: float) -> None:
    side = size * scale
    pixels = pixels_of(seed, side)
    found = area_average(pixels, size, side)
    exact_to = 0.05 if scale < 32 else 0.26  # OpenCV leaves out shares of a px below 1/1000
    assert np.abs(found - averaged(pixels, size, side)).max() < 0.5 + exact_to
    assert np.array_equal(found, area_average(pixels, size, side, compiled=False))


def test_flat_stays_flat_and_extremes_do_not_overflow() -> None:
    for level in (0, 1, 127, 254, 255):
        for scale in (1.00001, 1.7, 2.008, 6.3, 33.3, 300.1):
            length = math.ceil(2 * scale)
            flat = np.full((length, length, 3), level, np.uint8)
            for compiled in (True, False):
                assert (area_average(flat, 2, 2 * scale, compiled) == level).all(), (level, scale)


def test_parts_of_a_larger_image_are_averaged_in_place() -> None:
    large = pixels_of(0, 100)
    part = large[7:60, 11:64]
    assert np.array_equal(area_average(part, 20, 52.5), area_average(part.copy(), 20, 52.5))
    mirrored = part[:, ::-1]
    assert np.array_equal(area_average(mirrored, 20, 52.5), area_average(mirrored.copy(), 20, 52.5))
    assert np.array_equal(large, pixels_of(0, 100))


@given(st.integers(1, 300), st.floats(1.00001, 32.0))
def test_weights_reach_no_further_than_the_image(size: int, scale: float) -> None:
    length = math.ceil(size * scale - 1e-6)
    axis = area_map(length, size, size * scale)
    assert axis.first.min() >= 0
    assert axis.first.max() + axis.weights.shape[1] <= length
    assert (65535 - axis.weights.astype(int).sum(1) <= 0).all()


@pytest.mark.skipif(native.library() is None, reason="installed without a C compiler")
def test_the_compiled_average_keeps_to_its_room() -> None:
    found = native.library()
    assert found is not None
    size, side, length = 33, 70.3, 71
    pixels, axis = pixels_of(1, side), area_map(length, size, side)
    room = found.midnight_area_room(length, size)
    memory, out = np.full(room + 512, 77, np.uint8), np.full(size * size * 3 + 512, 77, np.uint8)
    found.midnight_area(
        pixels.ctypes.data, 3 * length, length, axis.first.ctypes.data, axis.weights.ctypes.data,
        axis.weights.shape[1], axis.start, size, memory.ctypes.data, out.ctypes.data,
    )  # fmt: skip
    assert (memory[room:] == 77).all()
    assert (out[size * size * 3 :] == 77).all()
    assert np.array_equal(out[: size * size * 3].reshape(size, size, 3), area_average(pixels, size, side))


def gradient_variance(image: np.ndarray) -> float:
    grey = image.astype(float).mean(2)
    return float(np.diff(grey, axis=0).var() + np.diff(grey, axis=1).var())


@pytest.fixture(scope="module", params=["read directly", "4:4:4", "by OpenSlide"])
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TissueRecord:
    """One level at 0.25 µm/px, JPEG tiles or such as only OpenSlide reads."""
    path, image = tmp_path_factory.mktemp("sharp") / "slide.svs", texture(SIDE, SIDE)
    if request.param == "by OpenSlide":
        return record_of(write_slide(path, image, 0.25, None, ()))
    kind = "4:2:0" if request.param == "read directly" else "4:4:4"
    return record_of(write_tiff(path, [page(image, 256, lambda one: encoded(one, kind), aperio(SIDE, SIDE))]))


@pytest.mark.parametrize("ratio", RATIOS)
def test_tiles_are_as_sharp_as_one_average_of_the_level(slide: TissueRecord, ratio: float) -> None:
    window = plan(slide, 128, 0.25 * ratio)
    assert window is not None
    column, row = window.columns - 1, window.rows - 1  # the upper left corner is flat
    with SlideReader() as reader:
        tile = reader.read(slide, window, column, row)
    side = 128 * ratio if abs(ratio / round(ratio) - 1) > 0.0025 else 128 * round(ratio)
    length = math.ceil(side - 1e-6)
    whole = Window(length, 0.25, 0, 1.0, length, 1, 1)
    level = ReferenceSlide(slide).read(whole, column * window.reduce, row * window.reduce, length, length)
    exact = averaged(level, 128, side)
    assert 0.97 < gradient_variance(tile) / gradient_variance(exact) < 1.03
    difference = np.abs(tile - exact)
    if window.reduce == 1:
        assert difference.max() < 0.55
    else:
        assert difference.mean() < 1.5


def test_the_tiles_of_all_scanners_are_equally_sharp(tmp_path: Path) -> None:
    """Slides at about 0.25 µm/px, of the same picture: none is softer at 0.5 than its own exact average."""
    image = texture(SIDE, SIDE)
    path = write_tiff(tmp_path / "slide.svs", [page(image, 256, encoded, aperio(SIDE, SIDE))])
    found = []
    for mpp in (0.2265, 0.2457, 0.249, 0.25, 0.2525):
        record = record_of(path, mpp)
        window = plan(record, 256, 0.5)
        assert window is not None
        with SlideReader() as reader:
            tile = reader.read(record, window, 0, 0)
        side = window.side * window.reduce
        part = image[: math.ceil(side), : math.ceil(side)]
        found.append(gradient_variance(tile) / gradient_variance(averaged(part, 256, side)))
    assert max(found) - min(found) < 0.05
