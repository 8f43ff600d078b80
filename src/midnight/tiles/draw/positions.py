"""Uniform positions among all those of a level's grid whose tile holds enough tissue.

Mostly a few random positions suffice: the first with enough tissue is uniform over the valid ones. A try costs
about 0.2 µs, so thousands are made before the valid positions are found by halving: a block of positions is dropped
when even the union of its tiles holds too little tissue, and taken whole when what all of its tiles share is enough;
others are split in four. That takes 0.1 s on a large slide, and is needed only where less than about one position in
a thousand is valid. Both ways draw from the same distribution, so which one is taken does not matter.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from midnight.tiles.draw.foreground import MaskView
from midnight.tiles.read.reader import Window
from midnight.tissue.mask import integral

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Positions tried in one go, one round after the other.
ROUNDS = (16, 240, 3840)
BLOCK_TRIES = 2000
MAX_BLOCKS = 100_000


def step_of(window: Window) -> float:
    """Level-0 px from one position of the window's grid to the next."""
    return window.downsample


def side_of(window: Window) -> float:
    """Side of the window's tiles in level-0 px."""
    return window.side * step_of(window)


def position_share(view: MaskView, window: Window, column: int, row: int) -> float:
    """Share of tissue in the tile at a position of the window's grid."""
    return view.share(*window.origin(column, row), side_of(window))


def random_position(rng: np.random.Generator, window: Window) -> tuple[int, int]:
    """Column and row, uniform over all positions."""
    return int(rng.integers(window.columns)), int(rng.integers(window.rows))


def try_positions(
    rng: np.random.Generator, view: MaskView, window: Window, foreground: float
) -> tuple[int, int] | None:
    """A position, uniform over the valid ones; None if none of some thousand random ones is valid.

    How many numbers are drawn of `rng` depends only on the mask.
    """
    step, side = step_of(window), side_of(window)
    area = (0, window.columns, 0, window.rows)
    for tries in ROUNDS:
        found = view.find(rng.random((tries, 2)), area, step, side, foreground, 1)
        if found:
            return found[0]
    return None


@dataclass(frozen=True)
class Blocks:
    """Blocks of positions, int64 [n, 4]: first and last column, first and last row; the first `sure` are valid."""

    bounds: Ints
    sure: int

    @property
    def counts(self) -> Ints:
        """Positions in each block."""
        return _counts(self.bounds)


def _counts(bounds: Ints) -> Ints:
    return (bounds[:, 1] - bounds[:, 0] + 1) * (bounds[:, 3] - bounds[:, 2] + 1)


class Finder:
    """Sums of a mask over rectangles given in level-0 px."""

    def __init__(self, view: MaskView) -> None:
        self._sums = integral(view.unpack())
        self._scale = view.scale_x, view.scale_y

    def area(self, left: Floats, right: Floats, top: Floats, bottom: Floats) -> Floats:
        """Tissue in mask px² between the edges; 0 where right ≤ left or bottom ≤ top."""
        right, bottom = np.maximum(left, right), np.maximum(top, bottom)
        return self._at(right, bottom) - self._at(left, bottom) - self._at(right, top) + self._at(left, top)

    def _at(self, x: Floats, y: Floats) -> Floats:
        """The integral between mask pixels: bilinear, which is exact since a pixel is one value."""
        height, width = self._sums.shape
        x, y = np.clip(x * self._scale[0], 0, width - 1), np.clip(y * self._scale[1], 0, height - 1)
        i, j = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
        u, v = x - i, y - j
        upper = self._sums[j, i] * (1 - u) + self._sums[j, i + 1] * u
        lower = self._sums[j + 1, i] * (1 - u) + self._sums[j + 1, i + 1] * u
        return upper * (1 - v) + lower * v


def find_blocks(view: MaskView, window: Window, foreground: float) -> Blocks:
    """All positions whose tile holds at least `foreground` tissue, as blocks.

    Splitting stops when at least half of the remaining positions are surely valid, or at 100,000 blocks.
    """
    finder = Finder(view)
    open_blocks = np.array([[0, window.columns - 1, 0, window.rows - 1]], dtype=np.int64)
    sure = [np.empty((0, 4), np.int64)]
    found = 0
    while True:
        valid, open_blocks = _classify(finder, view, window, open_blocks, foreground)
        sure.append(valid)
        found += int(_counts(valid).sum())
        left = _counts(open_blocks)
        if left.sum() <= found or left.max(initial=1) == 1 or 4 * len(open_blocks) > MAX_BLOCKS:
            break
        open_blocks = _split(open_blocks)
    taken = np.concatenate(sure)
    return Blocks(np.concatenate([taken, open_blocks]), len(taken))


def _classify(finder: Finder, view: MaskView, window: Window, blocks: Ints, foreground: float) -> tuple[Ints, Ints]:
    """Blocks of which every position is valid, and blocks that still have to be split; the others are dropped."""
    first_x, last_x, first_y, last_y = np.rint(blocks.T * step_of(window))
    side = side_of(window)
    tile = side**2 * view.scale_x * view.scale_y
    most = finder.area(first_x, last_x + side, first_y, last_y + side) / tile
    least = finder.area(last_x, first_x + side, last_y, first_y + side) / tile
    single = _counts(blocks) == 1
    sure = (least >= foreground) & ~single
    # A single position is left to the draw, which measures its share in the one way that decides.
    return blocks[sure], blocks[~sure & (most >= foreground - 1e-9)]


def _split(blocks: Ints) -> Ints:
    """Each block in four (in two or one where it is one position wide)."""
    c0, c1, r0, r1 = blocks.T
    cm, rm = (c0 + c1) // 2, (r0 + r1) // 2
    quarters = [(c0, cm, r0, rm), (cm + 1, c1, r0, rm), (c0, cm, rm + 1, r1), (cm + 1, c1, rm + 1, r1)]
    out = np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])
    return out[(out[:, 0] <= out[:, 1]) & (out[:, 2] <= out[:, 3])]


def draw_from_blocks(
    rng: np.random.Generator, blocks: Blocks, view: MaskView, window: Window, foreground: float
) -> tuple[int, int] | None:
    """A position, uniform over the valid ones in the blocks; None if there is none."""
    if not len(blocks.bounds):
        return None
    edges = np.cumsum(blocks.counts)
    for _ in range(BLOCK_TRIES):
        number = int(np.searchsorted(edges, rng.integers(edges[-1]), side="right"))
        c0, c1, r0, r1 = blocks.bounds[number]
        column, row = int(rng.integers(c0, c1 + 1)), int(rng.integers(r0, r1 + 1))
        if number < blocks.sure or position_share(view, window, column, row) >= foreground:
            return column, row
    return None
