"""One file from the web to disk: resumed, retried, named as asked only when it is whole."""

import contextlib
import functools
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm

from midnight import disk
from midnight.errors import ServiceError
from midnight.slides.download import partial_path, size_of
from midnight.slides.endpoint import is_loopback
from midnight.slides.retry import ExhaustedError, RefusedError, TransientError, retried
from midnight.slides.transfer import Pace, cause, check_transient, file_blocks, first_byte, total_bytes

LOG = logging.getLogger(__name__)
MAKE_ROOM = "make room, or set evaluation.data_root to a larger disk, then run again"


@dataclass(frozen=True)
class Retries:
    """When to give up.

    Attributes:
        attempts: so many in a row that bring nothing.
        pause: the first pause, seconds.
        timeout: seconds without a byte.
        least_rate: bytes/s that every `timeout` seconds must bring.
    """

    attempts: int = 8
    pause: float = 1.0
    timeout: float = 60.0
    least_rate: float = 10_000.0


RETRIES = Retries()


def fetch(url: str, path: Path, retries: Retries = RETRIES) -> None:
    """Download `url` to `path`, going on where an earlier attempt or run ended.

    Raises:
        ServiceError: it can't be had; what has arrived is kept.
        MidnightError: the disk is full or can't be written.
    """
    size = functools.partial(size_of, partial_path(path))

    def tell(attempts: int, error: TransientError) -> None:
        LOG.info("%s: attempt %d: %s; %d bytes so far", url, attempts, error, size())

    try:
        receive = functools.partial(_receive, url, partial_path(path), retries)
        retried(receive, retries.attempts, retries.pause, tell, size)
    except RefusedError as error:
        raise ServiceError(f"{url}: {error}") from error
    except ExhaustedError as error:
        kept = f": the {size():,} bytes that came are kept" if size() else ""
        raise ServiceError(f"{url}: {error}; run again{kept}") from error
    with writing(path.parent):
        partial_path(path).replace(path)


def _receive(url: str, partial: Path, retries: Retries) -> None:
    """One attempt: append what is missing."""
    offset = size_of(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.Session() as session:
        # a proxy can't reach this machine's loopback
        session.trust_env = not is_loopback(url)
        try:
            response = session.get(url, headers=headers, stream=True, timeout=retries.timeout)
        except requests.RequestException as error:
            raise TransientError(cause(error, retries.timeout)) from error
        with response:
            _check(response)
            start, total = first_byte(response), total_bytes(response)
            if response.status_code == 416 and total == offset:
                return
            if response.status_code == 416 or start not in (0, offset):
                partial.unlink(missing_ok=True)
                raise TransientError("the service could not resume the file")
            # a page is refused here, before what came earlier is thrown away
            body = file_blocks(response, Pace(retries.least_rate, retries.timeout))
            _append(body, partial, start, total)
    if total is not None and size_of(partial) != total:
        raise TransientError(f"the connection ended after {size_of(partial):,} of {total:,} bytes")


def _check(response: requests.Response) -> None:
    check_transient(response)
    if response.status_code == 416:
        return  # its page, if any, is not taken for the file
    if response.status_code not in (200, 206):
        raise RefusedError(f"HTTP {response.status_code}")


def _append(body: Iterator[bytes], partial: Path, start: int, total: int | None) -> None:
    with writing(partial.parent):
        free = shutil.disk_usage(partial.parent).free
        if total is not None and total - start > free:
            raise disk.full(partial.parent, f"{total - start:,} bytes are needed, {free:,} are free", MAKE_ROOM)
        with partial.open("r+b" if start else "wb") as file, _bar(partial, start, total) as bar:
            file.seek(start)
            for block in body:
                file.write(block)
                bar.update(len(block))


def _bar(partial: Path, start: int, total: int | None) -> "tqdm[Any]":
    name = partial.name.removesuffix(".partial")
    interval = 0.5 if sys.stderr.isatty() else 10
    return tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, mininterval=interval)


def writing(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Failures to write below a data set's folder as one line."""
    return disk.writing(folder, MAKE_ROOM)
