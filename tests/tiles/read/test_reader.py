"""Tiles show exactly the ground that they should, at exactly the resolution that they should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midnight.tiles.read.reader import NATIVE, SlideReader, cut, plan, to_size
from midnight.tissue.index import TissueRecord, read_index
from midnight.tissue.resolution import SlideError
from tests.tissue.small_slides import make_index, make_record, write_slide

RULE_UM = 25.0
WIDE = np.ones((200, 300), bool)


def averages(length: int, size: int, side: float) -> np.ndarray:
    """[size, length]: how much each of `length` px adds to each of `size` averages over `side` px in all."""
    edges = np.arange(size + 1) * side / size
    starts = np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.maximum(overlap, 0) * size / side


def averaged(pixels: np.ndarray, size: int, side: float) -> np.ndarray:
    """The upper left `side` × `side` px as exact averages, float [size, size, 3]."""
    weights = averages(len(pixels), size, side)
    rows = np.tensordot(weights, pixels.astype(float), (1, 0))
    return np.tensordot(weights, rows, (1, 1)).transpose(1, 0, 2)


@given(st.integers(0, 999), st.integers(4, 40), st.floats(1.0, 4.0))
@example(0, 27, 1.2963305581195037)
def test_resampling_averages_exactly_fractions_included(seed: int, size: int, scale: float) -> None:
    side = size * scale
    length = int(np.ceil(side - 1e-6))
    pixels = np.random.default_rng(seed).integers(0, 256, (length, length, 3), dtype=np.uint8)
    expected = averaged(pixels, size, side)
    assert np.abs(to_size(pixels, size, side).astype(float) - expected).max() < 0.5 + 0.05


def test_scaling_up_keeps_edges_in_place() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:, 50:] = 200
    up = to_size(pixels, 256, 100.0)
    assert up.shape == (256, 256, 3)
    assert np.interp(100, up[100, 100:156, 0], np.arange(100, 156)) == pytest.approx(127.5, abs=0.3)


def ruler(height: int, width: int, mpp: float) -> np.ndarray:
    """Dark lines of 3 µm every 25 µm in both directions, drawn with fractional pixels."""

    def profile(length: int) -> np.ndarray:
        fine = 50
        um = (np.arange(length * fine) + 0.5) / fine * mpp
        return (um % RULE_UM < 3.0).reshape(length, fine).mean(1)

    dark = np.maximum(profile(height)[:, None], profile(width)[None])
    return np.repeat((230 - 200 * dark)[..., None], 3, axis=2).round().astype(np.uint8)


def lines(profile: np.ndarray, expected: float) -> np.ndarray:
    """Positions in px of the lines' centres, each from the dark mass around the darkest pixel."""
    dark = np.maximum(0, np.median(profile) - profile)
    reach = int(expected * 0.4)
    found, free = [], dark.copy()
    while free.max() > 0.5 * dark.max():
        peak = int(free.argmax())
        low, high = peak - reach, peak + reach + 1
        free[max(0, low) : high] = 0
        if low >= 0 and high <= len(dark):
            found.append((dark[low:high] * (np.arange(low, high) + 0.5)).sum() / dark[low:high].sum())
    return np.sort(found)


def record_of(path: Path, mpp: float) -> TissueRecord:
    with openslide.OpenSlide(path) as slide:
        sizes = slide.level_dimensions
        return TissueRecord(
            path.stem,
            str(path),
            mpp=mpp,
            width=sizes[0][0],
            height=sizes[0][1],
            level_widths=tuple(size[0] for size in sizes),
            level_heights=tuple(size[1] for size in sizes),
            level_downsamples=tuple(slide.level_downsamples),
        )


@pytest.fixture(scope="module", params=[0.25, 0.2525, 0.2462, 0.499])
def ruled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TissueRecord:
    """A slide with rulers; its level sizes are rounded, so that the downsample is about 4.003."""
    mpp = request.param
    image = ruler(2403, 2803, mpp)
    path = write_slide(tmp_path_factory.mktemp("ruled") / f"ruled-{mpp}.svs", image, mpp)
    return record_of(path, mpp)


