"""Drawing the shards of a job.

A shard is the unit of loss: a killed job goes on after its last whole shard, so each process draws at most one
shard (10,000 tiles, under a minute) again. Within and between shards the same place may come twice, though rarely;
`midnight.tiles.predrawn.join` replaces what did, when all shards are there.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import joblib
import pyarrow as pa
from joblib.externals.loky.process_executor import TerminatedWorkerError

from midnight.children import obey_parent_only
from midnight.errors import MidnightError
from midnight.logs import setup
from midnight.tiles.predrawn.plan import check_space
from midnight.tiles.predrawn.sampling import draw_samples, open_drawer
from midnight.tiles.predrawn.tars import KEY, finished, tar_path, write_table, write_tar
from midnight.tiles.predrawn.tileset import TileSet

log = logging.getLogger(__name__)


def draw_job(
    tile_set: TileSet,
    indexes: Mapping[str, Path],
    folder: Path,
    shards: Sequence[int],
    workers: int,
    plan: Path,
    output: Path,
) -> None:
    """Draw those of a job's shards that are not there yet, then write the table of all of them.

    Args:
        tile_set: which tiles.
        indexes: the tissue index of each cohort.
        folder: of the set; tars and their tables go to `shards/` in it.
        shards: numbers of the job's shards.
        workers: processes, each with its own slides open.
        plan: of the set, for the bytes that a tile takes.
        output: Parquet with the rows of all the job's tiles.

    Raises:
        MidnightError: there is not enough disk for all that is left of the set, or nothing can be drawn.
    """
    key = tile_set.key(indexes)
    missing = [shard for shard in shards if finished(folder, shard, tile_set.samples(shard), key) is None]
    log.info("%d of %d shards are there, %d to draw", len(shards) - len(missing), len(shards), len(missing))
    if missing:
        check_space(tile_set, folder, plan)
        _remove_leftovers(folder, missing)
        calls = [
            joblib.delayed(_draw_shards)(tile_set, dict(indexes), folder, share, key, os.getpid())
            for worker in range(workers)
            if (share := missing[worker::workers])
        ]
        # Fresh interpreters, since a fork of a process whose OpenCV has threads hangs. A single call runs in this one.
        try:
            joblib.Parallel(n_jobs=len(calls), backend="loky" if len(calls) > 1 else "sequential")(calls)
        except TerminatedWorkerError as error:
            raise MidnightError("a drawing process was killed, mostly for memory: lower draw.workers") from error
    tables = [finished(folder, shard, tile_set.samples(shard), key) for shard in shards]
    if None in tables:
        raise MidnightError(f"{tar_path(folder, shards[tables.index(None)])}: vanished while others were drawn")
    write_table(pa.concat_tables(tables).replace_schema_metadata({KEY: key}), output)


def _draw_shards(
    tile_set: TileSet, indexes: Mapping[str, Path], folder: Path, shards: list[int], key: str, parent: int
) -> None:
    """What one process does: the one with the number `parent`, or one that it started."""
    if os.getpid() != parent:
        obey_parent_only(parent)
    cv2.setNumThreads(1)
    if not logging.getLogger().handlers:
        setup()
    with open_drawer(tile_set, indexes, folder) as drawer:
        slides = [record.slide_id for record in drawer.sampler.slides]
        for shard in shards:
            tiles = draw_samples(drawer, tile_set.samples(shard))
            write_tar(folder, shard, tiles, tile_set.predrawn, slides, drawer.sampler.cohorts, key)
            log.info("%s: %d tiles", tar_path(folder, shard), len(tile_set.samples(shard)))


def _remove_leftovers(folder: Path, shards: Sequence[int]) -> None:
    """Unfinished files of a job that was killed; a shard belongs to one job, so nobody is writing them."""
    for shard in shards:
        for path in tar_path(folder, shard).parent.glob(f".{shard:05d}.*"):
            path.unlink(missing_ok=True)
