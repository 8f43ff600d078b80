"""Tissue masks in blocks of 32 × 32 px, summed without unpacking.

Most blocks lie wholly on glass or wholly on tissue and are one code; only those on an edge keep their bits. The codes
of a slide of 3,000 × 2,500 mask px are 30 KB, and what a tile lies on is a handful of blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from midnight.tissue.mask import Mask

BLOCK = 32
EMPTY, FULL = -1, -2
_ONES = np.uint32(0xFFFFFFFF)


Codes = npt.NDArray[np.int32]
Bits = npt.NDArray[np.uint32]


@dataclass
class BlockMask:
    """A mask of `width` × `height` px.

    codes: int32 [ceil(height / 32), ceil(width / 32)]: EMPTY, FULL or a number of a mixed block, counted row by row.
    mixed: how many of those there are.
    read: gives the rows of mixed blocks, by number of the first and their count: uint32 [count, 32], the leftmost
        pixel in the highest bit.
    bits: those of all, once they have been read.
    """

    codes: Codes
    width: int
    height: int
    mixed: int
    read: Callable[[int, int], Bits]
    bits: Bits | None = None

    def whole(self) -> Bits:
        """The rows of all mixed blocks, uint32 [mixed, 32]; kept from then on."""
        if self.bits is None:
            self.bits = self.read(0, self.mixed)
        return self.bits

    def unpack(self) -> Mask:
        """The bool mask [height, width]."""
        blocks = np.zeros((*self.codes.shape, BLOCK), np.uint32)
        blocks[self.codes == FULL] = _ONES
        blocks[self.codes >= 0] = self.read(0, self.mixed)
        rows = blocks.transpose(0, 2, 1).astype(">u4", order="C").view(np.uint8)
        bits = np.unpackbits(rows.reshape(blocks.shape[0] * BLOCK, -1), axis=1, count=self.width)
        return bits[: self.height].view(bool)


def to_blocks(rows: npt.NDArray[np.uint8], width: int, height: int) -> BlockMask:
    """A mask given as packed rows, uint8 [height, ceil(width / 8)] (see `midnight.tissue.mask.unpack_rows`)."""
    down, across = grid(width, height)
    padded = np.zeros((down * BLOCK, across * BLOCK // 8), np.uint8)
    padded[:height, : rows.shape[1]] = rows
    words = padded.view(">u4").astype(np.uint32).reshape(down, BLOCK, across).transpose(0, 2, 1)
    codes = np.where(words.any(2), 0, EMPTY).astype(np.int32)
    codes[(words == _ONES).all(2)] = FULL
    mixed = codes == 0
    codes[mixed] = np.arange(np.count_nonzero(mixed), dtype=np.int32)
    bits = np.ascontiguousarray(words[mixed])
    return BlockMask(codes, width, height, len(bits), lambda first, count: bits[first : first + count], bits)


def grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of blocks that cover a mask."""
    return -(-height // BLOCK), -(-width // BLOCK)
