"""One slide from the service to disk: resumed, retried, checked; named like a slide only when its md5 is right."""

import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from midnight.disk import full, writing
from midnight.errors import MidnightError
from midnight.hashing import hash_file
from midnight.lease import hold
from midnight.slides.gdc import GdcClient
from midnight.slides.quarantine import QuarantineError, UnavailableError
from midnight.slides.record import Slide
from midnight.slides.retry import ExhaustedError, RefusedError, TransientError, retried
from midnight.slides.transfer import first_byte, total_bytes
from midnight.slides.verified import is_verified, remember, sidecar

logger = logging.getLogger(__name__)

MAKE_ROOM = "make room, or set data_dir to a larger disk, then run again: nothing that was downloaded is lost"

Report = Callable[[int], None]
"""Told of bytes that arrived (positive) or had to be thrown away (negative)."""


class UnreachableError(UnavailableError):
    """No attempt got as far as a body: the service rather than this slide is at fault."""


class MismatchError(Exception):
    """What arrived is not the file of the manifest."""


def slide_path(raw_dir: Path, slide: Slide) -> Path:
    """Where a slide lies: `raw_dir/{file_id}/{file_name}`, as gdc-client lays them out."""
    return raw_dir / slide.file_id / slide.file_name


def partial_path(path: Path) -> Path:
    """Where a file's bytes gather until it is whole."""
    return path.with_name(path.name + ".partial")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def lock_path(path: Path) -> Path:
    """The lock that whoever downloads a file holds, among all pipelines that share the folder."""
    return path.with_name(path.name + ".lock")


def download(client: GdcClient, slide: Slide, raw_dir: Path, report: Report, notes: Path | None = None) -> Path:
    """Make sure that a slide is on disk, whole, with the right md5; resumes what an earlier run began.

    Nothing is written beside a slide that is there, except for its note; another pipeline's download is waited for.

    Args:
        client: the service.
        slide: what to fetch.
        raw_dir: the cohort's folder of raw files.
        report: told of progress, in bytes; an earlier run's bytes are not reported.
        notes: folder for notes on files whose own folder can't be written.

    Raises:
        QuarantineError: this slide can't be had: the service no longer has it, or what it has is another file.
        UnavailableError: it can't be had now: the service refuses it, cuts it short, or a page comes instead.
        UnreachableError: the service did not answer.
        MidnightError: the disk is full or can't be written.
        StoppedError: another slide ended the job.
    """
    path = slide_path(raw_dir, slide)
    with writing(path.parent, MAKE_ROOM, slide.size):
        if is_verified(path, slide, notes):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
    before = size_of(path) or size_of(partial_path(path))
    with hold(lock_path(path), client.sleep) as lock:
        with writing(path.parent, MAKE_ROOM, slide.size):
            if is_verified(path, slide, notes):
                report(slide.size - min(before, slide.size))
                return path
            _clear(path, slide, report)

        def told(count: int) -> None:
            lock.check()
            report(count)

        _download_checked(client, slide, partial_path(path), told)
        with writing(path.parent, MAKE_ROOM):
            partial_path(path).replace(path)
            remember(path, slide, notes)
    return path


def _clear(path: Path, slide: Slide, report: Report) -> None:
    """Remove a file that is not the slide."""
    if path.exists():
        logger.warning("%s: is not the file of the manifest (size or md5); fetched again", path)
        report(-min(size_of(path), slide.size))
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


def _download_checked(client: GdcClient, slide: Slide, partial: Path, report: Report) -> None:
    for last in (False, True):
        try:
            _complete(client, slide, partial, report)
            _check(slide, partial)
            return
        except MismatchError as error:
            logger.warning("%s: %s; %s", slide.slide_id, error, "given up" if last else "fetched again as a whole")
            _discard(partial, report)
            if last:
                raise QuarantineError(f"{error} (fetched again as a whole, with the same outcome)") from error


def _check(slide: Slide, partial: Path) -> None:
    with writing(partial.parent, MAKE_ROOM), partial.open("rb+") as file:
        os.fsync(file.fileno())
    md5 = hash_file(partial, "md5")
    if md5 != slide.md5:
        raise MismatchError(f"md5 mismatch: expected {slide.md5}, got {md5}")


def _complete(client: GdcClient, slide: Slide, partial: Path, report: Report) -> None:
    """Ask for the missing bytes until there are as many as the manifest says."""
    size = functools.partial(size_of, partial)

    def attempt() -> None:
        error = TransientError("the service ended the file early", served=True)
        if size() != slide.size:
            try:
                _receive(client, slide, partial, report)
            except TransientError as failure:
                error = failure
        if size() != slide.size:
            raise error

    def tell(attempts: int, error: TransientError) -> None:
        logger.info("%s: attempt %d: %d of %d bytes: %s", slide.slide_id, attempts, size(), slide.size, error)

    try:
        retried(attempt, client.gdc.retries, client.gdc.backoff, tell, size, client.sleep)
    except RefusedError as refusal:
        raise (QuarantineError if refusal.gone else UnavailableError)(str(refusal)) from refusal
    except ExhaustedError as end:
        raise _failure(slide, size(), end.attempts, end.error) from end


def _failure(slide: Slide, size: int, attempts: int, error: TransientError) -> Exception:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    if not (error.served and size):
        return UnreachableError(f"{error} after {times}")
    return UnavailableError(f"incomplete: {size} of {slide.size} bytes after {times}: {error}")


def _receive(client: GdcClient, slide: Slide, partial: Path, report: Report) -> None:
    """One attempt: append to the partial file what the service sends."""
    if size_of(partial) > slide.size:
        _discard(partial, report)
    offset = size_of(partial)
    with client.open(slide.file_id, offset, slide.extra.get("access", "")) as response:
        if response.status_code == 416 or (response.status_code == 206 and first_byte(response) != offset):
            _discard(partial, report)
            raise TransientError("the service could not resume the file; the next attempt fetches it whole")
        body = client.blocks(response)  # a page is refused here, before what came earlier is thrown away
        if (total := total_bytes(response)) not in (None, slide.size):
            raise MismatchError(f"size mismatch: expected {slide.size} bytes, the service has {total}")
        if response.status_code == 200 and offset:
            _discard(partial, report)
        _append(body, slide, partial, report)


def _append(body: Iterator[bytes], slide: Slide, partial: Path, report: Report) -> None:
    size = size_of(partial)
    with writing(partial.parent, MAKE_ROOM, slide.size - size), partial.open("ab") as file:
        for block in body:
            size += len(block)
            if size > slide.size:
                raise MismatchError(f"size mismatch: expected {slide.size} bytes, the service sends more")
            report(len(block))  # first: it ends a download whose lock was taken over
            file.write(block)


def _discard(partial: Path, report: Report) -> None:
    report(-size_of(partial))
    partial.unlink(missing_ok=True)


def disk_full(folder: Path, needed: int, free: int) -> MidnightError:
    """The error for a disk without room."""
    return full(folder, f"{needed} more bytes are needed, {free} are free", MAKE_ROOM)
