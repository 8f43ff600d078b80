"""The share of tissue under a tile, exact to fractions of a mask pixel, and the first of many places with enough."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, int64, types

from midnight.outages import Patience
from midnight.tissue.blocks import BLOCK, EMPTY, FULL, BlockMask, to_blocks
from midnight.tissue.index import TissueRecord
from midnight.tissue.mask import Mask, unpack_rows
from midnight.tissue.maskfile import MaskFile, open_masks

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

# Up to so many draws are decided one by one.
FEW = 16
NO_BITS = np.empty((0, BLOCK), np.uint32)
_CODES = types.Array(types.int32, 2, "C", readonly=True)
_BITS = types.Array(types.uint32, 2, "C", readonly=True)
_GRID = types.UniTuple(float64, 3)


@numba.njit(int64(int64), cache=True, nogil=True)
def _ones(word: int) -> int:
    """Number of ones among the lower 32 bits."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    return ((((word + (word >> 4)) & 0x0F0F0F0F) * 0x01010101) & 0xFFFFFFFF) >> 24


@numba.njit(float64(_BITS, int64, types.UniTuple(int64, 4), types.UniTuple(float64, 4)), cache=True, nogil=True)
def _mixed_area(
    bits: Any, code: int, inside: tuple[int, int, int, int], edges: tuple[float, float, float, float]
) -> float:
    """Tissue in rows and columns `inside` (left, right, top, bottom) of a block with bits.

    `edges`: how much of its first and last column and row lies outside.
    """
    left, right, top, bottom = inside
    outer_left, outer_right, outer_top, outer_bottom = edges
    columns = ((int64(1) << (right - left)) - 1) << (BLOCK - right)
    total = 0.0
    for row in range(top, bottom):
        word = int64(bits[code, row]) & columns
        area = float64(_ones(word))
        area -= outer_left * float64((word >> (BLOCK - 1 - left)) & 1)
        area -= outer_right * float64((word >> (BLOCK - right)) & 1)
        weight = 1.0
        if row == top:
            weight -= outer_top
        if row == bottom - 1:
            weight -= outer_bottom
        total += weight * area
    return total


_BOX = types.UniTuple(float64, 4)


@numba.njit(_BOX(_BOX, float64, float64, float64), cache=True, nogil=True)
def _box(mask: Box, x: float, y: float, side: float) -> Box:
    """Left, right, top, bottom in mask px, cut to the mask, of the square at x, y in level-0 px."""
    width, height, scale_x, scale_y = mask
    left, top = min(max(x * scale_x, 0.0), width), min(max(y * scale_y, 0.0), height)
    return left, min((x + side) * scale_x, width), top, min((y + side) * scale_y, height)


@numba.njit(float64(float64, _BOX), cache=True, nogil=True)
def _share_of(area: float, box: Box) -> float:
    """Rounded, so that a share that is just the threshold is not below it by the last bit."""
    whole = (box[1] - box[0]) * (box[3] - box[2])
    return float(np.rint(area / whole * 1e9) / 1e9) if whole > 0 else 0.0


