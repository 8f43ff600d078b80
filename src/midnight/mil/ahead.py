"""Slides and their tiles, read ahead by threads while the model computes, and given in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from midnight.config import Features
from midnight.mil.grid import Grid, grid_of
from midnight.mil.job import Item
from midnight.outages import Patience
from midnight.tiles.read.reader import SlideReader
from midnight.tiles.read.window import Tile, cut
from midnight.tissue.index import TissueRecord
from midnight.tissue.resolution import DamagedError, SlideError

# Slides whose tissue is found before their turn.
SLIDES_AHEAD = 2
MAX_OPEN = 4


@dataclass(eq=False)
class Bag:
    """A slide whose tiles are read. `problem`: why there are none (any more); then record and grid may be lacking."""

    item: Item
    record: TissueRecord | None = None
    grid: Grid | None = None
    problem: str = ""


@dataclass(frozen=True)
class Tiles:
    """Some tiles of a slide.

    pixels: RGB uint8 [n, size, size, 3] of those that could be read; kept: bool [m], which those are of all m.
    """

    pixels: npt.NDArray[np.uint8]
    kept: npt.NDArray[np.bool_]


@dataclass
class Readers:
    """A reader for each thread, since none is for two at once."""

    patience: Callable[[], Patience]
    _own: threading.local = field(default_factory=threading.local)
    _all: list[SlideReader] = field(default_factory=list)

    def get(self) -> SlideReader:
        """This thread's."""
        if not hasattr(self._own, "reader"):
            self._own.reader = SlideReader(MAX_OPEN, self.patience())
            self._all.append(self._own.reader)
        reader: SlideReader = self._own.reader
        return reader

    def close(self) -> None:
        """Close all slides, when no thread reads any more."""
        for reader in self._all:
            reader.close()


def prepare(item: Item, settings: Features, patience: Patience) -> Bag:
    """Find the tissue of a slide, and its tiles.

    Raises:
        MidnightError: slides are away for longer than is waited.
    """
    record = item.find(patience)
    if not record.ok:
        return Bag(item, problem=record.reason)
    try:
        return Bag(item, record, grid_of(record, settings))
    except SlideError as error:
        return Bag(item, problem=str(error))


def bags_ahead(items: Iterable[Item], prepared: Callable[[Item], Bag], pool: Executor) -> Iterator[Future[Bag]]:
    """The slides in order, each prepared while those before it are read."""
    waiting: deque[Future[Bag]] = deque()
    for item in items:
        waiting.append(pool.submit(prepared, item))
        if len(waiting) > SLIDES_AHEAD:
            yield waiting.popleft()
    yield from waiting


def tiles_ahead(
    bags: Iterable[Future[Bag]], readers: Readers, pool: Executor, ahead: int
) -> Iterator[tuple[Bag, Future[Tiles] | None]]:
    """Each slide's tiles in order, and None at the end of a slide. No slide waits for the next one's tissue.

    Args:
        bags: the slides.
        readers: of the pool's threads.
        pool: in which they are read.
        ahead: tiles, of one slide or the next ones, that may be read before they are taken.
    """
    waiting: deque[tuple[Bag, Future[Tiles] | None, int]] = deque()
    held = 0
    for future in bags:
        while waiting and not future.done():
            held -= waiting[0][2]
            yield waiting.popleft()[:2]
        bag = future.result()
        for run in bag.grid.runs() if bag.grid else ():
            waiting.append((bag, pool.submit(read_run, bag, run, readers), run.stop - run.start))
            held += run.stop - run.start
            while held > ahead:
                held -= waiting[0][2]
                yield waiting.popleft()[:2]
        waiting.append((bag, None, 0))
    for bag, chunk, _ in waiting:
        yield bag, chunk


def read_run(bag: Bag, run: slice, readers: Readers) -> Tiles:
    """Neighbouring tiles of a row by one read; where a part of it is damaged, each by its own.

    Raises:
        SlideError: the slide can't be read (any more).
        MidnightError: slides are away for longer than is waited.
    """
    record, grid = bag.record, bag.grid
    if record is None or grid is None or bag.problem:  # given up meanwhile
        raise SlideError(bag.problem)
    reader, window = readers.get(), grid.window
    columns, row = [int(column) for column in grid.columns[run]], int(grid.rows[run.start])
    width = columns[-1] - columns[0] + window.pixels
    try:
        region = reader.region(record, window, columns[0], row, width, window.pixels)
        tiles: list[Tile | None] = [cut(region, window, column - columns[0], 0) for column in columns]
    except DamagedError:
        tiles = [_tile(reader, record, grid, column, row) for column in columns]
    good = [tile for tile in tiles if tile is not None]
    shape = (len(good), window.size, window.size, 3)
    pixels = np.stack(good) if good else np.empty(shape, np.uint8)
    return Tiles(pixels, np.array([tile is not None for tile in tiles]))


def _tile(reader: SlideReader, record: TissueRecord, grid: Grid, column: int, row: int) -> Tile | None:
    """A tile, or None where the slide is damaged."""
    try:
        return reader.read(record, grid.window, column, row)
    except DamagedError:
        return None
