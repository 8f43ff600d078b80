"""Fetches one shard of a cohort: downloads what is missing, checks everything, says of each slide what became of it.

What fails for now (a refusal, a page instead of a slide, a connection that breaks) is "unavailable": each later run
tries those slides once more. Where that is most of a shard, the shard has failed.
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from midnight.config import Cohort, Gdc, choose
from midnight.errors import ConfigError, ServiceError
from midnight.pools import thread_pool
from midnight.slides.download import UnreachableError, disk_full, download, partial_path, size_of, slide_path
from midnight.slides.endpoint import api_url
from midnight.slides.gdc import GdcClient
from midnight.slides.manifest import read_header, read_manifest, write_manifest
from midnight.slides.quarantine import (
    QuarantineError,
    SlideStatus,
    UnavailableError,
    quarantined,
    read_statuses,
    unavailable,
    usable,
    write_statuses,
)
from midnight.slides.record import Slide
from midnight.slides.sharding import cut_manifest

logger = logging.getLogger(__name__)

KEPT_HEADER = ("cohort", "source", "query", "service", "data release", "date")
NOTES = "verified"
"""Folder beside the tables for notes on slides in folders that can't be written."""


@dataclass
class Progress:
    """A progress bar in bytes that many threads may move."""

    bar: tqdm
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, count: int) -> None:
        """Add `count` bytes (negative: they have to be fetched again)."""
        with self.lock:
            self.bar.update(count)

    def give_up(self, count: int) -> None:
        """Expect `count` bytes less: they will not come."""
        with self.lock:
            self.bar.total = (self.bar.total or 0) - count
            self.bar.refresh()


def fetch_shard(
    manifest: Path,
    shard: str,
    shard_size: int,
    cohort: Cohort,
    gdc: Gdc,
    raw_dir: Path,
    shard_output: Path,
    slides_output: Path,
) -> None:
    """Fetch the slides of one shard and write what became of each.

    Slides of the GDC go to `raw_dir/{file_id}/{file_name}`; local slides stay where they are. A rerun only fetches
    what is missing and only reads again what has changed on disk.

    Args:
        manifest: the cohort's `manifest.tsv`.
        shard: name of the shard, such as "0183".
        shard_size: slides per shard, on average.
        cohort: the cohort's configuration.
        gdc: the service.
        raw_dir: folder of the cohort's raw files.
        shard_output: the shard's part of the manifest.
        slides_output: the table of `midnight.slides.quarantine.SlideStatus`.

    Raises:
        ConfigError: the manifest is wrong or not of this cohort's source.
        ServiceError: the service is down, or most slides can't be had now; what has been downloaded stays.
        MidnightError: the disk is full.
    """
    shards = cut_manifest(manifest, shard_size)
    if shard not in shards:
        raise ConfigError(f"{manifest}: has no shard {shard!r}; its {len(shards)} shards are {', '.join(shards)}")
    slides = shards[shard]
    if wrong := [slide.slide_id for slide in slides if slide.source != cohort.source]:
        raise ConfigError(f"{manifest}: {wrong[0]} is not of source {cohort.source!r}; delete the manifest, run again")
    statuses = fetch(slides, gdc, raw_dir, slides_output.parent / NOTES)
    _refuse_most(statuses, cohort.path if cohort.source == "local" else api_url(gdc.api))
    header = read_header(manifest)
    kept = {name: header[name] for name in KEPT_HEADER if name in header} | {"shard": shard}
    write_manifest(shard_output, slides, kept)
    write_statuses(slides_output, statuses, kept)
    _log_summary(shard, statuses)


def fetch_again(shard_manifest: Path, table: Path, gdc: Gdc, raw_dir: Path) -> int:
    """Try the unavailable slides of a shard once more; the table is written anew only if any of them has changed.

    A service that is down is no error here: what is known of the slides stays as it is.

    Args:
        shard_manifest: the shard's part of the manifest.
        table: its table of `midnight.slides.quarantine.SlideStatus`.
        gdc: the service.
        raw_dir: folder of the cohort's raw files.

    Returns:
        How many slides came.

    Raises:
        MidnightError: a table can't be read or written, or the disk is full.
    """
    statuses = read_statuses(table)
    wanted = {status.slide_id for status in statuses if status.unavailable}
    slides = [slide for slide in read_manifest(shard_manifest) if slide.slide_id in wanted]
    try:
        found = {status.slide_id: status for status in fetch(slides, gdc, raw_dir, table.parent / NOTES)}
    except ServiceError as error:
        logger.warning("%s: %d slides stay unavailable: %s", table, len(slides), error)
        return 0
    settled = {name: status for name, status in found.items() if not status.unavailable}
    if settled:
        kept = [settled.get(status.slide_id, status) for status in statuses]
        write_statuses(table, kept, read_header(table))
    _log_summary(table.stem, list(found.values()))
    return sum(status.ok for status in settled.values())


def fetch(slides: Sequence[Slide], gdc: Gdc, raw_dir: Path, notes: Path) -> list[SlideStatus]:
    """What became of slides of one source, in their order; see `fetch_gdc` and `check_local`."""
    ways: dict[str, Callable[[], list[SlideStatus]]] = {
        "gdc": lambda: fetch_gdc(slides, gdc, raw_dir, notes),
        "local": lambda: [check_local(slide) for slide in slides],
    }
    return choose(slides[0].source, ways, "source of a cohort")() if slides else []


