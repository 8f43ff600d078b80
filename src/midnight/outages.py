"""Faults that pass by themselves, told from faults of a file; and the patience with which they are waited for.

A network mount that hangs for a minute, a folder that is renamed and comes back, a process that is out of file handles:
none of this is a fault of the file that happened to be read. What is tried again, and for how long:

- **Out of file handles** (EMFILE, ENFILE): the caller closes some of its own files, and goes on at once.
- **The file can't be opened** for a reason that passes (see PASSING), or it is missing and so are its neighbours (the
  nearest other files that the caller reads: a folder or mount is away): tried again after pauses that grow from 0.1 to
  30 s, until the limit is used up.
- **The file can be opened, but not read** at one place with such an error (a bad sector): five more times, in 3 s.
- **Anything else** (it alone is missing, it can't be decoded): once more, since what was behind it may have passed.

The limit holds for all that one process waits, not for each file. A second of it is regained in ten seconds without
trouble. When it is used up, the error is the file's own, unless more than a tenth of all files are away: then the
process ends with an error that says so.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from midnight.errors import MidnightError, UnreadableError
from midnight.reading import reading

log = logging.getLogger(__name__)

HANDLES = frozenset((errno.EMFILE, errno.ENFILE))
_PASSING = (
    "EAGAIN EBUSY ECOMM ECONNABORTED ECONNREFUSED ECONNRESET EHOSTDOWN EHOSTUNREACH EINTR EIO EKEYEXPIRED ENETDOWN "
    "ENETRESET ENETUNREACH ENOBUFS ENODEV ENOLINK ENOMEM ENONET ENOTCONN ENXIO EPIPE EPROTO EREMOTEIO ESHUTDOWN ESTALE "
    "ETIME ETIMEDOUT"
)
PASSING = frozenset(getattr(errno, name) for name in _PASSING.split() if hasattr(errno, name))
"""Errors of networks, mounts and devices. A bad sector gives EIO too, which is found out by trying."""

LIMIT = 600.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
TRIES_AT_A_PLACE = 5
REGAIN = 0.1
NEEDED = 8
NEIGHBOURS = 8
LOOKED_AT = 200
MOST_AWAY = 0.1

Found = TypeVar("Found")
Failure = OSError | UnreadableError


def trial(path: str | Path) -> int:
    """Open a file anew and read its first byte: 0, or the system's error number."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        return error.errno or errno.EIO
    try:
        os.pread(fd, 1, 0)
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
    return 0


