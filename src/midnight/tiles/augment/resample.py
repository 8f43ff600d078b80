"""Crop, resize, flip and blur as one separable linear map of a tile, in 16-bit integers.

Each output row of a resized image is a weighted sum of a few source rows, and so is each row of a blurred one. So
crop + resize + flip + blur is one small matrix per axis: this module makes its weights and applies it. The weights are
those of Pillow's antialiased bicubic filter (a = −0.5, stretched where the image shrinks), which is what torchvision's
RandomResizedCrop and so DINOv2 use, followed by a Gaussian of at most 9 taps with mirrored borders.

Why this filter: of a sinusoid of 0.2 cycles/px it keeps 0.89 where 147 px become 98 (OpenCV's cubic 1.01, linear 0.86,
area 0.83) and 0.95-0.98 where 256 become 224 or 60 become 98 (linear 0.87, area 0.86-0.93). Of one of 0.45 cycles/px,
too fine for 98 px, 0.15 is left as an alias (cubic 0.71, linear 0.52, area 0.36).

Weighted sums of whole rows are what vector units do best: 32 products at a time. Hence both axes are done as sums of
rows, with a transposition in between.

Numba's cache of a kernel knows the kernel's own file only, so all that call each other are in this one.
"""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt

from midnight import native
from midnight.tiles.augment.axis_map import AxisMap, Weights, axis_map, blurred_map, sharp_map


