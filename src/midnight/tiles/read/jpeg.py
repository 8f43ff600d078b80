"""Windows of JPEG-compressed tiles at full, half or quarter size, decoding only what is seen.

**Why an own decoder.** A window at a random place touches four to nine tiles of 240–512 px. Kept libraries decode each
of them as a whole (cucim, simplejpeg, imagecodecs, cv2, tifffile), or read windows only as OpenSlide does; those that
can decode a region of a JPEG (libjpeg-turbo's own interface) come in no package that pip installs. The figures are in
`benchmarks/decoders.py` and its result page. Here the Huffman codes before the window are skipped, those after it never
read, and the rest is done for the blocks that are seen; at half and quarter size the inverse DCT yields averages of
2×2 or 4×4 px at once. Full-size pixels equal libjpeg-turbo's, and so OpenSlide's, bit for bit. Averages are taken
before colours are converted; where that makes a difference, since colours have to be clipped by far, as of RGB that is
labelled YCbCr, or since it is RGB that is subsampled, they are taken of full-size pixels instead.

**Where it was not built** (see `midnight.native`) `decoder()` gives `WholeTiles`, which decodes whole tiles
through imagecodecs: the same pixels at full size, area averages of them otherwise, at about half of the speed.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import imagecodecs
import numpy as np
import numpy.typing as npt

from midnight import native
from midnight.tiles.read.area import average

Pixels = npt.NDArray[np.uint8]
Spans = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]


class NotDecodedError(Exception):
    """These tiles are of a kind that is not decoded here, or are damaged; the message says which."""


@dataclass(frozen=True)
class Mosaic:
    """The compressed tiles that a window touches.

    data: uint8 [n], the tiles' bytes, one after another.
    spans: int64 [rows, columns, 2], start and length in `data` of each tile.
    tile: width, height of a tile in px.
    tables: the TIFF's JPEGTables; may be empty.
    ycc: whether the components are YCbCr, else RGB.
    """

    data: Pixels
    spans: Spans
    tile: tuple[int, int]
    tables: bytes = b""
    ycc: bool = True


class TileDecoder(Protocol):
    """Decodes windows of tiled JPEG images. Not for two threads at once."""

    def window(self, mosaic: Mosaic, box: Box, reduce: int) -> Pixels:
        """A window's pixels.

        Args:
            mosaic: the tiles.
            box: x, y, width, height of the window in px from the first tile's corner, multiples of `reduce`.
            reduce: 1, 2 or 4; averages of so many px in each direction.

        Returns:
            uint8 [height / reduce, width / reduce, 3], RGB.

        Raises:
            NotDecodedError: a tile is no baseline JPEG of 8 bits with 3 components, or is damaged.
        """
        ...


REASONS = {1: "its JPEG tiles are of a kind that only OpenSlide decodes", 2: "a JPEG tile is damaged"}
INEXACT = 3
"""Averages of what was decoded would differ from decoding averages."""


class Windows:
    """The compiled decoder."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._decoder = ctypes.c_void_p(library.midnight_jpeg_new())
        if not self._decoder:
            raise MemoryError("no memory for a JPEG decoder")

    def __del__(self) -> None:
        self._library.midnight_jpeg_free(self._decoder)

    def window(self, mosaic: Mosaic, box: Box, reduce: int) -> Pixels:
        """See `TileDecoder.window`."""
        out = np.empty((box[3] // reduce, box[2] // reduce, 3), np.uint8)
        rows, columns, _ = mosaic.spans.shape
        status = self._library.midnight_jpeg_window(
            self._decoder,
            mosaic.data.ctypes.data,
            len(mosaic.data),
            mosaic.spans.ctypes.data,
            (ctypes.c_int * 9)(rows, columns, *mosaic.tile, *box, reduce),
            mosaic.tables,
            len(mosaic.tables),
            mosaic.ycc,
            out.ctypes.data,
        )
        if status == INEXACT:
            return average(self.window(mosaic, box, 1), reduce)
        if status:
            raise NotDecodedError(REASONS[status])
        return out


class WholeTiles:
    """The same through a kept library that decodes whole tiles: where no C compiler was at hand."""

    def window(self, mosaic: Mosaic, box: Box, reduce: int) -> Pixels:
        """See `TileDecoder.window`."""
        return mosaic_window(lambda data: whole_tile(data, mosaic), mosaic, box, reduce)


def mosaic_window(decode: Callable[[bytes], Pixels], mosaic: Mosaic, box: Box, reduce: int) -> Pixels:
    """A window out of whole tiles, decoded one by one with `decode`; the rest as in `TileDecoder.window`."""
    (rows, columns, _), (across, down) = mosaic.spans.shape, mosaic.tile
    whole = np.empty((rows * down, columns * across, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            start, size = mosaic.spans[row, column]
            pixels = decode(mosaic.data[start : start + size].tobytes())
            whole[row * down :, column * across :][:down, :across] = pixels
    x, y, width, height = box
    seen = np.ascontiguousarray(whole[y : y + height, x : x + width])
    return seen if reduce == 1 else average(seen, reduce)


def whole_tile(data: bytes, mosaic: Mosaic) -> Pixels:
    """One tile of a mosaic, uint8 [height, width, 3] RGB, by imagecodecs (libjpeg-turbo).

    Raises:
        NotDecodedError: it can't be decoded, or is of another size.
    """
    space = "YCBCR" if mosaic.ycc else "RGB"
    try:
        pixels = imagecodecs.jpeg8_decode(data, tables=mosaic.tables or None, colorspace=space, outcolorspace="RGB")
    except (imagecodecs.Jpeg8Error, ValueError, RuntimeError) as error:
        raise NotDecodedError(REASONS[2]) from error
    if pixels.shape != (*mosaic.tile[::-1], 3):
        raise NotDecodedError(REASONS[1])
    return pixels


def decoder() -> TileDecoder:
    """A decoder: the compiled one, or where it was not built, the one for whole tiles."""
    found = native.library()
    return Windows(found) if found else WholeTiles()
