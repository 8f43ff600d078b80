"""The slides that turned out unreadable while a run drew tiles from them: logged once, and recorded for the report.

The record has a line per slide: slide id, cohort, path and reason, separated by tabs, in the order found. All of a
run's processes append to the same file, under a lock where the file system has them. What can't be written at once (no
file handle, a full disk, a folder that is away) is written later.

Slides of which only some positions can't be read, so that the others are used, have a record of their own.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from midnight.errors import MidnightError
from midnight.outages import HANDLES, LONGEST_PAUSE

log = logging.getLogger(__name__)

FILE = "quarantined.tsv"
DAMAGED = "damaged.tsv"


@dataclass(frozen=True)
class LostSlide:
    """A slide that could not be read, and why."""

    slide_id: str
    cohort: str
    path: str
    reason: str


class Quarantine:
    """Where a process tells of slides that it leaves out; without a path it only logs them."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._pending: list[tuple[Path, LostSlide]] = []
        self._failures = 0
        self._failed = 0.0

    @property
    def pending(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending)

    def add(self, slide: LostSlide, free: Callable[[], bool] = lambda: False) -> None:
        """Log a slide that is left out and append it to the record, unless it is there already.

        Args:
            slide: which, and why.
            free: closes some open files where there are no file handles; False if there is none to close.
        """
        self._note(FILE, slide, "is left out", free)

    def add_damaged(self, slide: LostSlide, free: Callable[[], bool] = lambda: False) -> None:
        """The same for a slide of which only some positions can't be read."""
        self._note(DAMAGED, slide, "is damaged in parts, which are not used", free)

    def _note(self, name: str, slide: LostSlide, what: str, free: Callable[[], bool]) -> None:
        new = True
        if self._path is not None:
            path = self._path if name == FILE else self._path.with_name(name)
            new = self._write(path, slide, free)
        if new:
            log.warning("slide %s %s: %s", slide.slide_id, what, slide.reason)

    def _write(self, path: Path, slide: LostSlide, free: Callable[[], bool]) -> bool:
        """Whether the slide is new to the file; what can't be written is kept for `flush`."""
        try:
            return _append_insisting(path, slide, free)
        except OSError as error:
            log.warning("%s: can't be written now: %s", path, error.strerror)
            self._pending.append((path, slide))
            self._failures, self._failed = 1, self._clock()
            return True

    def flush(self, free: Callable[[], bool] = lambda: False, at_once: bool = False) -> None:
        """Write what could not be written before; unless `at_once` only after a pause that grows to 30 s."""
        if not self._pending:
            return
        pause = min(0.5 * 2.0**self._failures, LONGEST_PAUSE)
        if not at_once and self._clock() - self._failed < pause:
            return
        try:
            while self._pending:
                _append_insisting(*self._pending[0], free)
                del self._pending[0]
        except OSError as error:
            self._failures, self._failed = self._failures + 1, self._clock()
            if at_once:
                lost = ", ".join(slide.slide_id for _, slide in self._pending)
                log.warning("%s: can't be written: %s: %s", self._path, error.strerror, lost)


def _append_insisting(path: Path, slide: LostSlide, free: Callable[[], bool]) -> bool:
    """Append a line as `_append` does, without file handles after some were freed."""
    while True:
        try:
            return _append(path, slide)
        except OSError as error:
            if error.errno not in HANDLES or not free():
                raise


def _append(path: Path, slide: LostSlide) -> bool:
    """Append a line at once; False if the slide has one."""
    cells = [" ".join(cell.split()) for cell in astuple(slide)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        with contextlib.suppress(OSError):  # no locks here: at worst two processes write the same line
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if any(lost.slide_id == cells[0] and lost.cohort == cells[1] for lost in _parse(file.readall() or b"")):
            return False
        os.write(file.fileno(), ("\t".join(cells) + "\n").encode())
    return True


def _parse(data: bytes) -> list[LostSlide]:
    rows = [line.split("\t") for line in data.decode(errors="replace").splitlines()]
    return [LostSlide(*cells) for cells in rows if len(cells) == 4]


def read_quarantine(path: Path) -> list[LostSlide]:
    """The slides of a record; none where there is no file.

    Raises:
        MidnightError: the file can't be read.
    """
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MidnightError(f"{path}: can't be read: {error.strerror}") from error
