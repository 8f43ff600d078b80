"""Reading tiles from many slides: straight from the file where that is possible, else through OpenSlide.

OpenSlide is the reference, and reads every format. Slides whose tiles are JPEG or JPEG 2000 in a TIFF, most of the
public ones, are read by `midnight.tiles.read.direct` in a third of the time, with the same pixels at full size. Which
way it is depends on the slide and the window alone, never on what was read before.

Faults that pass by themselves (a mount that is away, no file handles) are waited for, see `midnight.outages`. So what
is raised is the slide's own: it can't be opened at all, or one place of it can't be read.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import openslide

from midnight.outages import Patience
from midnight.tiles.read.area import average
from midnight.tiles.read.direct import DirectSlide, TileMap, open_file, read_tile_map, stamp
from midnight.tiles.read.jpeg import NotDecodedError, decoder
from midnight.tiles.read.window import NATIVE, Tile, Window, cut, plan, to_size
from midnight.tissue.index import CHANGED, TissueRecord
from midnight.tissue.openslides import damaged, open_slide, read_rgb, unusable
from midnight.tissue.resolution import DamagedError, SlideError

__all__ = ["NATIVE", "ReferenceSlide", "SlideReader", "Tile", "Window", "cut", "plan", "to_size"]

log = logging.getLogger(__name__)

# An open OpenSlide takes megabytes, a directly read slide a file handle.
MAX_REFERENCES = 16
REFERENCE_CACHE = 16 << 20
MAX_LAYOUTS = 20_000


class Slide(Protocol):
    """An open slide."""

    def read(self, window: Window, column: int, row: int, width: int, height: int) -> Tile:
        """RGB uint8 [height, width, 3] of the window's averaged level, from a position of its grid on."""
        ...

    def close(self) -> None:
        """Free the file handle."""
        ...


class ReferenceSlide:
    """A slide of any format that OpenSlide knows."""

    def __init__(self, record: TissueRecord, cache: openslide.OpenSlideCache | None = None) -> None:
        """Open it.

        Raises:
            SlideError: it can't be opened, or is not the one whose tissue was found.
        """
        self._slide = open_slide(record.path)
        if cache:
            self._slide.set_cache(cache)
        sizes = tuple(zip(record.level_widths, record.level_heights, strict=True))
        if tuple(self._slide.level_dimensions) != sizes or not record.unchanged():
            self._slide.close()
            raise SlideError(CHANGED)

    def read(self, window: Window, column: int, row: int, width: int, height: int) -> Tile:
        """See `Slide.read`; what the slide does not cover is white.

        Raises:
            DamagedError: it can't be decoded there.
        """
        factor = window.reduce
        pixels = read_rgb(self._slide, window.origin(column, row), window.level, (width * factor, height * factor))
        return pixels if factor == 1 else average(pixels, factor)

    def close(self) -> None:
        """Free the file handle."""
        self._slide.close()


Handle = TypeVar("Handle", bound=Slide)


