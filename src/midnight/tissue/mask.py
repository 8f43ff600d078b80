"""Masks as bytes: one bit per pixel, compressed, small enough to keep one for each of 12,000 slides in a file."""

import zlib

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def pack(mask: Mask) -> bytes:
    """A bool mask [h, w] as compressed bits; each row starts on a whole byte."""
    return zlib.compress(np.packbits(mask, axis=1).tobytes(), 6)


def unpack_rows(packed: bytes, width: int, height: int) -> npt.NDArray[np.uint8]:
    """The packed rows, uint8 [height, ceil(width / 8)]: what `crop` reads without unpacking all of it."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, (width + 7) // 8)


def unpack(packed: bytes, width: int, height: int) -> Mask:
    """The bool mask [height, width] that `pack` was given."""
    return np.unpackbits(unpack_rows(packed, width, height), axis=1, count=width).view(bool)


def crop(rows: npt.NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.uint8]:
    """Rows top…bottom, columns left…right of packed rows, uint8 of 0 and 1; both ends within the mask."""
    first = left // 8
    bits = np.unpackbits(rows[top:bottom, first : (right + 7) // 8], axis=1)
    return bits[:, left - 8 * first : right - 8 * first]


def integral(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Sums over everything above and left, float64 [h + 1, w + 1]."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(0, dtype=np.int64).cumsum(1)
    return sums
