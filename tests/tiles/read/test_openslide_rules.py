"""Slides read directly follow the rules of OpenSlide's drivers: the same levels, the same tiles, the same colours."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest

from midnight.tiles.read.area import average
from midnight.tiles.read.pyramid import covering, has_any
from midnight.tiles.read.reader import ReferenceSlide, SlideReader, Window
from midnight.tiles.read.tiff import Array, LayoutError, TiledImage, tiled_images
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import SlideError
from tests.tiles.read.jpegs import abbreviated, encoded, texture
from tests.tiles.read.odd_slides import ODD, odd_slide, plain, ycc_as_rgb
from tests.tiles.read.test_direct import record_of
from tests.tiles.read.tiffs import LONG, Page, aperio, page, rgb_jpeg, write_tiff

SIDE = 512


def level_window(record: TissueRecord, level: int, side: int, reduce: int = 1) -> Window:
    """Windows of `side` px of a level, averaged by a whole factor."""
    size = side // reduce
    columns, rows = (sides[level] // reduce - size + 1 for sides in (record.level_widths, record.level_heights))
    return Window(size, 1.0, level, record.level_downsamples[level] * reduce, size, columns, rows, reduce)


class Reference:
    """A slide as OpenSlide shows it."""

    def __init__(self, record: TissueRecord) -> None:
        self.record = record
        self.slide = ReferenceSlide(record)

    def read(self, window: Window, column: int, row: int) -> np.ndarray | SlideError:
        """A window, or why OpenSlide refuses it."""
        try:
            return self.slide.read(window, column, row, window.size, window.size)
        except SlideError as error:
            self.slide.close()
            self.slide = ReferenceSlide(self.record)
            return error


def check(reader: SlideReader, reference: Reference, window: Window, column: int, row: int) -> None:
    """A window looks as OpenSlide shows it: exactly; or if its averages are taken in decoding, nearly."""
    record = reference.record
    where = f"{record.path}, level {window.level}, {column}, {row}, reduced by {window.reduce}"
    expected = reference.read(window, column, row)
    if isinstance(expected, SlideError):
        if "Huffman" not in str(expected):  # that may be in a part of a tile which is not decoded here
            with pytest.raises(SlideError):
                pytest.fail(f"{where}: {reader.region(record, window, column, row, window.size, window.size).shape}")
        return
    difference = np.abs(reader.region(record, window, column, row, window.size, window.size) - expected.astype(int))
    if window.reduce == 1:
        assert not difference.any(), where
    else:
        assert difference.max() < 35, where
        assert difference.mean() < 2.5, where


@pytest.mark.parametrize("odd", ODD)
def test_odd_slides_look_as_openslide_shows_them(tmp_path: Path, odd: str) -> None:
    opened = 0
    with SlideReader() as reader:  # one for all: what is left of a slide must not show on the next
        for seed in range(20):
            path = odd_slide(tmp_path / f"{odd}-{seed}.tif", odd, seed)
            try:
                record = record_of(path)
            except openslide.OpenSlideError:
                continue
            opened += 1
            rng, reference = np.random.default_rng(seed), Reference(record)
            for level in range(len(record.level_widths)):
                for side, reduce in ((100, 1), (60, 1), (100, 2), (100, 4)):
                    window = level_window(record, level, side, reduce)
                    if window.columns > 0 and window.rows > 0:
                        column, row = int(rng.integers(window.columns)), int(rng.integers(window.rows))
                        check(reader, reference, window, column, row)
        assert opened > 4
        assert odd != plain.__name__ or len(reader._noted) < opened / 4  # most are read directly


def written(path: Path, pages: list[Page], **options: object) -> TissueRecord:
    return record_of(write_tiff(path, pages, **options))  # type: ignore[arg-type]


def pyramid(tile: int = 64, scales: tuple[int, ...] = (1, 2, 4)) -> list[Page]:
    """The levels of an Aperio slide of SIDE × SIDE px."""
    image = texture(SIDE, SIDE)
    images = [np.ascontiguousarray(image[::scale, ::scale]) for scale in scales]
    return [page(pixels, tile, encoded, aperio(len(pixels), len(pixels))) for pixels in images]


def check_everywhere(record: TissueRecord, step: int = 32) -> list[str]:
    """All windows of all levels on a coarse grid; the slides for which OpenSlide was asked."""
    reference = Reference(record)
    with SlideReader() as reader:
        for level, width in enumerate(record.level_widths):
            window = level_window(record, level, 64)
            for column in range(0, width - 63, step):
                for row in range(0, record.level_heights[level] - 63, step):
                    check(reader, reference, window, column, row)
        return list(reader._noted)


def test_what_covers_a_missing_aperio_tile_is_missing_too(tmp_path: Path) -> None:
    pages = pyramid()
    pages[0].tiles[63] = b""  # and what its encoder left above it shows another place
    for one, tile in ((pages[1], 15), (pages[2], 3)):
        one.tiles[tile] = encoded(texture(64, 64, 9)[::-1].copy())
    record = written(tmp_path / "slide.svs", pages)
    assert check_everywhere(record) == [record.path]
    # Elsewhere it is read directly, on all levels.
    with SlideReader() as reader:
        for level in range(3):
            reader.region(record, level_window(record, level, 64), 0, 0, 64, 64)
        assert not reader._noted


@pytest.mark.parametrize("tiles", [(64, 64, 32), (64, 48, 64), (80, 64, 32), (112, 32, 64)])
def test_missing_tiles_of_levels_that_do_not_match(tmp_path: Path, tiles: tuple[int, ...]) -> None:
    pages = [pyramid(tile)[level] for level, tile in enumerate(tiles)]
    for number in (3, len(pages[0].tiles) - 1):
        pages[0].tiles[number] = b""
    for one in pages[1:]:
        one.tiles = [encoded(texture(one.tile, one.tile, 7)) for _ in one.tiles]
    record = written(tmp_path / "slide.svs", pages)
    assert set(check_everywhere(record, 28)) <= {record.path}


def level_of(width: int, height: int, tile: int = 10) -> TiledImage:
    nothing = Array(0, 0, "<u4")
    return TiledImage(width, height, tile, tile, 7, 6, 3, True, b"", nothing, nothing, False, False)


def test_which_tiles_cover_others() -> None:
    fine, coarse = level_of(80, 60), level_of(40, 30)
    assert covering(np.array([0, 9, 47]), fine, coarse).tolist() == [0, 11]
    # 7 columns on 3 count as 2 each: the last one is taken for the next row's first.
    assert covering(np.array([6]), level_of(70, 10), level_of(30, 20)).tolist() == [3]
    assert not covering(np.array([], np.int64), fine, level_of(999, 999)).size
    with pytest.raises(LayoutError):
        covering(np.array([1]), level_of(20, 20), level_of(90, 90))
    numbers = np.array([11, 25])
    assert has_any(numbers, fine, range(3, 4), range(1, 2))
    assert not has_any(numbers, fine, range(4, 8), range(0, 3))


def negative(pixels: np.ndarray) -> np.ndarray:
    return 255 - pixels


@pytest.mark.parametrize("subfile", [None, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_page_of_a_level_s_size_is_read_only_if_it_is_one(tmp_path: Path, subfile: int | None, place: int) -> None:
    image = texture(SIDE, SIDE)
    half, reduced = np.ascontiguousarray(image[::2, ::2]), {254: (LONG, [1])}
    tags = {254: None if subfile is None else (LONG, [subfile])}
    pages = [page(image, 64, encoded), page(half, 64, encoded, tags=reduced), page(half, 64, encoded, tags=reduced)]
    for pixels in (half, image):
        other = page(negative(pixels), 64, encoded, tags=tags)
        record = written(tmp_path / "slide.tif", [*pages[:place], other, *pages[place:]])
        assert check_everywhere(record, 120) == []


def test_a_level_without_tables_is_not_decoded_with_another_slide_s(tmp_path: Path) -> None:
    image = texture(SIDE, SIDE)
    whole = page(image, 64, lambda pixels: encoded(pixels, quality=30), aperio(SIDE, SIDE))
    bare = page(image, 64, lambda pixels: abbreviated(encoded(pixels, quality=90))[1], aperio(SIDE, SIDE))
    first, second = written(tmp_path / "a.svs", [whole]), written(tmp_path / "b.svs", [bare])
    with SlideReader() as reader:
        window = level_window(first, 0, 128)
        reader.region(first, window, 5, 5, 128, 128)
        with pytest.raises(SlideError, match="Quantization table"):
            reader.region(second, window, 5, 5, 128, 128)


@pytest.mark.parametrize("encode", [ycc_as_rgb, rgb_jpeg])
@pytest.mark.parametrize("reduce", [2, 4])
def test_rgb_labelled_ycbcr_looks_as_openslide_shows_it(tmp_path: Path, encode: object, reduce: int) -> None:
    record = written(tmp_path / "slide.svs", [page(texture(SIDE, SIDE), 128, encode, aperio(SIDE, SIDE))])  # type: ignore[arg-type]
    window = level_window(record, 0, 256, reduce)
    with SlideReader() as reader:
        found = reader.region(record, window, 9, 7, window.size, window.size)
        assert not reader._noted
    full = replace(window, reduce=1, downsample=1.0)
    expected = ReferenceSlide(record).read(full, 9 * reduce, 7 * reduce, 256, 256)
    assert np.array_equal(found, average(expected, reduce))


@pytest.mark.parametrize("place", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_offsets_beyond_all_files(tmp_path: Path, place: int) -> None:
    pages = pyramid(scales=(1, 4))
    pages[0].offsets[9] = place
    record = written(tmp_path / "slide.svs", pages, big=True)
    window = level_window(record, 0, 64)
    with SlideReader() as reader:
        with pytest.raises(SlideError, match="can't be read"):
            reader.region(record, window, 70, 70, 64, 64)
        check(reader, Reference(record), window, 300, 300)


def test_directories_beyond_all_files(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.svs", pyramid(scales=(1,)), big=True)
    with open(path, "r+b") as file:
        file.seek(8)
        file.write((1 << 63).to_bytes(8, "little"))
        file.flush()
        with pytest.raises(LayoutError):
            tiled_images(file.fileno())


def test_a_file_that_became_another_slide_s(tmp_path: Path) -> None:
    """Pages that are not the levels of the record are not taken for them."""
    record = written(tmp_path / "slide.svs", pyramid())
    Path(record.path).unlink()
    shutil.copy(write_tiff(tmp_path / "other.svs", pyramid(scales=(1, 4))), record.path)
    with SlideReader() as reader, pytest.raises(SlideError, match="changed since"):
        reader.region(record, level_window(record, 0, 64), 0, 0, 64, 64)
