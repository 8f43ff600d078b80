"""What to read of a slide for tiles at an exact resolution.

**Level.** A window is read from the level just finer than the target, starting at a whole pixel of that level, and
averaged to the exact µm/px. OpenSlide takes level-0 coordinates; where they are no multiple of the level's downsample
it interpolates the window between pixels, which takes 2.8 times as long and blurs the tile (gradient variance
249 → 58). So positions are drawn on the level's own grid. Where the downsample is no whole number (4.0007, from a level
whose size was rounded) the nearest level-0 pixel is stated as the tile's x, y; it is off by less than half a pixel of
the level.

**Reduction.** A window of twice or four times the tile's side is averaged by that whole factor while it is decoded,
which for JPEG costs less than decoding all pixels (see `midnight.tiles.jpeg`). Columns, rows, side and positions then
count pixels of the averaged level.

**Exact size.** The window's side is size · mpp / level mpp, mostly no whole number. One pixel more is read where
needed, and the resampling is told the exact scale, so that the last output pixel averages only the part of the
last input pixel that belongs to it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import nearest_finer

Tile = npt.NDArray[np.uint8]

# Up to this deviation of scale pixels are kept as they are: half a pixel over a 256 px tile, less than the
# precision of most stated mpps (0.499, 0.2525), while resampling by 1.002 would blur half of the tile.
NATIVE = 0.0025
# A level is averaged by a whole factor if the scale that is left lies between these: slides at 0.2525 µm/px give tiles
# at 0.5 from 254 averaged px, slides at 0.23 from 278. With more left, averaging twice would differ from doing it once.
LEFT = (0.98, 1.15)
FACTORS = (4, 2)


@dataclass(frozen=True)
class Window:
    """What to read for tiles of `size` px at `mpp` µm/px: a square of `side` (fractional) px of a reduced level.

    The level is averaged by `reduce` in both directions; `downsample` is level-0 px per px of the averaged level.
    `columns` × `rows` are the positions on its grid at which the square lies within the slide.
    """

    size: int
    mpp: float
    level: int
    downsample: float
    side: float
    columns: int
    rows: int
    reduce: int = 1

    @property
    def pixels(self) -> int:
        """Whole pixels of the averaged level that the square touches in one direction."""
        return math.ceil(self.side - 1e-6)

    def origin(self, column: int, row: int) -> tuple[int, int]:
        """Level-0 x, y of the position (column, row) of the grid."""
        return round(column * self.downsample), round(row * self.downsample)


def plan(record: TissueRecord, size: int, mpp: float) -> Window | None:
    """The window for tiles of `size` px at `mpp` µm/px; None if no tile fits on the slide.

    Where the slide is coarser than `mpp`, the window is smaller than the tile and is scaled up.
    """
    mpps = record.level_mpps
    level = nearest_finer(mpps, mpp)
    scale = mpp / mpps[level]
    reduce = next((factor for factor in FACTORS if LEFT[0] <= scale / factor <= LEFT[1]), 1)
    side = size * (1.0 if abs(scale / reduce - 1) <= NATIVE else scale / reduce)
    pixels = math.ceil(side - 1e-6)
    columns = record.level_widths[level] // reduce - pixels + 1
    rows = record.level_heights[level] // reduce - pixels + 1
    if columns < 1 or rows < 1:
        return None
    return Window(size, mpp, level, record.level_downsamples[level] * reduce, side, columns, rows, reduce)


def cut(region: Tile, window: Window, column: int, row: int) -> Tile:
    """The tile at column, row of a region that was read for its window: uint8 [size, size, 3]."""
    return resample(region[row : row + window.pixels, column : column + window.pixels], window.size, window.side)


def resample(pixels: Tile, size: int, side: float) -> Tile:
    """Exactly `side` × `side` px from the upper left of `pixels`, averaged (or scaled up) to `size` × `size`.

    Args:
        pixels: uint8 [ceil(side), ceil(side), 3].
        size: side of the result, px.
        side: side of the square that the result shows, px, may be fractional.
    """
    if abs(side - size) < 1e-6:
        return _uint8(pixels)
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