@numba.njit(cache=True, nogil=True)
def widen(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """An image uint8 [h, w, 3], contiguous, as level · 2⁷: int16 [h, padded(3·w)], undefined beyond 3·w."""
    height, width = image.shape[0], 3 * image.shape[1]
    out = np.empty((height, padded(width)), np.int16)
    flat = image.reshape(height, width)
    for y in range(height):
        row, wide = flat[y], out[y]
        for i in range(width):
            wide[i] = np.int16(row[i]) << 7
    return out


@numba.njit(cache=True, nogil=True)
def widen_turned(image, width):  # type: ignore[no-untyped-def]
    """The transposed image as level · 2⁷: of uint8 [h, ≥ 3·w] int16 [w, padded(3·h)]."""
    height = image.shape[0]
    out = np.empty((width, padded(3 * height)), np.int16)
    for x in range(np.uint64(width)):
        for y in range(np.uint64(height)):
            i, j = np.uint64(3) * x, np.uint64(3) * y
            out[x, j] = np.int16(image[y, i]) << 7
            out[x, j + np.uint64(1)] = np.int16(image[y, i + np.uint64(1)]) << 7
            out[x, j + np.uint64(2)] = np.int16(image[y, i + np.uint64(2)]) << 7
    return out


@numba.njit(cache=True, nogil=True)
def padded(n: int) -> int:
    """`n` and at least 64 more, a multiple of 64: loops over whole blocks of 64 have no slow remainder."""
    return (n + 127) // 64 * 64


# The loops over a row index whole arrays by unsigned numbers: views of rows cost reference counts, and signed indices
# a test for "from the end", either of which is as dear as the row itself.
@numba.njit(cache=True, nogil=True)
def _set4(acc, source, left, r, w, start):  # type: ignore[no-untyped-def]
    ra, rb, rc, rd = r
    wa, wb, wc, wd = np.int32(w[0]), np.int32(w[1]), np.int32(w[2]), np.int32(w[3])
    for i in range(np.uint64(acc.size)):
        j = left + i
        total = np.int16(start + np.int16((np.int32(source[ra, j]) * wa) >> 16))
        total = np.int16(total + np.int16((np.int32(source[rb, j]) * wb) >> 16))
        total = np.int16(total + np.int16((np.int32(source[rc, j]) * wc) >> 16))
        acc[i] = np.int16(total + np.int16((np.int32(source[rd, j]) * wd) >> 16))


@numba.njit(cache=True, nogil=True)
def _add2(acc, source, left, ra, rb, wa, wb):  # type: ignore[no-untyped-def]
    for i in range(np.uint64(acc.size)):
        j = left + i
        total = np.int16(acc[i] + np.int16((np.int32(source[ra, j]) * np.int32(wa)) >> 16))
        acc[i] = np.int16(total + np.int16((np.int32(source[rb, j]) * np.int32(wb)) >> 16))


@numba.njit(cache=True, nogil=True)
def _narrow(acc, out, row):  # type: ignore[no-untyped-def]
    n, block = np.uint64(out.shape[1]), np.uint64(64)
    for i in range(n if n < block else n - n % block):
        out[row, i] = np.uint8(min(np.int16(255), max(np.int16(0), np.int16(acc[i] >> 5))))
    if n > block:
        for k in range(block):  # the last whole block, of which some is done already
            i = n - block + k
            out[row, i] = np.uint8(min(np.int16(255), max(np.int16(0), np.int16(acc[i] >> 5))))


def combine_rows(
    source: npt.NDArray[np.int16], left: int, rows: AxisMap, flip: bool, out: npt.NDArray[np.uint8]
) -> None:
    """Write weighted sums of rows of `source`, rounded and clipped; within 0.8 levels of the exact sums
    where a side shrinks at most 8-fold.

    Args:
        source: what `widen` makes, int16 [extent, n], rows from the crop's first on.
        left: the crop's first column · 3.
        rows: the map from `extent` to the output.
        flip: write the rows in reverse order.
        out: uint8 [size, 3·width of the crop].
    """
    _combine(source, left, rows.first, rows.start, rows.weights, flip, out)


@numba.njit(cache=True, nogil=True)
def _combine(source, left, first, start, weights, flip, out):  # type: ignore[no-untyped-def]
    size, last = first.size, source.shape[0] - 1
    acc = np.empty((out.shape[1] + 63) // 64 * 64, np.int16)
    column = np.uint64(left)
    for i in range(size):
        w, r = weights[i], np.int64(first[i])
        rows = (np.uint64(r), np.uint64(min(r + 1, last)), np.uint64(min(r + 2, last)), np.uint64(min(r + 3, last)))
        _set4(acc, source, column, rows, w, start[i])
        for k in range(4, w.size, 2):
            a, b = np.uint64(min(r + k, last)), np.uint64(min(r + k + 1, last))
            _add2(acc, source, column, a, b, w[k], w[k + 1])
        _narrow(acc, out, np.uint64(size - 1 - i if flip else i))


@numba.njit(cache=True, nogil=True)
def _mean(image, mean):  # type: ignore[no-untyped-def]
    """The mean colour of an image [h, 3·w], by columns first, since that is a sum of whole rows."""
    columns = np.zeros(image.shape[1], np.int32)
    for y in range(image.shape[0]):
        row = image[y]
        for i in range(columns.size):
            columns[i] = np.int32(columns[i] + np.int32(row[i]))
    for i in range(columns.size):
        mean[i % 3] += columns[i]
    mean /= image.size / 3


@dataclass(frozen=True)
class Views:
    """Views of one size: what to cut out, how to turn and blur it, and where to write it.

    boxes: int64 [V, 4], top, left, height, width in px of the tile.
    turned: bool [V, 3], first transposed, then flipped top to bottom, then flipped left to right.
    sigma: float64 [V], of the blur in output px, 0 = none.
    out: uint8 [V, size, size, 3], contiguous.
    """

    boxes: npt.NDArray[np.int64]
    turned: npt.NDArray[np.bool_]
    sigma: Weights
    out: npt.NDArray[np.uint8]


def render(tile: npt.NDArray[np.uint8], kinds: Sequence[Views], compiled: bool = True) -> None:
    """Write the cropped, resized, blurred and oriented views of a tile.

    What becomes the columns of the output is resized first, as rows; so a view that is to be transposed starts from
    the tile, any other one from the transposed tile.

    Args:
        tile: RGB uint8 [h, w, 3], contiguous.
        kinds: the views, by size.
        compiled: by `_views.c` where it was built; else, or if False, by numba, with the same pixels.
    """
    found = native.library() if compiled else None
    if found:
        _render_compiled(found, tile, kinds)
    else:
        wide, wide_turned = widen(tile), widen(np.ascontiguousarray(tile.transpose(1, 0, 2)))
        for kind in kinds:
            _render_portable(wide, wide_turned, kind, _maps(kind))


def _maps(kind: Views) -> list[tuple[AxisMap, AxisMap]]:
    """Of each view: the map of what becomes its columns, and of what becomes its rows."""
    size, out = kind.out.shape[1], []
    for (_, _, height, width), turned, sigma in zip(
        kind.boxes.tolist(), kind.turned[:, 0].tolist(), kind.sigma.tolist(), strict=True
    ):
        first, second = (height, width) if turned else (width, height)
        out.append((axis_map(first, size, sigma), axis_map(second, size, sigma)))
    return out


# Fields of a `Call` in `_views.c`.
_CALL = 12
_TAPS, _LARGEST, _ROOM = 4, 5, 11


class _Room(threading.local):
    """Work space of a thread, kept from tile to tile: fresh memory would have to be cleared by the system."""

    def __init__(self) -> None:
        self._bytes, self._address = np.empty(0, np.uint8), 0

    def of(self, size: int) -> int:
        """The address of `size` bytes."""
        if self._bytes.size < size:
            self._bytes = np.empty(size, np.uint8)
            self._address = self._bytes.ctypes.data
        return self._address


_room = _Room()


def _render_compiled(found: ctypes.CDLL, tile: npt.NDArray[np.uint8], kinds: Sequence[Views]) -> None:
    calls = np.empty((len(kinds), _CALL), np.int64)
    kept = [_set_call(call, tile, kind) for call, kind in zip(calls, kinds, strict=True)]
    calls[:, _TAPS] = max(taps for taps, *_ in kept)
    calls[:, _LARGEST] = max(kind.out.shape[1] for kind in kinds)
    address = calls.ctypes.data
    calls[:, _ROOM] = _room.of(found.midnight_views_room(address))
    found.midnight_views(address, len(kinds))


def _set_call(
    call: npt.NDArray[np.int64], tile: npt.NDArray[np.uint8], kind: Views
) -> tuple[int, npt.NDArray[np.int64], list[AxisMap]]:
    """Describe views of one size; the most taps of a map, and what has to be kept until they were rendered."""
    size, (height, width, _) = kind.out.shape[1], tile.shape
    sharp = _sharp_addresses(size, max(height, width) + 1)
    maps = np.empty((len(kind.boxes), 2, 5), np.int64)
    taps, blurred = _fill(call, tile, kind.boxes, kind.turned, kind.sigma, sharp, maps, kind.out)
    if taps < 0:
        for extent in kind.boxes[:, 2:].ravel().tolist():
            sharp[extent] = sharp_map(extent, size).address
        taps, blurred = _fill(call, tile, kind.boxes, kind.turned, kind.sigma, sharp, maps, kind.out)
    kept: list[AxisMap] = []
    for v in np.flatnonzero(kind.sigma > 0) if blurred else ():
        extents = kind.boxes[v, 2:] if kind.turned[v, 0] else kind.boxes[v, :1:-1]
        pair = [blurred_map(extent, size, float(kind.sigma[v])) for extent in extents.tolist()]
        maps[v] = [one.address for one in pair]
        kept += pair
    return max([taps, *(one.weights.shape[1] for one in kept)]), maps, kept


@numba.njit(cache=True, nogil=True)
def _fill(call, tile, boxes, turned, sigma, sharp, maps, out):  # type: ignore[no-untyped-def]
    """Fill in a call and its maps without blur; the most taps, or −1 if a map was not made yet, and whether any has."""
    call[0], call[1], call[2], call[3] = tile.shape[0], tile.shape[1], out.shape[0], out.shape[1]
    call[6], call[7], call[8] = tile.ctypes.data, boxes.ctypes.data, turned.ctypes.data
    call[9], call[10] = maps.ctypes.data, out.ctypes.data
    taps, blurred = np.int64(0), False
    for v in range(len(boxes)):
        blurred |= sigma[v] > 0
        for axis in range(2):
            row = sharp[boxes[v, 2 + axis if turned[v, 0] else 3 - axis]]
            if row[4] == 0:
                return np.int64(-1), False
            maps[v, axis] = row
            taps = max(taps, row[4])
    return taps, blurred


@lru_cache(maxsize=64)
def _sharp_addresses(size: int, extents: int) -> npt.NDArray[np.int64]:
    """Addresses of the maps without blur by extent, int64 [extents, 5]; 0 where one was not made yet."""
    return np.zeros((extents, 5), np.int64)


def _render_portable(
    wide: npt.NDArray[np.int16],
    wide_turned: npt.NDArray[np.int16],
    kind: Views,
    pairs: Sequence[tuple[AxisMap, AxisMap]],
) -> None:
    size = kind.out.shape[1]
    # An odd number of cache lines, so that a column's pixels don't all fall in the same few lines of the cache.
    half = np.empty((size, int(3 * kind.boxes[:, 2:].max() + 63) // 128 * 128 + 192), np.uint8)
    for box, (turned, bottom_up, right_left), (first, second), out in zip(
        kind.boxes.tolist(), kind.turned.tolist(), pairs, kind.out, strict=True
    ):
        top, left, height, width = box if turned else (box[1], box[0], box[3], box[2])
        source = (wide if turned else wide_turned)[top : top + height]
        combine_rows(source, 3 * left, first, right_left, half[:, : 3 * width])
        combine_rows(widen_turned(half, width), 0, second, bottom_up, out.reshape(size, 3 * size))


@numba.njit(cache=True, nogil=True)
def mean_colours(images, wanted):  # type: ignore[no-untyped-def]
    """Mean colours float64 [V, 3] of those images uint8 [V, h, w, 3] that are wanted, bool [V], 0 for others."""
    means = np.zeros((len(images), 3))
    for v in np.flatnonzero(wanted):
        _mean(images[v].reshape(images.shape[1], -1), means[v])
    return means
