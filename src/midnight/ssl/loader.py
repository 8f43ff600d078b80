"""Batches of crops from slides."""

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.logs import warn
from midnight.reading import Slot, tell_in
from midnight.ssl import distributed
from midnight.ssl.crew import POLL, Crew, StallLimits
from midnight.ssl.mounts import mount_of
from midnight.tiles.draw.source import TileSource
from midnight.tiles.folders.listing import is_tile_list
from midnight.tiles.folders.source import FolderSource
from midnight.tiles.predrawn.source import open_source
from midnight.tiles.stream import TileStream

log = logging.getLogger(__name__)
Batch = Mapping[str, Tensor]
Batches = Iterable[Batch]
Loader = Callable[[int], Batches]
"""From the first micro-step to the batches from there on; the seam by which tests bring their own data."""
PINNED = 2
"""Batches ready in memory from which a GPU can fetch them by itself."""


def never() -> bool:
    """Nobody tells this run to stop."""
    return False


def tile_loader(
    recipe: Recipe,
    cohorts: Mapping[str, tuple[Path, float]],
    quarantine: Path | None = None,
    source: TileSource | None = None,
    stop: Callable[[], bool] = never,
) -> Loader:
    """Batches of this process's tiles, the same whatever the number of worker processes.

    The stream never ends, so the workers stay for the whole run; they end when the batches are closed or dropped.

    Args:
        recipe: tiles, crops, batch size, workers and seed.
        cohorts: index of slides and share of the tiles, by name.
        quarantine: file in which slides are recorded that turn out unreadable.
        source: where tiles come from, if not from the cohorts' slides.
        stop: whether the run was told to stop; a batch that does not come is then not waited for.
    """
    limits = StallLimits(replace=recipe.training.stall_seconds)

    def batches(start_step: int) -> Batches:
        stream = TileStream(
            cohorts,
            recipe.tiles,
            recipe.crops,
            recipe.seed,
            recipe.training.batch_size,
            rank=distributed.rank(),
            world=distributed.world(),
            start_step=start_step,
            augment=recipe.training.augment,
            quarantine=quarantine,
            source=source,
        )
        return worker_batches(stream, recipe.training.workers, limits, stop)

    return batches


def tile_source(recipe: Recipe, cohorts: Mapping[str, tuple[Path, float]], drawn: Path | None) -> TileSource | None:
    """The set of tiles that the recipe trains on; None where it draws them from the slides while training.

    Args:
        recipe: `tiles.predrawn` decides.
        cohorts: as in `tile_loader`; or lists of the images of folders instead of indexes of slides.
        drawn: the index of the set.

    Raises:
        MidnightError: there is no index, or it is of other tiles.
    """
    if any(is_tile_list(path) for path, _ in cohorts.values()):
        return FolderSource(cohorts, recipe.tiles, recipe.seed)
    if recipe.tiles.predrawn is None:
        return None
    if drawn is None:
        raise MidnightError(
            f"recipe {recipe.name}: it trains on tiles drawn beforehand (tiles.predrawn), and no index of them was "
            f"given; train it by Snakemake, which draws them, or set tiles.predrawn to null"
        )
    return open_source(drawn, recipe.tiles, {name: share for name, (_, share) in cohorts.items()}, recipe.seed)


def worker_batches(
    stream: TileStream, workers: int, limits: StallLimits, stop: Callable[[], bool] = never
) -> Generator[Batch, None, None]:
    """The stream's batches, made by `workers` processes (0: by this one), which end with the iterator.

    Raises:
        MidnightError: see `midnight.ssl.crew.Crew.take`.
    """
    if not workers:
        return told_of_stalls(stream.batches(stream.start_step, 1), limits.tell)
    if not torch.cuda.is_available():
        return _taken(stream, workers, limits, stop, lambda size: torch.empty(size, dtype=torch.uint8))
    device = torch.cuda.current_device()

    def pinned(size: int) -> Tensor:
        torch.cuda.set_device(device)  # in this thread
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    return ahead(lambda ended: _taken(stream, workers, limits, lambda: stop() or ended(), pinned), PINNED)


def _taken(
    stream: TileStream,
    workers: int,
    limits: StallLimits,
    stop: Callable[[], bool],
    empty: Callable[[int], Tensor],
) -> Generator[Batch, None, None]:
    crew = Crew(stream, workers, limits, stop, empty)
    try:
        for step in itertools.count(stream.start_step):
            yield crew.take(step)
    finally:
        crew.close()


def ahead(
    make: Callable[[Callable[[], bool]], Generator[Batch, None, None]], depth: int
) -> Generator[Batch, None, None]:
    """What `make` gives, by a thread that is up to `depth` batches ahead.

    Args:
        make: of a function that says whether the batches are no longer wanted.
        depth: batches held ready.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=POLL)
                return

    def run() -> None:
        try:
            with contextlib.closing(make(ended.is_set)) as batches:
                for batch in batches:
                    put(batch)
                    if ended.is_set():
                        return
            put(None)
        except Exception as error:  # to be raised where the batches are used
            put(error)

    thread = threading.Thread(target=run, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        thread.join()


def told_of_stalls(batches: Generator[Batch, None, None], seconds: float) -> Generator[Batch, None, None]:
    """The same, made by this process; while one is waited for so long, a line says which slide is read."""
    slot, waiting, ended = Slot(), [0.0], threading.Event()
    tell_in(slot)

    def watch() -> None:
        told = 0.0
        while not ended.wait(min(seconds, 1.0) / 4):
            since, now = waiting[0], time.monotonic()
            if since and now - max(since, told) >= seconds:
                told, path = now, slot.read()[1]
                warn(log, f"no batch for {now - since:.0f} s: this process is reading {path}{mount_of(path)}")

    thread = threading.Thread(target=watch, name="stalls", daemon=True)
    thread.start()
    try:
        waiting[0] = time.monotonic()
        for batch in batches:
            waiting[0] = 0.0
            yield batch
            waiting[0] = time.monotonic()
    finally:
        ended.set()
        thread.join()
        batches.close()