@pytest.mark.parametrize("target", [0.25, 0.5, 1.0, 2.0])
def test_tiles_have_the_exact_mpp_and_place(ruled: TissueRecord, target: float) -> None:
    if ruled.mpp > target * 1.01:
        pytest.skip("the slide is coarser than that")
    window = plan(ruled, 256, target)
    assert window is not None
    column, row = min(151, window.columns - 1), min(97, window.rows - 1)
    with SlideReader() as reader:
        tile = reader.read(ruled, window, column, row)
    assert tile.shape == (256, 256, 3)
    x, y = window.origin(column, row)
    spacing = RULE_UM / target
    for profile, start in ((np.median(tile[..., 0], 0), x), (np.median(tile[..., 0], 1), y)):
        centres = lines(profile, spacing)
        assert len(centres) >= 2
        slope = (centres[-1] - centres[0]) / round((centres[-1] - centres[0]) / spacing)
        drawn = slope * target / RULE_UM
        assert drawn == pytest.approx(1, abs=NATIVE + 1e-3), "lines are not 25 µm apart"
        offset = (start * ruled.mpp + centres * target - 1.5) / RULE_UM
        assert np.abs(offset - offset.round()).max() * RULE_UM < 1.5 * ruled.mpp + 0.4 * target, (
            "lines are not in place"
        )


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, noise: np.ndarray) -> TissueRecord:
    return record_of(write_slide(tmp_path_factory.mktemp("noisy") / "noisy.svs", noise, 0.5), 0.5)


def test_native_tiles_are_the_file_s_pixels(noisy: TissueRecord, noise: np.ndarray) -> None:
    window = plan(noisy, 200, 0.5)
    assert window is not None
    with SlideReader() as reader, openslide.OpenSlide(noisy.path) as slide:
        tile = reader.read(noisy, window, 333, 217)
        raw = np.asarray(slide.read_region((333, 217), 0, (200, 200)))[..., :3]
    assert np.array_equal(tile, raw)
    assert np.array_equal(tile, noise[217:417, 333:533])


def test_native_tiles_of_a_lower_level_are_aligned_and_not_blurred(noisy: TissueRecord) -> None:
    window = plan(noisy, 100, 2.0)
    assert window is not None
    assert (window.level, window.side) == (1, 100)
    with SlideReader() as reader, openslide.OpenSlide(noisy.path) as slide:
        tile = reader.read(noisy, window, 33, 57)
        level = np.asarray(slide.read_region((0, 0), 1, slide.level_dimensions[1]))[..., :3]
    assert np.array_equal(tile, level[57:157, 33:133])


def test_tiles_between_levels_are_exact_averages(noisy: TissueRecord, noise: np.ndarray) -> None:
    window = plan(noisy, 100, 1.3)
    assert window is not None
    assert (window.level, window.side) == (0, 260)
    with SlideReader() as reader:
        tile = reader.read(noisy, window, 11, 13).astype(float)
    expected = averaged(noise[13:273, 11:271], 100, 260)
    assert np.abs(tile - expected).max() < 0.6


def test_a_window_never_reaches_over_the_border() -> None:
    for target in (0.5, 0.7, 1.0, 1.9, 2.0, 3.3):
        record = make_record(WIDE, downsamples=(1.0, 4.0007))
        window = plan(record, 256, target)
        assert window is not None
        assert window.columns - 1 + window.pixels == record.level_widths[window.level] // window.reduce
        assert window.rows - 1 + window.pixels == record.level_heights[window.level] // window.reduce


@given(st.floats(0.1, 1.1), st.sampled_from([0.125, 0.25, 0.5, 1.0, 2.0]), st.sampled_from([64, 256, 512]))
def test_a_level_is_averaged_while_it_is_decoded_only_if_nothing_is_left_to_scale(
    slide_mpp: float, target: float, size: int
) -> None:
    window = plan(make_record(np.ones((2000, 2000), bool), mpp=slide_mpp), size, target)
    if window is not None:
        level_mpp = slide_mpp * window.downsample
        assert window.side == pytest.approx(size * target / level_mpp, rel=NATIVE)
        if window.reduce > 1:
            assert window.side == size


def test_half_and_quarter_windows_are_averages_of_whole_pixels(noisy: TissueRecord, noise: np.ndarray) -> None:
    fine = replace(noisy, mpp=0.25)
    for mpp, factor in ((0.5, 2), (1.0, 1), (2.0, 2)):
        window = plan(fine, 64, mpp)
        assert window is not None
        assert (window.reduce, window.side, window.pixels) == (factor, 64, 64)
    window = plan(replace(fine, level_downsamples=(1.0,), level_widths=(1600,), level_heights=(1200,)), 64, 1.0)
    assert window is not None
    assert window.reduce == 4
    with SlideReader() as reader:
        tile = reader.read(noisy, window, 11, 13).astype(float)
    assert window.origin(11, 13) == (44, 52)
    assert np.abs(tile - averaged(noise[52:308, 44:300], 64, 256)).max() < 0.6


