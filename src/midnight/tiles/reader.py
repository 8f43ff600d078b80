"""Reading tiles at an exact resolution.

**Alignment.** A window is read from the level just finer than the target, starting at a whole pixel of that level,
and area-averaged to the exact µm/px. OpenSlide takes level-0 coordinates; where they are no multiple of the
level's downsample it interpolates the window between pixels, which takes 2.8 times as long and blurs the tile
(gradient variance 249 → 58). So positions are drawn on the level's own grid and turned into level-0 coordinates.
Where the downsample is no whole number (4.0007, from a level whose size was rounded) the nearest level-0 pixel is
taken; what remains is below 1/(2 · downsample) of a level pixel, and the tile's stated x, y are where it was read.

**Exact size.** The window's side is size · mpp / level mpp, mostly no whole number. One pixel more is read where
needed, and the resampling is told the exact scale, so that the last output pixel averages only the part of the
last input pixel that belongs to it.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from midnight.tissue.index import TissueRecord
from midnight.tissue.openslides import open_slide, read_rgb
from midnight.tissue.resolution import SlideError, nearest_finer

Tile = npt.NDArray[np.uint8]

# Up to this deviation of scale pixels are kept as they are: half a pixel over a 256 px tile, less than the
# precision of most stated mpps (0.499, 0.2525), while resampling by 1.002 would blur half of the tile.
NATIVE = 0.0025


@dataclass(frozen=True)
class Window:
    """What to read for tiles of `size` px at `mpp` µm/px: a square of `side` (fractional) px of `level`.

    `columns` × `rows` are the positions on the level's grid at which the square lies within the slide.
    """

    size: int
    mpp: float
    level: int
    downsample: float
    side: float
    columns: int
    rows: int

    @property
    def pixels(self) -> int:
        """Whole level pixels that the square touches in one direction."""
        return math.ceil(self.side - 1e-6)

    def origin(self, column: int, row: int) -> tuple[int, int]:
        """Level-0 x, y of the position (column, row) of the level's grid."""
        return round(column * self.downsample), round(row * self.downsample)


def plan(record: TissueRecord, size: int, mpp: float) -> Window | None:
    """The window for tiles of `size` px at `mpp` µm/px; None if no tile fits on the slide.

    Where the slide is coarser than `mpp`, the window is smaller than the tile and is scaled up.
    """
    level = nearest_finer(record.level_mpps, mpp)
    scale = mpp / record.level_mpps[level]
    side = size * (1.0 if abs(scale - 1) <= NATIVE else scale)
    pixels = math.ceil(side - 1e-6)
    columns, rows = record.level_widths[level] - pixels + 1, record.level_heights[level] - pixels + 1
    if columns < 1 or rows < 1:
        return None
    return Window(size, mpp, level, record.level_downsamples[level], side, columns, rows)


def resample(pixels: Tile, size: int, side: float) -> Tile:
    """Exactly `side` × `side` px from the upper left of `pixels`, averaged (or scaled up) to `size` × `size`.

    Args:
        pixels: uint8 [ceil(side), ceil(side), 3].
        size: side of the result, px.
        side: side of the square that the result shows, px, may be fractional.
    """
    if abs(side - size) < 1e-6:
        return pixels
    if side < size:
        centre = side / size
        matrix = np.array([[centre, 0, centre / 2 - 0.5], [0, centre, centre / 2 - 0.5]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return _uint8(cv2.warpAffine(pixels, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE))
    # Given fx instead of a size, OpenCV averages over exactly 1/fx px, fractions at the edges included. But where
    # both sizes would round to the same it only copies: there the input is extended until they don't.
    least = math.ceil(0.5 * side / (side - size)) + 1
    if (missing := least - pixels.shape[0]) > 0:
        pixels = _uint8(cv2.copyMakeBorder(pixels, 0, missing, 0, missing, cv2.BORDER_REPLICATE))
    shrunk = cv2.resize(pixels, None, fx=size / side, fy=size / side, interpolation=cv2.INTER_AREA)
    return _uint8(shrunk[:size, :size])


def _uint8(image: npt.NDArray[np.generic]) -> Tile:
    return np.ascontiguousarray(image, dtype=np.uint8)


class Source(Protocol):
    """An open slide. A faster decoder has only to offer this."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Tile:
        """RGB uint8 [height, width, 3] of a level; x, y in level-0 px. Raises SlideError."""
        ...

    def close(self) -> None:
        """Free the file handle."""
        ...


class OpenSlideSource:
    """The reference: any format that OpenSlide knows."""

    def __init__(self, record: TissueRecord) -> None:
        self._slide = open_slide(record.path)
        if tuple(self._slide.level_dimensions) != tuple(zip(record.level_widths, record.level_heights, strict=True)):
            self._slide.close()
            raise SlideError(f"{record.path}: changed since its tissue was found; run the tissue stage again")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Tile:
        """See `Source.read`; what the slide does not cover is white."""
        return read_rgb(self._slide, (x, y), level, (width, height))

    def close(self) -> None:
        """Free the file handle."""
        self._slide.close()


class SlideReader:
    """Tiles from many slides with at most `max_open` of them open, the least recently used closed first."""

    def __init__(self, max_open: int = 16, source: Callable[[TissueRecord], Source] = OpenSlideSource) -> None:
        self._max_open = max_open
        self._source = source
        self._open: OrderedDict[str, Source] = OrderedDict()

    def __enter__(self) -> "SlideReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def open_slides(self) -> Sequence[str]:
        """Paths of the slides that are open, least recently used first."""
        return list(self._open)

    def read(self, record: TissueRecord, window: Window, column: int, row: int) -> Tile:
        """The tile at a position of the window's grid.

        Returns:
            RGB uint8 [size, size, 3] at exactly `window.mpp` µm/px.

        Raises:
            SlideError: the slide can't be opened or read; it is closed, and the next read opens it anew.
        """
        x, y = window.origin(column, row)
        try:
            pixels = self._opened(record).read(window.level, x, y, window.pixels, window.pixels)
        except SlideError:
            self._forget(record.path)
            raise
        return resample(pixels, window.size, window.side)

    def _opened(self, record: TissueRecord) -> Source:
        if record.path not in self._open:
            while len(self._open) >= self._max_open:
                self._open.popitem(last=False)[1].close()
            self._open[record.path] = self._source(record)
        self._open.move_to_end(record.path)
        return self._open[record.path]

    def _forget(self, path: str) -> None:
        if source := self._open.pop(path, None):
            source.close()

    def close(self) -> None:
        """Close all slides."""
        while self._open:
            self._open.popitem()[1].close()
