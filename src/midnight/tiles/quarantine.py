"""The slides that turned out unreadable while a run drew tiles from them: logged once, and recorded for the report.

The record has a line per slide: slide id, cohort, path and reason, separated by tabs, in the order found. All of a
run's processes append to the same file, under a lock where the file system has them.
"""

import contextlib
import fcntl
import logging
import os
from dataclasses import astuple, dataclass
from pathlib import Path

from midnight.errors import MidnightError

log = logging.getLogger(__name__)

FILE = "quarantined.tsv"


@dataclass(frozen=True)
class LostSlide:
    """A slide that could not be read, and why."""

    slide_id: str
    cohort: str
    path: str
    reason: str


class Quarantine:
    """Where a process tells of slides that it leaves out; without a path it only logs them."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def add(self, slide: LostSlide) -> None:
        """Log a slide and append it to the record, unless it is there already. A failure to write is only logged."""
        new = True
        if self._path is not None:
            try:
                new = _append(self._path, slide)
            except OSError as error:
                log.warning("%s: can't be written: %s", self._path, error.strerror)
        if new:
            log.warning("slide %s is left out: %s", slide.slide_id, slide.reason)


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