def test_tiles_cut_from_a_region_are_those_read_one_by_one(noisy: TissueRecord) -> None:
    for mpp in (0.5, 0.6, 1.0, 2.0):
        window = plan(noisy, 64, mpp)
        assert window is not None
        with SlideReader() as reader:
            region = reader.region(noisy, window, 5, 7, window.pixels + 30, window.pixels + 20)
            for dx, dy in ((0, 0), (30, 20), (13, 4)):
                assert np.array_equal(cut(region, window, dx, dy), reader.read(noisy, window, 5 + dx, 7 + dy))


def test_the_level_just_finer_is_read() -> None:
    record = make_record(WIDE, mpp=0.25, downsamples=(1.0, 4.0, 8.0))
    levels = {target: plan(record, 64, target).level for target in (0.125, 0.25, 0.5, 0.98, 0.995, 1.5, 2.0, 4.0)}
    assert levels == {0.125: 0, 0.25: 0, 0.5: 0, 0.98: 0, 0.995: 1, 1.5: 1, 2.0: 2, 4.0: 2}


def test_positions_of_whole_downsamples_are_whole_level_pixels() -> None:
    window = plan(make_record(WIDE), 64, 2.0)
    assert window is not None
    assert all(window.origin(k, k + 1) == (4 * k, 4 * (k + 1)) for k in range(200))


def test_a_slide_that_is_too_small_has_no_window() -> None:
    record = make_record(np.ones((20, 40), bool))
    assert plan(record, 256, 0.5) is not None
    assert plan(record, 256, 1.0) is None


def test_at_most_so_many_slides_are_open(tmp_path: Path, noise: np.ndarray) -> None:
    records = [record_of(write_slide(tmp_path / f"{i}.svs", noise[:300, :300], 0.5, None, ()), 0.5) for i in range(4)]
    window = plan(records[0], 64, 0.5)
    assert window is not None
    with SlideReader(max_open=2) as reader:
        for record in [*records, records[2], records[0]]:
            reader.read(record, window, 0, 0)
            assert len(reader.open_slides) <= 2
        assert reader.open_slides == [records[2].path, records[0].path]
    assert not reader.open_slides


def test_a_vanished_a_broken_and_a_changed_slide_raise_and_are_closed(tmp_path: Path, noise: np.ndarray) -> None:
    path = write_slide(tmp_path / "slide.svs", noise[:700, :700], 0.5, None, ())
    record = record_of(path, 0.5)
    window = plan(record, 64, 0.5)
    assert window is not None
    data = path.read_bytes()
    with SlideReader() as reader:
        path.unlink()
        with pytest.raises(SlideError, match="no such file"):
            reader.read(record, window, 0, 0)
        broken = bytearray(data)
        broken[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        path.write_bytes(broken)
        with pytest.raises(SlideError, match="can't be read at x=636, y=636"):
            reader.read(record, window, window.columns - 1, window.rows - 1)
        assert not reader.open_slides
        path.write_bytes(data)
        assert reader.read(record, window, 0, 0).shape == (64, 64, 3)
    write_slide(path, noise[:600, :700], 0.5, None, ())
    with (
        SlideReader() as reader,
        pytest.raises(SlideError, match="changed since its mask was made; run the workflow again"),
    ):
        reader.read(record, window, 0, 0)


def test_a_real_slide_reads_as_openslide_reads_it(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "wsi" / "cmu-1-small-region.svs"
    record = read_index(make_index(tmp_path, [path]))[0]
    native, coarse = plan(record, 256, 0.499), plan(record, 256, 1.0)
    assert native is not None
    assert coarse is not None
    with SlideReader() as reader, openslide.OpenSlide(path) as slide:
        raw = np.asarray(slide.read_region((700, 900), 0, (600, 600)))[..., :3]
        assert np.array_equal(reader.read(record, native, 700, 900), raw[:256, :256])
        tile = reader.read(record, coarse, 350, 450).astype(float)
    # Averaged while decoding: what differs is the clipping of pixels below 0 and above 255 in between.
    difference = np.abs(tile - averaged(raw[:512, :512], 256, 512))
    assert (coarse.reduce, coarse.side) == (2, 256)
    assert difference.mean() < 0.35  # rounding alone gives 0.25
    assert np.quantile(difference, 0.998) <= 7
