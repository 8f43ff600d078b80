"""What no reader can beat: the bare decoding of the JPEG tiles that a run touches; and plain OpenSlide reads of them.

The reads of our stream are written down while it draws, those of rejected candidates included.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tifffile

from midnight.tiles.read.reader import SlideReader, Window
from midnight.tissue.index import TissueRecord
from midnight.tissue.openslides import open_slide, read_rgb

from .jpegs import join
from .ours import NONE, Setting, batches
from .timing import Side

BATCH = 16
Jpeg = tuple[bytes, int]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Read:
    """One read of a slide: level, x, y, width and height in px of that level; the best reduction (1, 2, 4, 8)."""

    path: str
    level: int
    x: int
    y: int
    width: int
    height: int
    reduce: int


@contextlib.contextmanager
def noted_reads() -> Iterator[list[Read]]:
    """Write down every read that SlideReader makes within the block."""
    found: list[Read] = []
    inside = False

    def noting(method: Any, whole: bool) -> Any:
        def noted(self: SlideReader, record: TissueRecord, window: Window, *place: int) -> Any:
            nonlocal inside
            outer = not inside
            if outer:
                found.append(_read(record, window, *(place if whole else (*place, window.pixels, window.pixels))))
            inside = True
            try:
                return method(self, record, window, *place)
            finally:
                inside = not outer

        return noted

    names = [name for name in ("read", "region") if hasattr(SlideReader, name)]
    kept = {name: getattr(SlideReader, name) for name in names}
    for name in names:
        setattr(SlideReader, name, noting(kept[name], name == "region"))
    try:
        yield found
    finally:
        for name in names:
            setattr(SlideReader, name, kept[name])


def _read(record: TissueRecord, window: Window, column: int, row: int, width: int, height: int) -> Read:
    """In px of the level: the window's own grid is that of the reduced level where it decodes at reduced size."""
    by = getattr(window, "reduce", 1)
    reduce = 1
    while reduce < 8 and 2 * reduce * window.size <= window.side * by * (1 + 1e-6):
        reduce *= 2
    return Read(record.path, window.level, column * by, row * by, width * by, height * by, reduce)


def trace(index: Path, setting: Setting, tiles: int) -> tuple[list[Read], int]:
    """The reads of the first batches of a setting, and the accepted tiles that they gave."""
    given = 0
    with noted_reads() as reads:
        for batch in batches(index, setting, batch=BATCH):
            given += len(batch["index"])
            if given >= tiles:
                break
    return reads, given


def openslide_side(reads: list[Read], tiles: int) -> Side:
    """The same windows by OpenSlide, aligned to the level, at the level's own size; slides stay open."""
    slides = {path: open_slide(path) for path in {read.path for read in reads}}
    try:
        while True:
            for done, given in _chunks(reads, tiles):
                for read in done:
                    slide = slides[read.path]
                    scale = slide.level_downsamples[read.level]
                    read_rgb(
                        slide, (round(read.x * scale), round(read.y * scale)), read.level, (read.width, read.height)
                    )
                yield given
    finally:
        for slide in slides.values():
            slide.close()


def decode_side(jpegs: list[list[Jpeg]], tiles: int) -> Side:
    """Only the JPEG decoding of every tile that the reads touch, at the best reduction, from memory."""
    import simplejpeg

    while True:
        for done, given in _chunks(jpegs, tiles):
            for data, least in itertools.chain.from_iterable(done):
                simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least)
            yield given


def _chunks(parts: list[Part], tiles: int) -> Iterator[tuple[list[Part], int]]:
    """What was done for `tiles` accepted tiles, in steps of about 16 tiles each."""
    steps = max(1, tiles // 16)
    for number in range(steps):
        first, last = (len(parts) * step // steps for step in (number, number + 1))
        yield parts[first:last], tiles * (number + 1) // steps - tiles * number // steps


def touched_jpegs(reads: list[Read]) -> list[list[Jpeg]]:
    """For each read, the JPEG tiles that it needs as (a whole JPEG, the side in px to decode it to)."""
    levels = {path: _levels(Path(path)) for path in {read.path for read in reads}}
    return [levels[read.path][read.level].touched(read) for read in reads]


class Level:
    """The JPEG tiles of a level; those that were asked for are kept in memory."""

    def __init__(self, path: Path, page: tifffile.TiffPage) -> None:
        self._path, self._tables = path, page.jpegtables or b""
        self._places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        self._side, self._columns = page.tilewidth, -(-page.imagewidth // page.tilewidth)
        self._kept: dict[int, bytes] = {}

    def touched(self, read: Read) -> list[Jpeg]:
        """The tiles that a read needs."""
        side, columns = self._side, self._columns
        rows = range(read.y // side, min(-(-(read.y + read.height) // side), len(self._places) // columns))
        across = range(read.x // side, min(-(-(read.x + read.width) // side), columns))
        return [(self._jpeg(row * columns + column), -(-side // read.reduce)) for row in rows for column in across]

    def _jpeg(self, number: int) -> bytes:
        if number not in self._kept:
            offset, count = self._places[number]
            with self._path.open("rb") as file:
                file.seek(offset)
                self._kept[number] = join(self._tables, file.read(count))
        return self._kept[number]


def _levels(path: Path) -> list[Level]:
    with tifffile.TiffFile(path) as file:
        return [Level(path, page) for page in file.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]


def sides(index: Path, setting: Setting, tiles: int) -> tuple[dict[str, Side], dict[str, float]]:
    """Both limits for a setting, and what its reads were: reads and JPEG tiles per accepted tile."""
    if setting.mode != NONE:
        raise ValueError(f"reads are traced without augmentation, not in mode {setting.mode}")
    reads, given = trace(index, setting, tiles)
    jpegs = touched_jpegs(reads)
    facts = {"reads_per_tile": len(reads) / given, "jpegs_per_tile": sum(map(len, jpegs)) / given}
    made = {"openslide reads": openslide_side(reads, given), "bare decode": decode_side(jpegs, given)}
    return made, {name: round(value, 2) for name, value in facts.items()}
