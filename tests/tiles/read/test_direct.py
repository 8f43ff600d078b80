"""Slides read straight from the file look as OpenSlide shows them, and odd ones go to OpenSlide by themselves."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import psutil
import pytest
import tifffile

from midnight.tiles.read.reader import ReferenceSlide, SlideReader, Window, plan
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import SlideError
from tests.tiles.read.jpegs import texture

DESCRIPTION = "Aperio Image Library v12.0\r\n|AppMag = 40|MPP = 0.25"
KINDS = [
    ("ycbcr", (2, 2), 256, False),
    ("ycbcr", (2, 1), 240, True),
    ("ycbcr", (1, 1), 512, False),
    ("rgb", (1, 1), 240, False),
    ("rgb", (2, 2), 256, True),
]


def write(path: Path, kind: tuple[str, tuple[int, int], int, bool] = KINDS[0], **options: object) -> TissueRecord:
    """An Aperio slide of two levels, and its record."""
    space, subsampling, tile, big = kind
    image = texture(1200, 1600)
    settings: dict[str, object] = {"compression": "jpeg", "compressionargs": {"level": 80, "outcolorspace": space}}
    settings |= {"subsampling": subsampling, "photometric": "rgb", "metadata": None, "description": DESCRIPTION}
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        for level in (image, image[::4, ::4]):
            file.write(level, tile=(tile, tile), **settings | options)
    return record_of(path)


def record_of(path: Path, mpp: float = 0.25) -> TissueRecord:
    with openslide.OpenSlide(path) as slide:
        widths, heights = zip(*slide.level_dimensions, strict=True)
        vendor = slide.properties["openslide.vendor"]
        downsamples = tuple(slide.level_downsamples)
    return TissueRecord(
        path.stem, str(path), vendor=vendor, mpp=mpp, width=widths[0], height=heights[0],
        level_widths=widths, level_heights=heights, level_downsamples=downsamples,
    )  # fmt: skip


def window_of(record: TissueRecord, mpp: float, size: int = 256) -> Window:
    window = plan(record, size, mpp)
    assert window is not None
    return window


def compare(record: TissueRecord, mpp: float, n: int = 12, size: int = 256) -> np.ndarray:
    """Absolute differences between both ways, at random places and in all corners."""
    window, rng = window_of(record, mpp, size), np.random.default_rng(0)
    right, bottom = window.columns - 1, window.rows - 1
    places = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    places += [(int(rng.integers(right + 1)), int(rng.integers(bottom + 1))) for _ in range(n)]
    reference, side = ReferenceSlide(record), window.pixels
    with SlideReader() as reader:
        tiles = [reader.region(record, window, *place, side, side).astype(int) for place in places]
        assert reader.open_slides == [record.path]  # one handle: OpenSlide was not needed
        assert not reader._noted
    return np.abs(np.array(tiles) - np.array([reference.read(window, *place, side, side) for place in places]))


@pytest.mark.parametrize("kind", KINDS)
def test_full_size_pixels_equal_openslides(tmp_path: Path, kind: tuple[str, tuple[int, int], int, bool]) -> None:
    record = write(tmp_path / "slide.svs", kind)
    assert record.vendor == "aperio"
    for mpp in (0.25, 1.0):
        assert not compare(record, mpp).any()
    assert compare(record, 0.5).mean() < 2
    assert compare(record, 4.0, size=64).mean() < 2


def test_a_real_jpeg_slide(real_data: Path) -> None:
    record = record_of(real_data / "wsi" / "cmu-1-small-region.svs", 0.5)
    assert not compare(record, 0.5).any()
    for mpp in (1.0, 2.0):
        assert compare(record, mpp).mean() < 0.2


def test_a_real_jpeg_2000_slide(real_data: Path) -> None:
    record = record_of(real_data / "wsi" / "tcga-cr-7395-01a-01-ts1.svs", 0.25)
    assert not compare(record, 0.25, 2).any()


def fallen_back(record: TissueRecord, caplog: pytest.LogCaptureFixture, column: int = 0) -> str:
    """Read twice; the reason that was logged, once; the pixels are OpenSlide's."""
    window = window_of(record, 0.25)
    caplog.clear()
    with caplog.at_level(logging.INFO), SlideReader() as reader:
        tile = reader.read(record, window, column, 0)
        assert np.array_equal(tile, reader.read(record, window, column, 0))
    reference = ReferenceSlide(record)
    assert np.array_equal(tile, reference.read(window, column, 0, 256, 256))
    messages = [message for message in caplog.messages if "OpenSlide" in message]
    assert len(messages) == 1
    assert record.slide_id in messages[0]
    return messages[0]


def test_other_kinds_go_to_openslide_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deflate = write(tmp_path / "deflate.svs", compression="deflate", compressionargs=None, subsampling=None)
    assert "of compression" in fallen_back(deflate, caplog)
    record = write(tmp_path / "slide.svs")
    assert "a slide of philips" in fallen_back(replace(record, vendor="philips"), caplog)


def test_a_missing_tile_is_left_to_openslide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = write(tmp_path / "slide.svs")
    with tifffile.TiffFile(record.path, mode="r+") as file:
        tag = file.pages[0].tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    assert "a tile is missing" in fallen_back(record, caplog)
    # Elsewhere the slide is read directly, whatever was read before.
    with SlideReader() as reader:
        reader.read(record, window_of(record, 0.25), 0, 0)
        reader.read(record, window_of(record, 0.25), 700, 500)
        assert len(reader.open_slides) == 2


def test_files_are_reopened_but_their_layout_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from midnight.tiles.read import reader as module

    records = [write(tmp_path / f"{name}.svs") for name in "abc"]
    layouts: list[str] = []
    original = module.read_tile_map
    monkeypatch.setattr(
        module, "read_tile_map", lambda fd, record: layouts.append(record.slide_id) or original(fd, record)
    )
    before = psutil.Process().num_fds()
    with SlideReader(max_open=2) as reader:
        for record in records * 3:
            reader.read(record, window_of(record, 0.25), 3, 4)
        assert psutil.Process().num_fds() <= before + 2
    assert layouts == ["a", "b", "c"]
    assert psutil.Process().num_fds() == before


def test_a_slide_that_changes_while_it_is_open(tmp_path: Path) -> None:
    record = write(tmp_path / "slide.svs")
    path, window = Path(record.path), window_of(record, 0.25)
    with SlideReader() as reader:
        first = reader.read(record, window, window.columns - 1, window.rows - 1)
        os.truncate(path, 5000)
        with pytest.raises(SlideError):
            reader.read(record, window, window.columns - 1, window.rows - 1)
        assert not reader.open_slides
        path.unlink()
        with pytest.raises(SlideError, match="no such file"):
            reader.read(record, window, 0, 0)
        write(path)
        assert np.array_equal(first, reader.read(record, window, window.columns - 1, window.rows - 1))