def _refuse_most(statuses: Sequence[SlideStatus], where: str | None) -> None:
    """A shard without most of its slides is no result.

    Raises:
        ServiceError: it is one.
    """
    bad = [status for status in statuses if status.unavailable]
    if 2 * len(bad) > len(statuses):
        raise ServiceError(
            f"{where}: {len(bad)} of {len(statuses)} slides of the shard are unavailable, such as {bad[0].slide_id}: "
            f"{bad[0].reason}; try again later, or list slides that stay so in the cohort's `exclude`; "
            "nothing that was downloaded is lost"
        )


def check_local(slide: Slide) -> SlideStatus:
    """Whether a local slide can be read, and its present size; its content is the tissue stage's business."""
    path = Path(slide.extra["path"])
    if not path.exists():
        return unavailable(slide.slide_id, f"{path}: the file is not there (any more)")
    if not path.is_file():
        return quarantined(slide.slide_id, f"{path}: is not a file")
    if not os.access(path, os.R_OK):
        return unavailable(slide.slide_id, f"{path}: may not be read (permissions)")
    size = path.stat().st_size
    if not size:
        return unavailable(slide.slide_id, f"{path}: is empty")
    if size != slide.size:
        logger.warning("%s: has %d bytes, had %d when the manifest was pinned", path, size, slide.size)
    return usable(slide.slide_id, path, size, mpp=slide.extra.get("mpp"))


def fetch_gdc(slides: Sequence[Slide], gdc: Gdc, raw_dir: Path, notes: Path | None = None) -> list[SlideStatus]:
    """Download slides in parallel threads; the result is in the order of `slides`.

    A slide that the service doesn't deliver is unavailable, unless the service itself is down: when `/status` fails
    too, or when not one slide could be had.

    Args:
        slides: what to fetch.
        gdc: the service.
        raw_dir: folder of the cohort's raw files.
        notes: folder for notes on files whose own folder can't be written.

    Raises:
        ServiceError: the service is down.
        MidnightError: the disk is full.
    """
    _check_disk(slides, raw_dir)
    client = GdcClient(gdc)
    done: dict[str, SlideStatus] = {}
    unreachable: dict[str, str] = {}
    with _progress(slides, raw_dir) as bar, thread_pool(gdc.parallel, "download") as pool:
        progress = Progress(bar)
        jobs = {pool.submit(_fetch_one, client, slide, raw_dir, progress, notes): slide for slide in slides}
        try:
            for job in as_completed(jobs):
                _collect(client, jobs[job], job, done, unreachable)
        except BaseException:
            client.stop.set()
            raise
    if slides and len(unreachable) == len(slides):
        cause = next(iter(unreachable.values()))
        raise ServiceError(
            f"{client.url}/data: none of {len(slides)} slides could be fetched: {cause}; try again later"
        )
    return [done[slide.slide_id] for slide in slides]


def _collect(
    client: GdcClient,
    slide: Slide,
    job: Future[SlideStatus],
    done: dict[str, SlideStatus],
    unreachable: dict[str, str],
) -> None:
    """Take a thread's result; when the service failed it, make sure that the service is up at all."""
    try:
        done[slide.slide_id] = job.result()
    except UnreachableError as error:
        client.status(attempts=3)
        unreachable[slide.slide_id] = str(error)
        done[slide.slide_id] = unavailable(slide.slide_id, f"not delivered by the service: {error}")


def _fetch_one(client: GdcClient, slide: Slide, raw_dir: Path, progress: Progress, notes: Path | None) -> SlideStatus:
    start = time.monotonic()
    try:
        path = download(client, slide, raw_dir, progress, notes)
    except UnreachableError:
        raise
    except (QuarantineError, UnavailableError) as error:
        left = size_of(partial_path(slide_path(raw_dir, slide)))
        progress.give_up(slide.size - left)
        become = quarantined if isinstance(error, QuarantineError) else unavailable
        status = become(slide.slide_id, str(error), left, time.monotonic() - start)
        logger.warning("%s: %s: %s", slide.slide_id, status.status, error)
        return status
    return usable(slide.slide_id, path, slide.size, time.monotonic() - start, slide.extra.get("mpp"))


def _present(slide: Slide, raw_dir: Path) -> int:
    path = slide_path(raw_dir, slide)
    return min(size_of(path) or size_of(partial_path(path)), slide.size)


def _check_disk(slides: Sequence[Slide], raw_dir: Path) -> None:
    needed = sum(slide.size - _present(slide, raw_dir) for slide in slides)
    folder = next(parent for parent in (raw_dir.absolute(), *raw_dir.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise disk_full(raw_dir, needed, free)


def _progress(slides: Sequence[Slide], raw_dir: Path) -> tqdm:
    return tqdm(
        total=sum(slide.size for slide in slides),
        initial=sum(_present(slide, raw_dir) for slide in slides),
        desc=f"{len(slides)} slides",
        unit="B",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )


def _log_summary(shard: str, statuses: Sequence[SlideStatus]) -> None:
    bad = [status for status in statuses if not status.ok]
    good, later = len(statuses) - len(bad), sum(status.unavailable for status in bad)
    size = sum(status.bytes for status in statuses if status.ok)
    text = "shard %s: %d slides ok (%d bytes), %d quarantined, %d unavailable for now (the next run tries them again)"
    logger.info(text, shard, good, size, len(bad) - later, later)
    for status in bad:
        logger.info("shard %s: %s: %s", shard, status.slide_id, status.reason)
