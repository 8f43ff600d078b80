"""The share of tissue under a tile, exact to fractions of a mask pixel."""

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from midnight.tissue.index import TissueRecord
from midnight.tissue.mask import crop, unpack_rows

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MaskView:
    """A slide's packed mask, and mask px per level-0 px in x and y."""

    rows: npt.NDArray[np.uint8]
    width: int
    height: int
    scale_x: float
    scale_y: float

    def share(self, x: float, y: float, side: float) -> float:
        """Share of tissue, 0 to 1, in the square at x, y with `side`, all in level-0 px, cut to the slide."""
        left, right, across = _weights(x * self.scale_x, (x + side) * self.scale_x, self.width)
        top, bottom, down = _weights(y * self.scale_y, (y + side) * self.scale_y, self.height)
        bits = crop(self.rows, left, top, right, bottom)
        # Rounded, so that a share that is just the threshold is not below it by the last bit.
        return round(float(down @ bits @ across) / float(down.sum() * across.sum()), 9)


def _weights(start: float, end: float, size: int) -> tuple[int, int, Floats]:
    """First and last + 1 mask pixel between two fractional coordinates, and how much of each lies between."""
    end = min(end, float(size))
    first, last = int(start), math.ceil(end)
    weights = np.ones(last - first)
    weights[0] -= start - first
    weights[-1] -= last - end
    return first, last, weights


def mask_view(record: TissueRecord) -> MaskView:
    """The mask of a record, still packed."""
    rows = unpack_rows(record.packed_mask(), record.mask_width, record.mask_height)
    scales = record.mask_width / record.width, record.mask_height / record.height
    return MaskView(rows, record.mask_width, record.mask_height, *scales)


class MaskCache:
    """The last `size` masks that were used: an index of 12,000 slides costs no more memory than one of 12."""

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._views: OrderedDict[str, MaskView] = OrderedDict()

    def get(self, record: TissueRecord) -> MaskView:
        """The mask of a record, read from the index when it is not at hand."""
        name = f"{record.index}:{record.slide_id}"
        if name not in self._views:
            while len(self._views) >= self._size:
                self._views.popitem(last=False)
            self._views[name] = mask_view(record)
        self._views.move_to_end(name)
        return self._views[name]
