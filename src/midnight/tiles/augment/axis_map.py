"""The map of one axis of `midnight.tiles.augment.resample`: resizing and blurring as one small matrix.

Weights are those of Pillow's antialiased bicubic filter (a = −0.5, stretched where the image shrinks), followed by a
Gaussian of at most 9 taps with mirrored borders.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numba
import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]

BLUR_RADIUS = 4
# Pixels are held as level · 2⁷ and weights, which at an edge exceed 1, as weight · 2¹⁴; the upper half of their product
# is level · weight · 2⁵, rounded down.


@numba.njit(cache=True, nogil=True)
def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return ((-0.5 * x + 2.5) * x - 4) * x + 2
    return 0.0


@numba.njit(cache=True, nogil=True)
def _four(t: float, out: Weights) -> None:
    """The filter's values at −1 − t, −t, 1 − t, 2 − t: what a row needs that neither shrinks nor is at the edge."""
    out[0] = ((-0.5 * t + 1) * t - 0.5) * t
    out[1] = (1.5 * t - 2.5) * t * t + 1
    out[2] = ((-1.5 * t + 2) * t + 0.5) * t
    out[3] = (0.5 * t - 0.5) * t * t


@numba.njit(cache=True, nogil=True)
def _resize_weights(extent: int, size: int) -> tuple[npt.NDArray[np.int64], Weights]:
    """First source row [size] and weights [size, taps] of the antialiased bicubic filter from `extent` to `size` px."""
    scale = extent / size
    stretch = max(scale, 1.0)
    first = np.zeros(size, np.int64)
    weights = np.zeros((size, math.ceil(4 * stretch)), np.float64)
    shrink = 1 / stretch
    for i in range(size):
        centre = (i + 0.5) * scale
        start = max(0, math.floor(centre - 2 * stretch + 0.5))
        if stretch == 1 and 1.5 <= centre < extent - 1.5:
            first[i] = start
            _four(centre - 0.5 - math.floor(centre - 0.5), weights[i])
            continue
        stop = min(extent, math.floor(centre + 2 * stretch + 0.5))
        first[i] = start
        total = 0.0
        for k in range(stop - start):
            weights[i, k] = _cubic((start + k + 0.5 - centre) * shrink)
            total += weights[i, k]
        for k in range(stop - start):
            weights[i, k] *= 1 / total
    return first, weights


@numba.njit(cache=True, nogil=True)
def _mirror(i: int, size: int) -> int:
    while i < 0 or i >= size:
        i = -i if i < 0 else 2 * (size - 1) - i
        if size == 1:
            return 0
    return i


@numba.njit(cache=True, nogil=True)
def _blurred(
    first: npt.NDArray[np.int64], weights: Weights, scale: float, sigma: float
) -> tuple[npt.NDArray[np.int64], Weights]:
    """The weights of resizing followed by a Gaussian of `sigma` output px, cut at 3 sigma and at 4 px."""
    size, taps = weights.shape
    radius = min(BLUR_RADIUS, math.ceil(3 * sigma))
    wide = np.zeros((size, taps + math.ceil(2 * radius * scale) + 1), np.float64)
    starts = np.zeros(size, np.int64)
    gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    gauss /= gauss.sum()
    for i in range(size):
        starts[i] = first[max(i - radius, 0)]
        for j in range(-radius, radius + 1):
            row = _mirror(i + j, size)
            shift = first[row] - starts[i]
            for k in range(taps):
                wide[i, shift + k] += gauss[j + radius] * weights[row, k]
    return starts, wide


@numba.njit(cache=True, nogil=True)
def axis_weights(extent: int, size: int, sigma: float) -> tuple[npt.NDArray[np.int64], Weights]:
    """The map of one axis.

    Args:
        extent: px of the cropped source.
        size: px of the output.
        sigma: of the Gaussian blur in output px, 0 = none.

    Returns:
        First source row of each output row, int64 [size], and its weights, float64 [size, taps], each row's sum 1.
        Taps beyond the source have weight 0.
    """
    first, weights = _resize_weights(extent, size)
    if sigma > 0:
        return _blurred(first, weights, extent / size, sigma)
    return first, weights


@dataclass(frozen=True)
class AxisMap:
    """`axis_weights` in integers.

    first: int32 [size], first source row of each output row.
    used: int16 [size], taps up to the last that is not 0.
    start: int16 [size], what each sum starts from: half a level, and half a step for each rounded product.
    weights: int16 [size, taps], weight · 2¹⁴, with a multiple of 4 taps.
    """

    first: npt.NDArray[np.int32]
    used: npt.NDArray[np.int16]
    start: npt.NDArray[np.int16]
    weights: npt.NDArray[np.int16]

    @cached_property
    def address(self) -> tuple[int, ...]:
        """Where the arrays are, and the taps: for `_views.c`."""
        arrays = (self.first, self.used, self.start, self.weights)
        return (*(array.ctypes.data for array in arrays), self.weights.shape[1])


@numba.njit(cache=True, nogil=True)
def _quantised(first, weights):  # type: ignore[no-untyped-def]
    size, taps = weights.shape
    out = np.zeros((size, (taps + 3) // 4 * 4), np.int16)
    used, start = np.zeros(size, np.int16), np.zeros(size, np.int16)
    for i in range(size):
        count = 0
        for k in range(taps):
            out[i, k] = math.floor(weights[i, k] * 16384 + 0.5)
            if out[i, k] != 0:
                count += 1
                used[i] = k + 1
        start[i] = 16 + count // 2
    return first.astype(np.int32), used, start, out


def axis_map(extent: int, size: int, sigma: float) -> AxisMap:
    """The map of one axis; see `axis_weights`. Those without blur are kept."""
    return blurred_map(extent, size, sigma) if sigma > 0 else sharp_map(extent, size)


def blurred_map(extent: int, size: int, sigma: float) -> AxisMap:
    """`axis_map`, made anew."""
    return AxisMap(*_quantised(*axis_weights(extent, size, sigma)))


@cache  # whose arrays' addresses are kept, too
def sharp_map(extent: int, size: int) -> AxisMap:
    """`axis_map` without blur, made once."""
    return blurred_map(extent, size, 0.0)
