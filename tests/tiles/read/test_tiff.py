"""The layout of tiled TIFFs as tifffile states it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from midnight.tiles.read.tiff import LayoutError, read_exactly, tiled_images


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def write(path: Path, big: bool, order: str, shape: tuple[int, int] = (500, 700)) -> Path:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
        for step, tile in ((1, (240, 256)), (4, (64, 64))):
            file.write(image[::step, ::step], tile=tile, compression="jpeg", photometric="rgb", metadata=None)
        file.write(image[::8, ::8], rowsperstrip=16, photometric="rgb", metadata=None)
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_layouts_equal_tifffiles(tmp_path: Path, big: bool, order: str) -> None:
    path = write(tmp_path / "slide.tif", big, order)
    with tifffile.TiffFile(path) as reference, opened(path) as fd:
        images = tiled_images(fd)
        assert len(images) == 2  # the striped directory is left out
        for image, page in zip(images, reference.pages, strict=False):
            down = -(-image.height // image.tile_height)
            spans = np.array(image.spans(fd, range(image.across), range(down)))
            assert (image.width, image.height) == (page.imagewidth, page.imagelength)
            assert (image.tile_width, image.tile_height) == (page.tilewidth, page.tilelength)
            assert (image.compression, image.samples, image.eight_bits) == (page.compression, 3, True)
            assert image.photometric == page.photometric
            assert spans[..., 0].ravel().tolist() == list(page.dataoffsets)
            assert spans[..., 1].ravel().tolist() == list(page.databytecounts)
            part = np.array(image.spans(fd, range(1, image.across), range(1, down)))
            assert np.array_equal(part, spans[1:, 1:])


def test_an_array_of_one_lies_in_its_entry(tmp_path: Path) -> None:
    path = write(tmp_path / "small.tif", False, "<", (100, 90))
    with opened(path) as fd, tifffile.TiffFile(path) as reference:
        spans = tiled_images(fd)[0].spans(fd, range(1), range(1))
        assert spans == [[(reference.pages[0].dataoffsets[0], reference.pages[0].databytecounts[0])]]


def test_tables_of_the_file(real_data: Path) -> None:
    path = real_data / "wsi" / "cmu-1-small-region.svs"
    with opened(path) as fd, tifffile.TiffFile(path) as reference:
        image = tiled_images(fd)[0]
        assert image.tables == reference.pages[0].jpegtables
        assert (image.photometric, image.compression) == (2, 7)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, data, reason in (
        ("text", b"nothing of the kind, but long enough", "no TIFF"),
        ("short", b"II", "ends at byte 2"),
        ("loop", b"II*\0" + (8).to_bytes(4, "little") + bytes(2) + (8).to_bytes(4, "little") + bytes(8), "more than"),
        ("many", b"II*\0" + (8).to_bytes(4, "little") + b"\xff\xff" + bytes(100), "65535 entries"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with opened(path) as fd, pytest.raises(LayoutError, match=reason):
            tiled_images(fd)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_directories_are_refused_or_read(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    source = folder / "source.tif"
    if not source.exists():
        write(source, False, "<", (100, 90))
    rng = np.random.default_rng(seed)
    data = bytearray(source.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    for place in rng.integers(start, start + 300, 5):
        data[place % len(data)] = rng.integers(256)
    path = folder / "damaged.tif"
    path.write_bytes(data)
    with opened(path) as fd:
        try:
            for image in tiled_images(fd):
                image.spans(fd, range(1), range(1))
        except LayoutError as error:
            assert str(error)


def test_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with opened(path) as fd:
        assert read_exactly(fd, 3, 4) == b"3456"
        with pytest.raises(LayoutError, match="ends at byte 10"):
            read_exactly(fd, 8, 4)
