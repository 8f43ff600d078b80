"""What is random about the multi-crop views of DINOv2: boxes, orientations, blur and colour, drawn apart from pixels.

The CPU path (crops) and the device path (device) apply the same draws, so one sample has the same views on both.
"""

import functools
import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from midnight.config.recipe import Crops
from midnight.tiles.augment import colour_jitter

Array = npt.NDArray[np.float64]

RATIO = (3 / 4, 4 / 3)
BLUR_SIGMA = (0.1, 2.0)
ATTEMPTS = 10
# Columns of a view's uniform numbers: box attempts, position, orientation, chances (of blur, solarize, jitter, grey),
# jitter, sigma.
_POSITION = 2 * ATTEMPTS
_ORIENTATION = _POSITION + 2
_CHANCES = _ORIENTATION + 3
_JITTER = _CHANCES + 4
_SIGMA = _JITTER + 4
_NUMBERS = _SIGMA + 1


@dataclass(frozen=True)
class View:
    """How one kind of crop is made: side in px, range of the area's share, probabilities of blur and solarize."""

    size: int
    scale: tuple[float, float]
    blur: float
    solarize: float


@dataclass(frozen=True)
class Draws:
    """The drawn views of one tile, the two global ones first, V in all; or, stacked, of B tiles with a leading B.

    boxes: int64 [V, 4], top, left, height, width in px of the tile.
    turned: bool [V, 3]: first transposed, then flipped top to bottom, then flipped left to right.
    sigma: float64 [V], of the Gaussian blur in px of the crop, 0 = none.
    colour: float64 [V, 3, 6], see `colour`.
    coloured: bool [V], whether `colour` is anything but the identity.
    solarized: bool [V].
    """

    boxes: npt.NDArray[np.int64]
    turned: npt.NDArray[np.bool_]
    sigma: Array
    colour: Array
    coloured: npt.NDArray[np.bool_]
    solarized: npt.NDArray[np.bool_]


def views(crops: Crops) -> tuple[list[View], list[View]]:
    """The global and the local views; DINOv2 solarizes only the second global, and blurs it and the locals."""
    first, second, local = crops.blur_p
    return (
        [
            View(crops.global_size, crops.global_scale, first, 0.0),
            View(crops.global_size, crops.global_scale, second, crops.solarize_p),
        ],
        [View(crops.local_size, crops.local_scale, local, 0.0)] * crops.n_local,
    )


@numba.njit(cache=True, nogil=True)
def draw_box(uniform: Array, height: int, width: int, low: float, high: float) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) in px with an area share in `low`–`high` and a side ratio in 3/4–4/3.

    Ten attempts to fit inside, then the largest central box with an allowed ratio.

    Args:
        uniform: 22 numbers in [0, 1): area and ratio of each attempt, position.
        height: of the tile, px.
        width: of the tile, px.
        low: least share of the area.
        high: largest share of the area.
    """
    for attempt in range(ATTEMPTS):
        area = height * width * (low + (high - low) * uniform[2 * attempt])
        ratio = math.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * uniform[2 * attempt + 1])
        w, h = int(math.sqrt(area * ratio) + 0.5), int(math.sqrt(area / ratio) + 0.5)
        if 0 < w <= width and 0 < h <= height:
            return int(uniform[_POSITION] * (height - h + 1)), int(uniform[_POSITION + 1] * (width - w + 1)), h, w
    w, h = min(width, int(height * RATIO[1] + 0.5)), min(height, int(width / RATIO[0] + 0.5))
    return (height - h) // 2, (width - w) // 2, h, w


@numba.njit(cache=True, nogil=True)
def draw_orientation(uniform: Array, flips: bool, rotations: bool) -> tuple[bool, bool, bool]:
    """Flips along both axes with probability ½ each, then a turn by a random multiple of 90°.

    Args:
        uniform: three numbers in [0, 1).
        flips: whether to flip.
        rotations: whether to turn.

    Returns:
        Whether to transpose, then to flip top to bottom, then to flip left to right.
    """
    vertical, horizontal = flips and uniform[0] < 0.5, flips and uniform[1] < 0.5
    quarter = int(4 * uniform[2]) if rotations else 0
    if quarter % 2:
        vertical, horizontal = horizontal, vertical
    # A quarter turn to the left is a transposition and a flip top to bottom, half a turn is both flips.
    return quarter % 2 == 1, vertical != (quarter in (1, 2)), horizontal != (quarter in (2, 3))


@numba.njit(cache=True, nogil=True)
def _geometry(uniform, height, width, kinds, flips, rotations, boxes, turned, sigma):  # type: ignore[no-untyped-def]
    for v in range(len(uniform)):
        u = uniform[v]
        boxes[v] = draw_box(u, height, width, kinds[v, 0], kinds[v, 1])
        turned[v] = draw_orientation(u[_ORIENTATION:], flips, rotations)
        blurred = u[_CHANCES] < kinds[v, 2]
        sigma[v] = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * u[_SIGMA] if blurred else 0.0


@functools.lru_cache(maxsize=16)
def _kinds(crops: Crops) -> Array:
    whole, local = views(crops)
    return np.array([[*view.scale, view.blur, view.solarize] for view in whole + local])


def draw_views(rng: np.random.Generator, crops: Crops, height: int, width: int) -> Draws:
    """Everything random about the views of one tile.

    Args:
        rng: always the same count of numbers is drawn, at once.
        crops: sizes, scales, probabilities.
        height: of the tile, px.
        width: of the tile, px.
    """
    kinds = _kinds(crops)
    uniform = rng.random((len(kinds), _NUMBERS))
    boxes, turned = np.empty((len(kinds), 4), np.int64), np.empty((len(kinds), 3), np.bool_)
    sigma = np.empty(len(kinds))
    _geometry(uniform, height, width, kinds, crops.flips, crops.rotations, boxes, turned, sigma)
    jittered = uniform[:, _CHANCES + 2] < crops.jitter_p
    grey = uniform[:, _CHANCES + 3] < crops.grayscale_p
    maps = colour_jitter.colour_maps(uniform[:, _JITTER:_SIGMA], np.array(crops.jitter, np.float64), jittered, grey)
    return Draws(boxes, turned, sigma, maps, jittered | grey, uniform[:, _CHANCES + 1] < kinds[:, 3])
