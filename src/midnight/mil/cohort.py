"""Features of many slides, one file each: what is finished stays, and a table says what became of every slide."""

import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from midnight.config import Tiles as TileSettings
from midnight.errors import MidnightError
from midnight.mil.ahead import Bag, Readers, Tiles, bags_ahead, prepare, tiles_ahead
from midnight.mil.bags import Mark, bag_path, read_mark, write_bag
from midnight.mil.compute import features_of
from midnight.mil.job import FeatureJob, Item
from midnight.mil.ledger import FAILED, LEFT_OUT, OK, TO_DO, Row, check_table, write_table
from midnight.outages import Patience
from midnight.pools import thread_pool
from midnight.slides.record import Refused
from midnight.tissue.resolution import SlideError

# Batches of tiles that are read before they are needed.
BATCHES_AHEAD = 3
# Seconds between two writings of the table.
TABLE_EVERY = 10.0
PIPELINE = TileSettings()


def embed_slides(
    items: Sequence[Item], refused: Sequence[Refused], job: FeatureJob, output: Path, table: Path, force: bool = False
) -> list[Row]:
    """Write `output/h5_files/{slide_id}.h5` of every slide that has none yet, and the table of all.

    A slide that can't be used is a row with its reason. Ctrl-C leaves what is finished, and the table.

    Args:
        items: the slides.
        refused: files that were left out when slides were looked for.
        job: how they are embedded.
        output: folder to write.
        table: TSV to write.
        force: replace files of other settings or of other programs.

    Returns:
        The table's rows, by slide_id.

    Raises:
        MidnightError: files are there that would be replaced, slides are away, or a file can't be written.
    """
    check_table(table, [item.path for item in items], force)
    rows = {item.slide_id: Row(item.slide_id, item.path, TO_DO) for item in items}
    rows |= done_before(items, job, output, force)
    rest = [Row("", one.name, LEFT_OUT, reason=one.reason) for one in refused]
    todo = [item for item in items if rows[item.slide_id].status == TO_DO]
    written = time.monotonic()
    try:
        for row in _embed(todo, job, output, len(items)):
            rows[row.slide_id] = row
            if time.monotonic() - written > TABLE_EVERY:
                write_table(table, [*rows.values(), *rest])
                written = time.monotonic()
    finally:
        write_table(table, [*rows.values(), *rest])
    return [*rows.values(), *rest]


def done_before(items: Sequence[Item], job: FeatureJob, output: Path, force: bool) -> dict[str, Row]:
    """Rows of the slides whose file is there, of the same slide and settings.

    Raises:
        MidnightError: a file has other settings or is no such file, and is not to be replaced.
    """
    found = {}
    for item in items:
        path = bag_path(output, item.slide_id)
        if not path.exists():
            continue
        mark = read_mark(path)
        problem = _other(mark, job)
        if problem and not force:
            raise MidnightError(f"{path}: {problem}; name another folder, or replace it by --force")
        if mark is not None and not problem and mark.slide == item.identity:
            found[item.slide_id] = _row(item, mark)
    return found


def _other(mark: Mark | None, job: FeatureJob) -> str:
    """Why a file may not be replaced: it is somebody else's, or of other settings."""
    if mark is None:
        return "is there, and is no file of features that this command wrote"
    asked: dict[str, Any] = {name: _listed(value) for name, value in job.settings.items()}
    if not (names := [name for name in sorted(asked) if mark.settings.get(name) != asked[name]]):
        return ""
    return f"has other settings: {', '.join(f'{name} {mark.settings.get(name)}, not {asked[name]}' for name in names)}"


