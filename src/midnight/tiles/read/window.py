"""What to read of a slide for tiles at an exact resolution.

**Level.** A window is read from the level just finer than the target, starting at a whole pixel of that level, and
averaged to the exact µm/px. OpenSlide takes level-0 coordinates; where they are no multiple of the level's downsample
it interpolates the window between pixels, which takes 2.8 times as long and blurs the tile (gradient variance
249 → 58). So positions are drawn on the level's own grid. Where the downsample is no whole number (4.0007, from a level
whose size was rounded) the nearest level-0 pixel is stated as the tile's x, y; it is off by less than half a pixel of
the level.

**Reduction.** A window of just twice or four times the tile's side is averaged by that whole factor while it is
decoded, which for JPEG costs less than decoding all pixels (see `midnight.tiles.read.jpeg`). Columns, rows, side and
positions then count pixels of the averaged level. A window of any other size is decoded in full, and averaged once:
two averages, one by the whole factor and one by the rest, would blur (see `midnight.tiles.read.area`).

**Exact size.** The window's side is size · mpp / level mpp, mostly no whole number. One pixel more is read where
needed, and the resampling is told the exact scale, so that the last output pixel averages only the part of the
last input pixel that belongs to it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from midnight.tiles.read.area import area_average, average
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import nearest_finer

Tile = npt.NDArray[np.uint8]

# Up to this deviation of scale pixels are kept as they are: half a pixel over a 256 px tile, less than the
# precision of most stated mpps (0.499, 0.2525), while resampling by 1.002 would blur half of the tile.
NATIVE = 0.0025
# Factors by which a level is averaged while it is decoded, if nothing is left to scale.
FACTORS = (2, 4)


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
    whole = next((factor for factor in (1, *FACTORS) if abs(scale / factor - 1) <= NATIVE), None)
    reduce, side = whole or 1, size * (1.0 if whole else scale)
    pixels = math.ceil(side - 1e-6)
    columns = record.level_widths[level] // reduce - pixels + 1
    rows = record.level_heights[level] // reduce - pixels + 1
    if columns < 1 or rows < 1:
        return None
    return Window(size, mpp, level, record.level_downsamples[level] * reduce, side, columns, rows, reduce)


def cut(region: Tile, window: Window, column: int, row: int) -> Tile:
    """The tile at column, row of a region that was read for its window: uint8 [size, size, 3]."""
    return to_size(region[row : row + window.pixels, column : column + window.pixels], window.size, window.side)


def to_size(pixels: Tile, size: int, side: float) -> Tile:
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
    if (factor := round(side / size)) * size == pixels.shape[0] and abs(factor * size - side) < 1e-6:
        return average(pixels, factor)
    return area_average(pixels, size, side)


def _uint8(image: npt.NDArray[np.generic]) -> Tile:
    return np.ascontiguousarray(image, dtype=np.uint8)
