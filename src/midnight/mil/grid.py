"""The tiles of a whole slide: a regular grid at an exact resolution, of which those with enough tissue are kept."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from midnight.config import Features
from midnight.tiles.draw.foreground import MaskView, mask_view
from midnight.tiles.draw.positions import position_share, side_of
from midnight.tiles.read.window import Window
from midnight.tiles.read.window import plan as window_of
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import SlideError, has_mpp

Ints = npt.NDArray[np.int64]

# Neighbours of a row that are read at once: the slide's own tiles that they share are decoded once.
RUN = 8


@dataclass(frozen=True, eq=False)
class Grid:
    """The tiles of one slide, row by row.

    Attributes:
        window: by which they are read.
        columns: int64 [N], of each tile on the window's grid of positions.
        rows: int64 [N].
    """

    window: Window
    columns: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def coords(self) -> Ints:
        """Upper left corners in level-0 px: x, y, int64 [N, 2]."""
        places = [self.window.origin(int(x), int(y)) for x, y in zip(self.columns, self.rows, strict=True)]
        return np.array(places, np.int64).reshape(-1, 2)

    @property
    def side(self) -> int:
        """Side of a tile in level-0 px, rounded."""
        return round(side_of(self.window))

    def runs(self) -> Iterator[slice]:
        """Tiles that are read at once: at most 8 of a row, none of them far from the one before."""
        first = 0
        for number in range(1, len(self) + 1):
            if number == len(self) or number - first == RUN or not self._follows(number):
                yield slice(first, number)
                first = number

    def _follows(self, number: int) -> bool:
        gap = self.columns[number] - self.columns[number - 1]
        return bool(self.rows[number] == self.rows[number - 1] and gap <= self.window.pixels)


def grid_of(record: TissueRecord, settings: Features) -> Grid:
    """The tiles of a slide.

    Raises:
        SlideError: it is coarser than the tiles, or has none with enough tissue.
        MidnightError: its mask can't be read.
    """
    if not has_mpp(record.mpp, settings.mpp):
        asked = f"{record.mpp:g} µm/px, tiles have {settings.mpp:g}"
        raise SlideError(f"coarser than the tiles asked for: {asked}; take tiles of {record.mpp:g} or more")
    window = window_of(record, settings.size, settings.mpp)
    if window is None:
        raise SlideError(f"too small for one tile of {settings.size} px at {settings.mpp:g} µm/px")
    step = window.side * (settings.size - settings.overlap) / settings.size
    grid = _with_tissue(mask_view(record), window, step, settings.foreground)
    if not len(grid):
        raise SlideError(
            f"none of its tiles has {settings.foreground:.0%} of tissue; lower that share, or take smaller tiles"
        )
    return grid


def _with_tissue(view: MaskView, window: Window, step: float, foreground: float) -> Grid:
    across, down = _places(window.columns, step), _places(window.rows, step)
    found = [
        (column, row) for row in down for column in across if position_share(view, window, column, row) >= foreground
    ]
    places = np.array(found, np.int64).reshape(-1, 2)
    return Grid(window, places[:, 0], places[:, 1])


def _places(positions: int, step: float) -> list[int]:
    """Every `step`-th of so many positions, each the nearest whole one: errors do not add up."""
    count = int((positions - 1) / step) + 2
    places = [round(number * step) for number in range(count)]
    return [place for place in places if place < positions]