class Pool(Generic[Handle]):
    """At most `limit` open slides by path, the least recently used closed first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.open: OrderedDict[str, Handle] = OrderedDict()

    def get(self, path: str, opened: Callable[[], Handle]) -> Handle:
        """The open slide of a path, opened if it is not."""
        if path not in self.open:
            while len(self.open) >= self._limit:
                self.open.popitem(last=False)[1].close()
            self.open[path] = opened()
        self.open.move_to_end(path)
        return self.open[path]

    def shrink(self) -> bool:
        """Close half of them, at least one, and keep no more open from now on; False if none is open."""
        kept = len(self.open) // 2
        if self.open:
            self._limit = max(1, kept)
        closed = list(self.open)[: len(self.open) - kept]
        if closed:
            self.close(*closed)
        return bool(closed)

    def close(self, *paths: str) -> None:
        """Close these, or all."""
        for path in paths or list(self.open):
            if slide := self.open.pop(path, None):
                slide.close()


class SlideReader:
    """Tiles from many slides, with a bounded number of open files. Not for two threads at once."""

    def __init__(self, max_open: int = 128, patience: Patience | None = None) -> None:
        """Open nothing yet.

        Args:
            max_open: slides with an open file; at most 16 of them through OpenSlide, which takes more memory.
            patience: with which slides are waited for that are away for the moment; none if not given.
        """
        self._patience = patience or Patience(0)
        self._direct: Pool[DirectSlide] = Pool(max_open)
        self._references: Pool[ReferenceSlide] = Pool(min(max_open, MAX_REFERENCES))
        self._decoder = decoder()
        self._cache = openslide.OpenSlideCache(REFERENCE_CACHE)
        self._layouts: OrderedDict[str, TileMap | None] = OrderedDict()
        self._noted: set[str] = set()

    def __enter__(self) -> "SlideReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def open_slides(self) -> Sequence[str]:
        """Paths of the slides that are open, least recently used first."""
        return [*self._references.open, *self._direct.open]

    def read(self, record: TissueRecord, window: Window, column: int, row: int) -> Tile:
        """The tile at a position of the window's grid.

        Returns:
            RGB uint8 [size, size, 3] at exactly `window.mpp` µm/px.

        Raises:
            SlideError: the slide can't be opened (any more).
            DamagedError: it can't be decoded there; it is closed, and the next read opens it anew.
            MidnightError: slides are away, or file handles wanting, for longer than is waited.
        """
        side = window.pixels
        return to_size(self.region(record, window, column, row, side, side), window.size, window.side)

    def region(self, record: TissueRecord, window: Window, column: int, row: int, width: int, height: int) -> Tile:
        """Pixels of the window's averaged level, of which `cut` makes tiles.

        Args:
            record: the slide.
            window: by which its tiles are read.
            column: first column on the window's grid.
            row: first row.
            width: in px of the averaged level; the region has to lie within it.
            height: likewise.

        Returns:
            RGB uint8 [height, width, 3].

        Raises:
            SlideError: as `read`.
        """
        region = partial(self._region, record, window, column, row, width, height)
        return self._patience.insist(region, record.path, self.free_handles)

    def _region(self, record: TissueRecord, window: Window, column: int, row: int, width: int, height: int) -> Tile:
        """See `region`; whatever fails, the slide is closed, since its file handle may be what fails."""
        place = window.origin(column, row), window.level
        slide: DirectSlide | None = None
        try:
            if slide := self._directly(record):
                return slide.read(window, column, row, width, height)
        except NotDecodedError as error:
            self._note(record, error)
        except OSError as error:
            self._forget(record.path)
            raise (damaged(error, *place) if slide else unusable(error)) from error
        try:
            reference = self._references.get(record.path, lambda: ReferenceSlide(record, self._cache))
            return reference.read(window, column, row, width, height)
        except SlideError as error:
            self._forget(record.path)
            if slide and not isinstance(error, DamagedError):
                # Elsewhere it is read without OpenSlide: so only this place is lost.
                raise damaged(error, *place) from error
            raise

    def _directly(self, record: TissueRecord) -> DirectSlide | None:
        """The slide, opened for direct reading; None if it is not of that kind."""
        path = record.path
        if path in self._layouts and self._layouts[path] is None:
            return None
        return self._direct.get(path, lambda: self._opened(record))

    def _opened(self, record: TissueRecord) -> DirectSlide:
        """Open the file; its layout is read the first time only, and when it has changed."""
        fd = open_file(record.path)
        try:
            if not record.unchanged(fd):
                raise SlideError(CHANGED)
            layout = self._layouts.get(record.path)
            if layout is None or layout.stamp != stamp(fd):
                layout = self._read_layout(fd, record)
        except BaseException:
            os.close(fd)
            raise
        return DirectSlide(fd, layout, self._decoder)

    def _read_layout(self, fd: int, record: TissueRecord) -> TileMap:
        while len(self._layouts) >= MAX_LAYOUTS:
            self._layouts.popitem(last=False)
        self._layouts[record.path] = None
        layout = read_tile_map(fd, record)
        self._layouts[record.path] = layout
        return layout

    def free_handles(self) -> bool:
        """Close half of the open slides, and keep no more open from now on; False if none is open."""
        freed = [pool.shrink() for pool in (self._direct, self._references)]
        if any(freed):
            log.warning("out of file handles: %d slides stay open at a time; raise `ulimit -n`", len(self.open_slides))
        return any(freed)

    def _note(self, record: TissueRecord, why: NotDecodedError) -> None:
        if record.path not in self._noted:
            self._noted.add(record.path)
            log.info("slide %s is read through OpenSlide, which takes longer: %s", record.slide_id, why)

    def _forget(self, path: str) -> None:
        self._direct.close(path)
        self._references.close(path)
        self._layouts.pop(path, None)

    def close(self) -> None:
        """Close all slides."""
        self._direct.close()
        self._references.close()