@numba.njit(types.Tuple((float64, float64, int64, int64))(_CODES, _BITS, int64, _BOX), cache=True, nogil=True)
def _areas(codes: Any, bits: Any, offset: int, box: Box) -> tuple[float, float, int, int]:
    """Least and largest area of tissue in a box, and the first and last of the mixed blocks that are not known.

    `bits` are those of the mixed blocks from number `offset` on; an unknown block may be empty or full.
    """
    left, right, top, bottom = box
    x0, x1, y0, y1 = int(left), int(np.ceil(right)), int(top), int(np.ceil(bottom))
    least, unknown = 0.0, 0.0
    first, last = int64(-1), int64(-1)
    for j in range(y0 // BLOCK, min((y1 - 1) // BLOCK + 1, codes.shape[0])):
        upper, lower = max(y0 - j * BLOCK, 0), min(y1 - j * BLOCK, BLOCK)
        outer_top = top - y0 if y0 >= j * BLOCK else 0.0
        outer_bottom = y1 - bottom if y1 <= (j + 1) * BLOCK else 0.0
        for i in range(x0 // BLOCK, min((x1 - 1) // BLOCK + 1, codes.shape[1])):
            code = int64(codes[j, i])
            if code == EMPTY:
                continue
            start, end = max(x0 - i * BLOCK, 0), min(x1 - i * BLOCK, BLOCK)
            outer_left = left - x0 if x0 >= i * BLOCK else 0.0
            outer_right = x1 - right if x1 <= (i + 1) * BLOCK else 0.0
            area = (end - start - outer_left - outer_right) * (lower - upper - outer_top - outer_bottom)
            if code == FULL:
                least += area
            elif offset <= code < offset + bits.shape[0]:
                edges = (outer_left, outer_right, outer_top, outer_bottom)
                least += _mixed_area(bits, code - offset, (start, end, upper, lower), edges)
            else:
                unknown += area
                first, last = code if first < 0 else first, code
    return least, least + unknown, int(first), int(last)


_SCANNED = types.Tuple((int64, int64, int64, int64, int64))


@numba.njit(
    _SCANNED(_CODES, _BITS, _BOX, types.Array(float64, 2, "C", readonly=True), int64, types.UniTuple(int64, 4), _GRID),
    cache=True,
    nogil=True,
)
def _scan(
    codes: Any,
    bits: Any,
    mask: Box,
    draws: Any,
    start: int,
    area: tuple[int, int, int, int],
    grid: tuple[float, float, float],
) -> tuple[int, int, int, int, int]:
    """The first position from draw `start` on whose tile holds enough tissue, or may: see `MaskView.find`.

    Returns:
        Number of the draw (−1: none), column, row; first and last mixed block that decides it, or −1 where it is sure.
    """
    first_column, columns, first_row, rows = area
    step, side, foreground = grid
    for number in range(start, draws.shape[0]):
        column = first_column + min(int(draws[number, 0] * columns), columns - 1)
        row = first_row + min(int(draws[number, 1] * rows), rows - 1)
        box = _box(mask, np.rint(column * step), np.rint(row * step), side)
        least, most, first, last = _areas(codes, bits, 0, box)
        if _share_of(least, box) >= foreground:
            return number, column, row, -1, -1
        if _share_of(most, box) >= foreground:
            return number, column, row, first, last
    return -1, 0, 0, -1, -1


@dataclass(frozen=True)
class MaskView:
    """A slide's mask in blocks, and mask px per level-0 px in x and y."""

    mask: BlockMask
    scale_x: float
    scale_y: float

    def share(self, x: float, y: float, side: float) -> float:
        """Share of tissue, 0 to 1, in the square at x, y with `side`, all in level-0 px, cut to the slide."""
        box = _box(self._place, x, y, side)
        bits = NO_BITS if self.mask.bits is None else self.mask.bits
        area, _, first, last = _areas(self.mask.codes, bits, 0, box)
        if first >= 0:
            area = _areas(self.mask.codes, self.mask.read(first, last - first + 1), first, box)[0]
        return float(_share_of(area, box))

    def find(
        self, draws: Floats, area: tuple[int, int, int, int], step: float, side: float, foreground: float, most: int
    ) -> list[tuple[int, int]]:
        """The first `most` of the positions that `draws` stand for whose tile holds enough tissue.

        Of a few draws each is decided by the bits below it where it lies on the edge of tissue; for many, all bits
        are read at once.

        Args:
            draws: uniform numbers in [0, 1), float64 [n, 2]: where in the area, across and down.
            area: first column, columns, first row, rows: positions of a grid.
            step: level-0 px from one position to the next.
            side: side of a tile, level-0 px.
            foreground: least share of tissue.
            most: positions wanted.

        Returns:
            Columns and rows, in the order drawn.
        """
        mask, place, grid = self.mask, self._place, (step, side, foreground)
        bits = mask.whole() if len(draws) > FEW else NO_BITS if mask.bits is None else mask.bits
        found: list[tuple[int, int]] = []
        number = -1
        while len(found) < most:
            number, column, row, first, _ = _scan(mask.codes, bits, place, draws, number + 1, area, grid)
            if number < 0:
                break
            if first < 0 or self.share(round(column * step), round(row * step), side) >= foreground:
                found.append((column, row))
        return found

    @property
    def _place(self) -> Box:
        return float(self.mask.width), float(self.mask.height), self.scale_x, self.scale_y

    def unpack(self) -> Mask:
        """The bool mask [height, width]."""
        return self.mask.unpack()


def mask_view(record: TissueRecord, file: MaskFile | None = None) -> MaskView:
    """The mask of a record, from the masks beside its index, or else from the record itself."""
    width, height = record.mask_width, record.mask_height
    if file is not None:
        mask = file.get(record.row, width, height)
    else:
        mask = to_blocks(unpack_rows(record.packed_mask(), width, height), width, height)
    return MaskView(mask, width / record.width, height / record.height)


class MaskCache:
    """The masks of many slides, of which the last `size` used are kept: some 10–100 KB each.

    So an index of 12,000 slides costs no more memory than one of 12; and little more time, since a mask that is
    not at hand is read in a few µs.
    """

    def __init__(self, size: int = 64, patience: Patience | None = None) -> None:
        self._size = size
        self._patience = patience
        self._views: OrderedDict[tuple[str, str], MaskView] = OrderedDict()
        self._files: dict[str, MaskFile] = {}

    def prepare(self, index: str) -> None:
        """Open the masks of an index (see `open_masks`, also for errors); "" are records without an index."""
        if index and index not in self._files:
            self._files[index] = open_masks(index, self._patience)

    def get(self, record: TissueRecord) -> MaskView:
        """The mask of a record."""
        name = record.index, record.slide_id
        if name not in self._views:
            self.prepare(record.index)
            while len(self._views) >= self._size:
                self._views.popitem(last=False)
            self._views[name] = mask_view(record, self._files.get(record.index))
        self._views.move_to_end(name)
        return self._views[name]
