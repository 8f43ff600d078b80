"""What a set of tiles will take, measured on a few hundred of its draws before any of it is kept."""

import contextlib
import json
import logging
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from midnight.atomic import write_json
from midnight.config import choose
from midnight.config.pipeline import Draw
from midnight.errors import MidnightError
from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.predrawn.codec import encode
from midnight.tiles.predrawn.sampling import draw_samples, open_drawer
from midnight.tiles.predrawn.tileset import TileSet

log = logging.getLogger(__name__)
SAMPLE = 256
WARM_UP = 8
# Per tile besides the image, bytes: two tar headers, the .json member, half a block of padding of the image.
TAR_OVERHEAD = 2 * 512 + 512 + 256
# A row of the index, and one of the Parquet tables of shard and job, which compress little.
INDEX_BYTES = 48 + 2 * 32
# Beyond the estimate: means of a few hundred tiles are off by a few per cent.
MARGIN = 1.05


@dataclass(frozen=True)
class Plan:
    """Measured and extrapolated: bytes per tile on disk, seconds per tile of one process, and what follows."""

    tiles: int
    slides: int
    shards: int
    jobs: int
    workers: int
    sample: int
    bytes_per_tile: float
    bytes_error: float
    seconds_per_tile: float
    largest_job: int

    @property
    def bytes(self) -> float:
        """The whole set on disk."""
        return self.tiles * (self.bytes_per_tile + INDEX_BYTES)

    @property
    def core_hours(self) -> float:
        """The whole set on one core."""
        return self.tiles * self.seconds_per_tile / 3600

    @property
    def job_hours(self) -> float:
        """A full job with all its processes."""
        return self.largest_job * self.seconds_per_tile / self.workers / 3600


def measure(tile_set: TileSet, indexes: Mapping[str, Path], draw: Draw, sample: int = SAMPLE) -> Plan:
    """Draw and encode the first tiles of the set by one process, and extrapolate.

    Args:
        tile_set: which tiles.
        indexes: the tissue index of each cohort.
        draw: shards per job and processes.
        sample: draws; no more than the set has.

    Raises:
        MidnightError: an index can't be read or no tile can be drawn.
    """
    sample = min(sample, tile_set.predrawn.count)
    with open_drawer(tile_set, indexes) as drawer, _one_thread():
        _sizes(drawer, tile_set, range(sample, sample + WARM_UP))  # compiled code is loaded, first slides are opened
        begin = time.perf_counter()
        sizes = _sizes(drawer, tile_set, range(sample))
        seconds = (time.perf_counter() - begin) / len(sizes)
        slides = len(drawer.sampler.slides)
    return Plan(
        tiles=tile_set.predrawn.count,
        slides=slides,
        shards=tile_set.shards,
        jobs=tile_set.jobs(draw.shards_per_job),
        workers=draw.workers,
        sample=len(sizes),
        bytes_per_tile=statistics.fmean(sizes) + TAR_OVERHEAD,
        bytes_error=statistics.pstdev(sizes) / len(sizes) ** 0.5,
        seconds_per_tile=seconds,
        largest_job=min(draw.shards_per_job * tile_set.per_shard, tile_set.predrawn.count),
    )


def _sizes(drawer: TileDrawer, tile_set: TileSet, numbers: range) -> list[int]:
    tiles = draw_samples(drawer, numbers)
    return [len(encode(tile.pixels, tile_set.predrawn)) for _, tile in tiles]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As in the processes of a job."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def describe(plan: Plan, tile_set: TileSet, folder: Path, cores: int | None = None) -> str:
    """The plan in a few lines of text; `cores` are those for which the hours of the whole are given."""
    predrawn, cores = tile_set.predrawn, cores or os.cpu_count() or 1
    kinds = {"jpeg": f"JPEG of quality {predrawn.quality}", "png": "PNG"}
    kind = choose(predrawn.format, kinds, "tiles.predrawn.format")
    cohorts = " + ".join(name for name, _ in tile_set.cohorts)
    return "\n".join(
        [
            f"tiles   {plan.tiles:,} of {tile_set.tiles.size} px as {kind}, from {plan.slides:,} slides of {cohorts}",
            f"sample  {plan.sample} draws: {plan.bytes_per_tile:,.0f} ± {plan.bytes_error:,.0f} bytes per tile, "
            f"{1 / plan.seconds_per_tile:,.0f} tiles/s per core",
            f"disk    {human(plan.bytes)} in {plan.shards:,} shards; {human(free_bytes(folder))} free at {folder}",
            f"time    {plan.core_hours:,.1f} core hours: {plan.core_hours / cores:,.1f} hours on {cores} cores; "
            f"{plan.jobs:,} jobs of {60 * plan.job_hours:,.0f} minutes with {plan.workers} processes each",
        ]
    )


def write_plan(tile_set: TileSet, indexes: Mapping[str, Path], draw: Draw, output: Path) -> str:
    """Measure, check the disk, write `plan.json` into the set's folder; the plan as text.

    Raises:
        MidnightError: the disk has too little free space for what is not drawn yet.
    """
    plan = measure(tile_set, indexes, draw)
    text = describe(plan, tile_set, output.parent)
    log.info("plan of %s:\n%s", tile_set.name, text)
    derived = {"bytes": plan.bytes, "core_hours": plan.core_hours, "job_hours": plan.job_hours}
    require_space(tile_set, output.parent, plan.bytes_per_tile)
    write_json(output, asdict(plan) | derived | {"text": text.splitlines()})
    return text


def check_space(tile_set: TileSet, folder: Path, plan: Path) -> None:
    """Refuse to draw what the disk can't hold, by the bytes per tile of the plan's file.

    Raises:
        MidnightError: see `require_space`; or the plan can't be read.
    """
    try:
        per_tile = float(json.loads(Path(plan).read_text(encoding="utf-8"))["bytes_per_tile"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MidnightError(f"{plan}: not a readable plan ({error}); delete it and run again") from error
    require_space(tile_set, folder, per_tile)


def require_space(tile_set: TileSet, folder: Path, bytes_per_tile: float) -> None:
    """Refuse to draw what the disk can't hold.

    Shards of other settings are overwritten one by one; they count as there.

    Raises:
        MidnightError: the free space is less than what the shards that are not there need.
    """
    there = {int(path.stem) for path in (Path(folder) / "shards").glob("[0-9]*.tar")}
    left = sum(len(tile_set.samples(shard)) for shard in range(tile_set.shards) if shard not in there)
    needed, free = left * (bytes_per_tile + INDEX_BYTES) * MARGIN, free_bytes(folder)
    if needed > free:
        raise MidnightError(
            f"{folder}: {left:,} tiles are still to be drawn and take {human(needed)}, but only {human(free)} are "
            f"free; free some, set results_dir to a larger disk, or lower tiles.predrawn.count or .quality"
        )


def free_bytes(folder: Path) -> int:
    """Free space on the disk that holds a folder, which need not exist yet."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def human(size: float) -> str:
    """1_500_000 as "1.5 MB"."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
