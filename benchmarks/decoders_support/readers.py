"""Ways to read a window of a slide: each is a function (x, y, side) -> RGB uint8 [256, 256, 3].

x, y and side are in level-0 px; a side of 512 is averaged to 256 px. Those that go by whole tiles read each tile's
bytes with one positioned read and decode it as a whole.
"""

import importlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import openslide
import tifffile
from tiles_support.jpegs import join

from midnight.config import Tissue
from midnight.tiles.read.reader import SlideReader, plan
from midnight.tissue.shard import SlideRow, segment_slide

SIZE = 256
MPP = 0.25

Image = npt.NDArray[np.uint8]
Reader = Callable[[int, int, int], Image]
Decode = Callable[[bytes], Image]


def averaged(pixels: npt.NDArray[Any]) -> Image:
    """The window at 256 × 256 px."""
    if pixels.shape[0] == SIZE:
        return np.ascontiguousarray(pixels[..., :3])
    return np.asarray(cv2.resize(pixels[..., :3], (SIZE, SIZE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def by_openslide(path: Path) -> Reader:
    """The reference; without OpenSlide's cache, since windows at random places of many slides have no use of it."""
    slide = openslide.OpenSlide(path)
    slide.set_cache(openslide.OpenSlideCache(0))
    return lambda x, y, side: averaged(np.asarray(slide.read_region((x, y), 0, (side, side))))


def by_us(path: Path) -> Reader:
    """SlideReader, with the record that the tissue stage makes."""
    record = segment_slide(SlideRow(path.stem, str(path), "ok", "", None), Tissue())
    reader = SlideReader()

    def read(x: int, y: int, side: int) -> Image:
        window = plan(record, SIZE, MPP * side / SIZE)
        if window is None:
            raise ValueError(f"{path}: no window of {side} px")
        step = window.origin(1, 0)[0]
        return reader.read(record, window, x // step, y // step)

    return read


def by_cucim(path: Path) -> Reader:
    """cuCIM on the CPU, without its cache."""
    cucim = importlib.import_module("cucim")
    cucim.CuImage.cache("nocache")
    slide = cucim.CuImage(str(path))
    return lambda x, y, side: averaged(
        np.asarray(slide.read_region(location=(x, y), size=(side, side), level=0, num_workers=1))
    )


def by_fastslide(path: Path) -> Reader:
    """fastslide, without a cache."""
    slide = importlib.import_module("fastslide").FastSlide.from_file_path(str(path))
    slide.set_cache(None)
    return lambda x, y, side: averaged(slide.read_region((x, y), 0, (side, side)).numpy())


class Tiles:
    """Level 0 of a tiled TIFF: the bytes of its tiles, and windows put together from decoded ones."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._tiff = tifffile.TiffFile(path)
        page = self._tiff.pages[0]
        if not isinstance(page, tifffile.TiffPage):
            raise TypeError(f"{path}: not a plain TIFF page")
        self.page, self.tables = page, page.jpegtables or b""
        self._side, self._columns = page.tilewidth, -(-page.imagewidth // page.tilewidth)

    def data(self, number: int) -> bytes:
        """The bytes of a tile as they are in the file."""
        return os.pread(self._file, self.page.databytecounts[number], self.page.dataoffsets[number])

    def whole(self, number: int) -> bytes:
        """A tile as a file of its own."""
        return join(self.tables, self.data(number))

    def window(self, x: int, y: int, side: int, decode: Callable[[int], Image], shrink: int = 1) -> Image:
        """The window, from tiles that `decode` gives at 1/shrink of their side."""
        out = np.empty((side // shrink, side // shrink, 3), np.uint8)
        x, y, tile = x // shrink, y // shrink, self._side // shrink
        for row in range(y // tile, -(-(y + out.shape[0]) // tile)):
            for column in range(x // tile, -(-(x + out.shape[1]) // tile)):
                left, top = column * tile - x, row * tile - y
                pixels = decode(row * self._columns + column)[max(0, -top) :, max(0, -left) :]
                target = out[max(0, top) : top + tile, max(0, left) : left + tile]
                target[...] = pixels[: target.shape[0], : target.shape[1]]
        return out


def by_tiles(decode: Decode, half: Decode | None = None) -> Callable[[Path], Reader]:
    """Whole tiles by `decode`; windows of 512 px by `half` where a decoder gives half of the side directly."""

    def open_tiles(path: Path) -> Reader:
        tiles = Tiles(path)

        def read(x: int, y: int, side: int) -> Image:
            if half and side == 2 * SIZE:
                return tiles.window(x, y, side, lambda number: half(tiles.whole(number)), 2)
            return averaged(tiles.window(x, y, side, lambda number: decode(tiles.whole(number))))

        return read

    return open_tiles


def by_tifffile(path: Path) -> Reader:
    """tifffile's own decoding of a tile, which is by imagecodecs."""
    tiles = Tiles(path)

    def decode(number: int) -> Image:
        pixels = tiles.page.decode(tiles.data(number), number, jpegtables=tiles.tables or None)[0]
        if pixels is None:
            raise ValueError(f"{path}: tile {number} is missing")
        return np.asarray(pixels[0], dtype=np.uint8)

    return lambda x, y, side: averaged(tiles.window(x, y, side, decode))


def by_simplejpeg(path: Path) -> Reader:
    """libjpeg-turbo; half size by its scaled inverse DCT."""
    simplejpeg = importlib.import_module("simplejpeg")

    def half(data: bytes) -> Image:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return np.asarray(
            simplejpeg.decode_jpeg(data, "RGB", min_height=height // 2, min_width=width // 2, min_factor=2)
        )

    return by_tiles(lambda data: np.asarray(simplejpeg.decode_jpeg(data, "RGB")), half)(path)


def by_opencv(path: Path) -> Reader:
    """OpenCV's imdecode; JPEG at half size by its reduced mode."""

    def decode(data: bytes, mode: int = cv2.IMREAD_COLOR_RGB) -> Image:
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), mode), dtype=np.uint8)

    return by_tiles(decode, lambda data: decode(data, cv2.IMREAD_REDUCED_COLOR_2)[..., ::-1])(path)


def by_pillow(path: Path) -> Reader:
    """Pillow; JPEG 2000 at half size without the finest wavelet bands."""
    from PIL import Image as Pictures

    def decode(data: bytes, discard: int = 0) -> Image:
        picture: Any = Pictures.open(io.BytesIO(data))
        picture.reduce = discard
        return np.asarray(picture)

    return by_tiles(decode, lambda data: decode(data, 1))(path)


def by_imagecodecs_jpeg2000(path: Path) -> Reader:
    """imagecodecs, with its own OpenJPEG."""
    imagecodecs = importlib.import_module("imagecodecs")
    return by_tiles(lambda data: np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1)))(path)


def by_pylibjpeg(path: Path) -> Reader:
    """pylibjpeg-openjpeg."""
    openjpeg = importlib.import_module("openjpeg")
    return by_tiles(lambda data: np.asarray(openjpeg.decode(data)))(path)


JPEG: dict[str, Callable[[Path], Reader]] = {
    "OpenSlide": by_openslide,
    "ours": by_us,
    "cucim": by_cucim,
    "fastslide": by_fastslide,
    "tifffile + imagecodecs": by_tifffile,
    "simplejpeg": by_simplejpeg,
    "OpenCV": by_opencv,
}
JPEG2000: dict[str, Callable[[Path], Reader]] = {
    "OpenSlide": by_openslide,
    "ours": by_us,
    "cucim": by_cucim,
    "fastslide": by_fastslide,
    "imagecodecs": by_imagecodecs_jpeg2000,
    "pylibjpeg-openjpeg": by_pylibjpeg,
    "Pillow": by_pillow,
}