def _listed(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _row(item: Item, mark: Mark) -> Row:
    return Row(item.slide_id, item.path, OK, mark.tiles, mark.damaged, mark.mpp, mark.seconds)


def _embed(items: Sequence[Item], job: FeatureJob, output: Path, total: int) -> Iterator[Row]:
    """Rows of slides as they are finished."""
    files = [item.path for item in items]
    limit = PIPELINE.patience
    readers = Readers(lambda: Patience(limit, files))
    prepared = functools.partial(prepare, settings=job.features, patience=Patience(limit, files))
    with (
        Progress(items, job.name, total) as progress,
        thread_pool(1, "tissue") as finders,
        thread_pool(max(1, job.workers), "tiles") as pool,
    ):
        bags = bags_ahead(items, prepared, finders)
        stream = tiles_ahead(bags, readers, pool, BATCHES_AHEAD * job.batch_size)
        for bag, first in stream:
            chunks = chain([first], _rest(stream)) if first else iter(())
            yield _finish(bag, chunks, job, output, progress)
            progress.slide(bag.item)
            for _ in chunks:  # what is still in line of a slide that was given up
                pass
    readers.close()


def _rest(stream: Iterator[tuple[Bag, Future[Tiles] | None]]) -> Iterator[Future[Tiles]]:
    """What is to come of a slide that has begun."""
    for _, chunk in stream:
        if chunk is None:
            return
        yield chunk


def _finish(bag: Bag, chunks: Iterator[Future[Tiles]], job: FeatureJob, output: Path, progress: "Progress") -> Row:
    """Compute the features of a slide and write its file; or say why there is none."""
    item, started = bag.item, time.monotonic()
    if bag.grid is not None and bag.record is not None:
        try:
            return _write(bag, chunks, job, output, progress, started)
        except SlideError as error:
            bag.problem = str(error)  # what is still in line is not read
    mpp = bag.record.mpp if bag.record else 0.0
    return Row(item.slide_id, item.path, FAILED, mpp=mpp, reason=bag.problem)


def _write(
    bag: Bag, chunks: Iterator[Future[Tiles]], job: FeatureJob, output: Path, progress: "Progress", started: float
) -> Row:
    record, grid, item = bag.record, bag.grid, bag.item
    assert record is not None and grid is not None  # noqa: S101 (asked by the caller)
    tell = functools.partial(progress.tiles, item, len(grid))
    features, kept = features_of(chunks, job.encoder, job.features.pooling, job.precision, job.batch_size, tell)
    damaged = int(np.count_nonzero(~kept))
    if damaged > PIPELINE.max_damaged * len(grid):
        raise SlideError(f"damaged: {damaged} of {len(grid)} tiles can't be read; get the file again")
    seconds = round(time.monotonic() - started, 3)
    mark = Mark(job.settings, item.identity, len(features), damaged, record.mpp, seconds)
    write_bag(bag_path(output, item.slide_id), features, kept, grid, record, job.features, job.name, mark)
    return _row(item, mark)


class Progress:
    """A bar of the work by bytes of slides, from which the time left follows, with slides and tiles per second."""

    def __init__(self, items: Sequence[Item], name: str, total: int) -> None:
        self._weights = {item.slide_id: max(1, item.bytes) for item in items}
        self._done, self._total = total - len(items), total
        self._tiles, self._moved = 0, 0.0
        self._started = time.monotonic()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._whole = float(sum(self._weights.values()))
        self._bar = tqdm(total=self._whole, desc=f"embed {name}", bar_format=form)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def tiles(self, item: Item, of: int, count: int) -> None:
        """So many of a slide's tiles are embedded."""
        self._tiles += count
        self._move(self._weights[item.slide_id] * count / of)

    def slide(self, item: Item) -> None:
        """A slide is finished or given up."""
        self._done += 1
        self._weights[item.slide_id], rest = 0, self._weights[item.slide_id] - self._moved
        self._move(rest)
        self._moved = 0.0

    def _move(self, share: float) -> None:
        self._moved += share
        rate = self._tiles / max(1e-9, time.monotonic() - self._started)
        self._bar.set_postfix_str(f"{self._done}/{self._total} slides, {rate:.0f} tiles/s", refresh=False)
        self._bar.update(min(share, self._whole - self._bar.n))  # sums of shares may be a bit more than the whole


def check_complete(rows: Sequence[Row], table: Path) -> None:
    """Refuse to call it done where features of something asked for are missing.

    Raises:
        MidnightError: how many, the first reason, and where the others are.
    """
    missing = [row for row in rows if row.status != OK]
    if missing:
        first = replace(missing[0], slide_id=missing[0].slide_id or missing[0].path)
        raise MidnightError(
            f"{len(missing)} of {len(rows)} have no features: {first.slide_id}: {first.reason}; see {table}"
        )
