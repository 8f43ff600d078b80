"""Several tiles from one larger read (`tiles.tiles_per_read`), for models so small that they wait for data.

**What is drawn.** A read starts with an anchor, drawn exactly as an independent tile is: slide, mpp, position, both
filters (it is cut from the read itself; if the HSV filter rejects it, the read is dropped). A lattice of square cells
with a random shift is laid over the positions of the slide at this mpp, and the read's other tiles are drawn uniformly
from the accepted positions in the anchor's cell. A cell is met with a
probability proportional to the accepted positions in it, so each of the tiles is uniform over the accepted positions
of the slide, as the anchor is: the marginals are exactly those of independent draws, whatever the lattice. Where
few positions of a cell are accepted and the tries run out, those that were found are given again, which keeps that.

One read keeps one mpp. Tiles at another mpp would have to come from the cell with a weight proportional to the cell's
accepted positions at that mpp, relative to those at the anchor's; how many the HSV filter accepts is known only once
all of the slide has been decoded. Without it, coarse tiles would be drawn too often beside small pieces of tissue.

**When it is used.** Every place j of a global batch (over all ranks) has LANES lanes, step k belonging to lane
k mod LANES; a lane gives the T tiles of one read in T turns, and then reads anew. So no batch holds two tiles of one
read: the tiles of a batch are as independent of each other as without shared reads, and what is shared comes LANES
steps later. The turns of neighbouring places are offset, so that each step decodes 1/T of its tiles' reads; only the
first LANES steps after a start decode all of theirs.

**Whatever the workers.** Which tile sample i is depends on (seed, i, batch size · ranks) alone, so a resumed run
goes on where it was. A worker of W makes every W-th batch: where W divides LANES (1, 2, 3, 4, 6, 8, 12, 24) each
read is decoded by one worker, once. Otherwise several decode the same read: as exact, but slower.

**What it saves and costs.** Drawing and both filters on one core (`benchmarks/tiles.py`, 256 px tiles): independent
tiles take 1.5 ms each, 8 from reads of 512 px 0.61 (2.5 times as fast), 16 take 0.44 (3.5); with stains and crops 2.1,
1.5 and 1.3 ms. The mean colours of a read's tiles have an intra-class
correlation of 0.80 at 512 px (where two tiles overlap by 45 % on average), 0.65 at 724 and 0.56 at 1024 px, those of
independent tiles of the same slide and mpp one of about 0.5. In batches of 64 the share of pairs from the same slide
stays what it was (0.174 against 0.172), and pairs of one read do not occur.

**Memory.** All workers of a rank together keep LANES · batch_size · (T − 1) / 2 tiles: for 64 tiles of 256 px per
batch and 8 per read 1.1 GB, 16 per read 2.3 GB. Where W does not divide LANES, up to twice that per worker.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw.drawer import POSITION_TRIES, TileDrawer, drawn_tile
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.positions import side_of, step_of
from midnight.tiles.draw.rng import Purpose
from midnight.tiles.draw.sampler import Choice
from midnight.tiles.draw.source import OnlineSource
from midnight.tiles.read.reader import Tile, Window, cut

log = logging.getLogger(__name__)

LANES = 24
# Random positions of a cell that are looked at, and how many of those with enough tissue per tile wanted are decoded.
CELL_TRIES = 512
SPARE = 3


def read_side(tiles: Tiles) -> int:
    """Side of a read in px at the drawn mpp.

    Raises:
        MidnightError: `tiles.read_side` is smaller than a tile.
    """
    if tiles.read_side is None:
        return 2 * tiles.size
    if tiles.read_side < tiles.size:
        raise MidnightError(f"tiles.read_side: {tiles.read_side} px is smaller than a tile of {tiles.size} px")
    return tiles.read_side


def cell_of(window: Window, side: int, shift: tuple[float, float], column: int, row: int) -> tuple[int, int, int, int]:
    """The cell in which a position lies: first column, columns, first row, rows, cut to the window's grid.

    Args:
        window: the grid.
        side: of a read, px at the window's mpp: what the tiles of one cell cover at most.
        shift: of the lattice, shares of a cell's side.
        column: of the position.
        row: of the position.
    """
    period = max(1, round(side * window.side / window.size) - window.pixels + 1)
    spans = []
    for place, share, positions in ((column, shift[0], window.columns), (row, shift[1], window.rows)):
        offset = int(share * period)
        start = (place + offset) // period * period - offset
        first, end = max(0, start), min(start + period, positions)
        spans += [first, end - first]
    return spans[0], spans[1], spans[2], spans[3]


@dataclass
class Held:
    """A read that is being given out: its number in its lane, and its tiles, each None once it was given."""

    number: int
    tiles: list[DrawnTile | None]


class SharedReads(OnlineSource):
    """A `TileSource` with `tiles.tiles_per_read` tiles from each read."""

    def __init__(
        self,
        cohorts: Mapping[str, tuple[Path, float]],
        tiles: Tiles,
        seed: int,
        per_step: int,
        quarantine: Path | None = None,
        lanes: int = LANES,
    ) -> None:
        """See `OnlineSource`; `per_step` are the tiles of one step over all ranks."""
        super().__init__(cohorts, tiles, seed, quarantine)
        self._lanes = lanes
        self._side = read_side(tiles)
        self._per_step = per_step
        self._held: dict[tuple[int, int], Held] = {}

    def tiles(self, indexes: Sequence[int]) -> list[DrawnTile]:
        """The tiles of these sample numbers.

        Raises:
            MidnightError: no tile of 64 slides drawn one after the other was accepted.
        """
        return [self._tile(index) for index in indexes]

    def _tile(self, index: int) -> DrawnTile:
        step, place = divmod(index, self._per_step)
        turn, lane = divmod(step, self._lanes)
        count = self._sampler.tiles.tiles_per_read
        number, slot = divmod(turn + place % count, count)
        held = self._held.get((lane, place))
        tile = held.tiles[slot] if held and held.number == number else None
        if tile is None:
            read = read_tiles(self.drawer, (number * self._lanes + lane) * self._per_step + place, count, self._side)
            tile = read[slot]
            held = self._held[lane, place] = Held(number, [None] * slot + list(read[slot:]))
        if held is not None:
            held.tiles[slot] = None
        return tile

    def close(self) -> None:
        """Close all slides and forget the reads."""
        super().close()
        self._held.clear()

    def check_workers(self, workers: int) -> None:
        """Log a warning where so many processes share the batches that several decode the same reads."""
        if self._lanes % workers:
            log.warning(
                "training.workers: %d does not divide %d, so several workers decode the same reads; take %s",
                workers,
                self._lanes,
                ", ".join(str(number) for number in range(1, self._lanes + 1) if self._lanes % number == 0),
            )


def read_tiles(drawer: TileDrawer, number: int, count: int, side: int) -> list[DrawnTile]:
    """The tiles of one read: the anchor first, all with the same marginals.

    Args:
        drawer: draws the anchor.
        number: of the read, from which all its randomness comes.
        count: tiles wanted.
        side: of the read, px at the drawn mpp.

    Raises:
        MidnightError: no tile of 64 slides was accepted.
    """

    def take(rng: np.random.Generator, choice: Choice, attempt: int) -> list[DrawnTile] | None:
        numbers = drawer.generators.at(Purpose.CELL, number, attempt)
        for _ in range(POSITION_TRIES):
            anchor = drawer.sampler.draw_position(rng, choice)
            if anchor is None:
                return None
            if found := _cell_tiles(drawer, numbers, choice, anchor, count, side):
                return found
        return None

    found = drawer.attempt(number, Purpose.READ, take)
    return [found[slot % len(found)] for slot in range(count)]


def _cell_tiles(
    drawer: TileDrawer, rng: np.random.Generator, choice: Choice, anchor: tuple[int, int], count: int, side: int
) -> list[DrawnTile]:
    """The anchor and at most `count` − 1 more accepted tiles of its cell; none if the filter rejects the anchor.

    Raises:
        SlideError: the slide can't be opened.
        TooDamagedError: most of it can't be read.
    """
    window, sampler = choice.window, drawer.sampler
    shift = rng.random(2).tolist()
    area = cell_of(window, side, (shift[0], shift[1]), *anchor)
    draws, most = rng.random((CELL_TRIES, 2)), SPARE * (count - 1)
    foreground = sampler.tiles.foreground
    places = [anchor, *sampler.view(choice).find(draws, area, step_of(window), side_of(window), foreground, most)]
    tiles: list[DrawnTile] = []
    for (column, row), pixels in _pieces(drawer, choice, places):
        if pixels is not None and drawer.passes(pixels):
            # A copy: a view of the region would keep all of it.
            tiles.append(drawn_tile(pixels.copy(), choice, column, row))
        elif not tiles:
            break
        if len(tiles) == count:
            break
    return tiles


def _pieces(
    drawer: TileDrawer, choice: Choice, places: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Tile | None]]:
    """The tile at each place, cut from one region; where that can't be read, each by itself, None where it can't be.

    Raises:
        SlideError: the slide can't be opened.
        TooDamagedError: most of it can't be read.
    """
    window, record = choice.window, drawer.sampler.slides[choice.slide]
    left, top = min(column for column, _ in places), min(row for _, row in places)
    right, bottom = max(column for column, _ in places), max(row for _, row in places)
    size = right - left + window.pixels, bottom - top + window.pixels
    region = drawer.undamaged(choice, lambda: drawer.reader.region(record, window, left, top, *size), 0)
    for column, row in places:
        if region is not None:
            yield (column, row), cut(region, window, column - left, row - top)
        else:
            alone = partial(drawer.reader.read, record, window, column, row)
            yield (column, row), drawer.undamaged(choice, alone)
