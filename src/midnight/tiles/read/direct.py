"""Windows of tiled JPEG and JPEG 2000 slides (Aperio, generic TIFF) read straight from the file.

Which tiles are a slide's is decided by the rules of OpenSlide's drivers (`midnight.tiles.read.pyramid`). What they have
no plain tile for, and what is not known to come out as OpenSlide shows it, is left to OpenSlide.

A window takes two short reads of the directory's arrays and one read per row of tiles, whose bytes mostly follow each
other in the file: four or five reads, which is what network file systems like. Reads go through `pread`, not through a
memory map: where a file is cut short meanwhile, a map would end the process.
"""

import os
from dataclasses import dataclass

import numpy as np

from midnight.tiles.read import jpeg2000
from midnight.tiles.read.jpeg import Box, Mosaic, NotDecodedError, Pixels, TileDecoder, mosaic_window
from midnight.tiles.read.pyramid import APERIO, VENDORS, Numbers, has_any, level_images, missing_tiles
from midnight.tiles.read.tiff import LayoutError, TiledImage, read_into, tiled_images
from midnight.tiles.read.window import Window
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import SlideError

JPEG = 7
JPEG_2000 = (jpeg2000.YCBCR, jpeg2000.RGB)
RGB, YCC = 2, 6
MAX_TILE = 4096
MAX_GAP = 1 << 16
"""Bytes between two tiles of a row up to which they are read at once."""
MAX_BYTES = 1 << 26
"""Bytes of a tile."""


@dataclass(frozen=True)
class TileMap:
    """Where a slide's tiles are, by OpenSlide's level; and the file's size and time stamp when this was read.

    missing: by level, the numbers of tiles that are not to be read though they may be there; None where they are not
    known, since there are none but those without bytes.
    """

    levels: tuple[TiledImage, ...]
    missing: tuple[Numbers | None, ...]
    stamp: tuple[int, int]


def read_tile_map(fd: int, record: TissueRecord) -> TileMap:
    """The layout of an open slide.

    Raises:
        NotDecodedError: it is of a kind that only OpenSlide reads.
        OSError: it can't be read.
    """
    if record.vendor not in VENDORS:
        raise NotDecodedError(f"a slide of {record.vendor or 'an unknown make'}")
    try:
        levels = level_images(tiled_images(fd), record.vendor)
        if [(level.width, level.height) for level in levels] != [
            *zip(record.level_widths, record.level_heights, strict=True)
        ]:
            raise NotDecodedError("its tiled directories are not OpenSlide's levels")
        missing = missing_tiles(fd, levels) if record.vendor == APERIO else [None] * len(levels)
    except LayoutError as error:
        raise NotDecodedError(str(error)) from error
    return TileMap(tuple(_checked(level) for level in levels), tuple(missing), stamp(fd))


def stamp(fd: int) -> tuple[int, int]:
    """An open file's size in bytes and time of modification in ns."""
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def _checked(image: TiledImage) -> TiledImage:
    known = (image.compression == JPEG and image.photometric in (RGB, YCC)) or image.compression in JPEG_2000
    if not known or image.samples != 3 or not image.eight_bits:
        what = f"compression {image.compression}, photometric {image.photometric}, {image.samples} samples"
        raise NotDecodedError(f"tiles of {what}")
    if max(image.tile_width, image.tile_height) > MAX_TILE:
        raise NotDecodedError(f"tiles of {image.tile_width} × {image.tile_height} px")
    return image


def open_file(path: str) -> int:
    """A file descriptor for reads at random places, so that the system does not read ahead.

    Raises:
        OSError: the file can't be opened.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return fd


class DirectSlide:
    """An open slide; close() frees its one file handle."""

    def __init__(self, fd: int, layout: TileMap, decoder: TileDecoder) -> None:
        self._fd = fd
        self._layout = layout
        self._decoder = decoder

    def read(self, window: Window, column: int, row: int, width: int, height: int) -> Pixels:
        """See `midnight.tiles.read.reader.Slide.read`.

        Raises:
            NotDecodedError: a tile is missing, of an unknown kind, or damaged; OpenSlide may know better.
            OSError: the file can't be read any more.
        """
        image, reduce = self._layout.levels[window.level], window.reduce
        if image.tile_width % reduce or image.tile_height % reduce:
            raise NotDecodedError(f"tiles of {image.tile_width} × {image.tile_height} px, to be reduced by {reduce}")
        x, y, wide, high = column * reduce, row * reduce, width * reduce, height * reduce
        columns = range(x // image.tile_width, (x + wide - 1) // image.tile_width + 1)
        rows = range(y // image.tile_height, (y + high - 1) // image.tile_height + 1)
        if has_any(self._layout.missing[window.level], image, columns, rows):
            raise NotDecodedError("a tile is missing")
        try:
            mosaic = self._mosaic(image, columns, rows)
        except LayoutError as error:
            raise NotDecodedError(str(error)) from error
        box = (x - columns.start * image.tile_width, y - rows.start * image.tile_height, wide, high)
        return self._decode(image, mosaic, box, reduce)

    def _mosaic(self, image: TiledImage, columns: range, rows: range) -> Mosaic:
        """A rectangle of tiles; neighbours of a row that follow each other closely in the file are read at once."""
        runs: list[tuple[int, int]] = []
        places: list[int] = []
        total = 0
        for row in image.spans(self._fd, columns, rows):
            begin = end = row[0][0]
            for start, size in row:
                if not (0 < size < MAX_BYTES and start > 0):
                    raise NotDecodedError("a tile is missing")
                if not 0 <= start - end <= MAX_GAP:
                    runs.append((begin, end - begin))
                    total, begin = total + end - begin, start
                places += (total + start - begin, size)
                end = start + size
            runs.append((begin, end - begin))
            total += end - begin
        data = np.empty(total, np.uint8)
        view, done = data.data, 0
        for begin, size in runs:
            read_into(self._fd, begin, view[done : done + size])
            done += size
        spans = np.array(places, np.int64).reshape(len(rows), len(columns), 2)
        return Mosaic(data, spans, (image.tile_width, image.tile_height), image.tables, image.photometric == YCC)

    def _decode(self, image: TiledImage, mosaic: Mosaic, box: Box, reduce: int) -> Pixels:
        if image.compression == JPEG:
            return self._decoder.window(mosaic, box, reduce)

        def whole(one: bytes) -> Pixels:
            try:
                return jpeg2000.decode(one, image.compression, *mosaic.tile)
            except SlideError as error:
                raise NotDecodedError(str(error)) from error

        return mosaic_window(whole, mosaic, box, reduce)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