def few_handles() -> int:
    """0, or the error number with which the last of a few more open files was refused: libraries may hide it."""
    taken: list[int] = []
    try:
        while len(taken) < NEEDED:
            taken.append(os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
    except OSError as error:
        return error.errno if error.errno in HANDLES else 0
    finally:
        for fd in taken:
            os.close(fd)
    return 0


def errno_in(text: str) -> int:
    """The error number whose message a library's own text contains, 0 if there is none."""
    text = text.lower()
    return next((number for number in sorted(PASSING | HANDLES) if os.strerror(number).lower() in text), 0)


class Patience:
    """How long this process waits, in all, for files that are away for the moment."""

    def __init__(
        self,
        limit: float = LIMIT,
        files: Sequence[str] = (),
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait for nothing yet.

        Args:
            limit: seconds.
            files: all that are read, by which a folder that is away is told from a file that is missing.
            sleep: waits so many seconds.
            clock: seconds, rising.
        """
        self._limit = limit
        self._files = files
        self._sleep, self._clock = sleep, clock
        self._spent = 0.0
        self._until = 0.0

    def insist(self, action: Callable[[], Found], path: str, free: Callable[[], bool] = lambda: False) -> Found:
        """What `action` returns, which is tried again where what it fails of may pass.

        Args:
            action: reads a file.
            path: of the file.
            free: closes some of the caller's open files; False if there is none left.

        Raises:
            OSError: that of `action`, when it is the file's own fault or has not passed in time.
            UnreadableError: likewise.
            MidnightError: there are no file handles, or a tenth of the files are away, for longer than the limit.
        """
        wait: _Wait | None = None
        while True:
            reading(path)  # also a sign of life, between pauses that are shorter than what counts as a stall
            try:
                found = action()
            except (OSError, UnreadableError) as error:
                wait = wait or _Wait(path, self._clock())
                self._bear(error, wait, free)
                wait.tries += 1
            else:
                if wait:
                    self._end(wait)
                    wait.tell_end(self._clock())
                return found

    def _bear(self, error: Failure, wait: "_Wait", free: Callable[[], bool]) -> None:
        """Return when it is time for another try; raise when there is none."""
        now = trial(wait.path) or few_handles()
        number = error.errno or now
        if HANDLES & {number, now}:
            if not free():
                self._pause(error, wait, errno.EMFILE)
        elif not now:  # the file can be read, elsewhere at least
            self._pause_for_one(error, wait, number, TRIES_AT_A_PLACE if number in PASSING else 1)
        elif now not in PASSING and self._neighbours_there(wait.path):
            self._pause_for_one(error, wait, now, 1)
        else:
            self._pause(error, wait, now)

    def _pause_for_one(self, error: Failure, wait: "_Wait", number: int, most: int) -> None:
        """A short pause before another try of what is most likely the file's own fault: at most so many."""
        left = self._left(wait)
        if wait.tries >= most or (number and left < FIRST_PAUSE):
            self._end(wait)
            raise error
        if number in PASSING:
            wait.tell(number, left, self._clock())
        if number:
            self._rest(wait, left)

    def _pause(self, error: Failure, wait: "_Wait", number: int) -> None:
        """A pause before another try of what is not the file's fault."""
        left = self._left(wait)
        if left >= FIRST_PAUSE:
            wait.tell(number, left, self._clock())
            return self._rest(wait, left)
        self._end(wait)
        reason = f"{wait.path}: {os.strerror(number).lower()}, after {self._limit:g} s of waiting"
        if number in HANDLES:
            cure = "raise `ulimit -n`, or lower tiles.max_open_slides or training.workers"
            raise MidnightError(f"{reason}: {cure}") from error
        away, of = self._away()
        if away > MOST_AWAY * of:
            cure = "bring the folder back and run again"
            raise MidnightError(f"{reason}, as for {away} of {of} files that were tried: {cure}") from error
        raise error

    def _left(self, wait: "_Wait") -> float:
        """Seconds that may still be waited."""
        now = self._clock()
        if not wait.slept:
            self._spent = max(0.0, self._spent - (now - self._until) * REGAIN)
            self._until = now
        return self._limit - self._spent - (now - wait.since)

    def _rest(self, wait: "_Wait", left: float) -> None:
        wait.slept = True
        self._sleep(min(FIRST_PAUSE * 2.0**wait.tries, LONGEST_PAUSE, left))

    def _end(self, wait: "_Wait") -> None:
        if wait.slept:
            self._until = self._clock()
            self._spent += self._until - wait.since

    def _neighbours_there(self, path: str) -> bool:
        """Whether one of a few files nearest to this one can be read; where none is known, any file of its folder."""
        if near := self._nearest(path):
            return not all(trial(other) for other in near)
        with contextlib.suppress(OSError):
            return any(Path(path).parent.iterdir())
        return False

    def _nearest(self, path: str) -> list[str]:
        """At most 8 others in the closest folder above `path` that holds any."""
        for folder in Path(path).parents:
            inside = f"{folder}{os.sep}" if str(folder) not in (".", os.sep) else ""
            others = [file for file in self._files if file != path and file.startswith(inside)]
            if others:
                return spread(others, NEIGHBOURS)
        return []

    def _away(self) -> tuple[int, int]:
        """How many files can't be opened, of so many tried."""
        tried = spread(self._files, LOOKED_AT)
        return sum(trial(path) != 0 for path in tried), len(tried)


class _Wait:
    """One call's waiting: since when, how often it was tried again, and when that was last said."""

    def __init__(self, path: str, since: float) -> None:
        self.path, self.since = path, since
        self.tries = 0
        self.slept = False
        self._told: float | None = None

    def tell(self, number: int, left: float, now: float) -> None:
        """Say what is waited for: at first, and once a minute."""
        if self._told is None or now - self._told >= 60:
            self._told = now
            log.warning("%s: %s; waiting for it, up to %.0f s", self.path, os.strerror(number).lower(), left)

    def tell_end(self, now: float) -> None:
        """Say that it came back, if it was said that it was away."""
        if self._told is not None:
            log.warning("%s: can be read again, after %.1f s", self.path, now - self.since)


def spread(values: Iterable[str], most: int) -> list[str]:
    """At most so many of the values, evenly spread over all."""
    found = list(values)
    return found[:: max(1, -(-len(found) // most))]
