"""Locks between threads, processes and machines that share a folder, on any file system, for hours of work.

Locks of the kernel end with their process, but many cluster file systems keep them on one machine or have none. Here a
lock is a file that only one can create. Its owner touches it every BEAT seconds. Others wait while it changes, and
take it over once its owner's process has ended (seen from the same machine) or it has not changed for STALE seconds
by their own clock, so that clocks need not agree.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midnight.errors import MidnightError

LOG = logging.getLogger(__name__)

BEAT = 20.0
STALE = 180.0
POLL = 0.5


@contextlib.contextmanager
def hold(path: Path, pause: Callable[[float], None] = time.sleep) -> Iterator["Lease"]:
    """Have the lock file `path`, in a folder that exists, to oneself; that it has to be waited for is logged.

    Args:
        path: the lock file; it is gone afterwards.
        pause: waits for some seconds; what it raises ends the wait.

    Raises:
        MidnightError: the folder can't be written.
    """
    lease = Lease(path)
    lease.take(pause)
    ended = threading.Event()
    beats = threading.Thread(target=lease.beat, args=(ended,), name="lease", daemon=True)
    beats.start()
    try:
        yield lease
    finally:
        ended.set()
        beats.join()
        lease.release()


@dataclass
class Lease:
    """One owner's claim to a lock file.

    Attributes:
        path: the file.
        owner: its content while it is ours: who we are.
    """

    path: Path
    owner: str = field(default_factory=lambda: json.dumps(_myself() | {"token": uuid.uuid4().hex}))
    _seen: float = 0.0

    def take(self, pause: Callable[[float], None]) -> None:
        """Wait until the lock is ours.

        Raises:
            MidnightError: the folder can't be written.
        """
        before: tuple[str, int] | None = None
        since = time.monotonic()
        while not self._create():
            now = _look(self.path)
            if now is None:
                continue
            if now != before:
                if before is None:
                    LOG.info("%s: waits for %s, which is at work on it", self.path, _name(now[0]))
                before, since = now, time.monotonic()
            silent = time.monotonic() - since
            if silent > STALE or _has_ended(now[0]):
                LOG.warning("%s: taken over from %s, which has ended or hangs", self.path, _name(now[0]))
                _remove(self.path, now[0])
            else:
                pause(POLL)

    def check(self) -> None:
        """Make sure, every BEAT seconds at most, that the lock is still ours.

        Raises:
            MidnightError: it was taken over, since this process stood still for a long time.
        """
        # not the monotonic clock, which may stand still with the machine
        if abs(time.time() - self._seen) > BEAT and not self._touch():
            text = f"{self.path}: another process has taken over this lock, since this one stood still; run again"
            raise MidnightError(text)

    def beat(self, ended: threading.Event) -> None:
        """Show that the owner lives, until `ended`."""
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):  # a network file system that stutters
                if not self._touch():
                    return

    def release(self) -> None:
        """Remove the lock if it is ours."""
        with contextlib.suppress(OSError):
            found = _look(self.path)
            if found and found[0] == self.owner:
                self.path.unlink()

    def _create(self) -> bool:
        try:
            with self.path.open("x", encoding="utf-8") as file:
                file.write(self.owner)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # made, but empty
                self.path.unlink(missing_ok=True)
            raise MidnightError(f"{self.path.parent}: can't be written: {error.strerror}") from error
        self._seen = time.time()
        return True

    def _touch(self) -> bool:
        """Touch the lock; False if it is no longer ours."""
        found = _look(self.path)
        if not found or found[0] != self.owner:
            return False
        os.utime(self.path)
        self._seen = time.time()
        return True


def _myself() -> dict[str, Any]:
    """Host, process, and the space in which the process has that number (containers have their own)."""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "space": space, "pid": os.getpid()}


def _look(path: Path) -> tuple[str, int] | None:
    """A lock's content and time of change; None if there is none. Opened, since network file systems cache the rest."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _read(owner: str) -> dict[str, Any]:
    try:
        known = json.loads(owner)
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _name(owner: str) -> str:
    known = _read(owner)
    return f"process {known.get('pid', '?')} on {known.get('host', 'an unknown machine')}"


def _has_ended(owner: str) -> bool:
    """Whether an owner's process is known not to run any more: only where it would be seen from here."""
    known, here = _read(owner), _myself()
    if not known or any(known.get(key) != here[key] for key in ("host", "space")):
        return False
    try:
        os.kill(int(known["pid"]), 0)
    except ProcessLookupError:
        return True
    except (KeyError, TypeError, ValueError, OSError):
        return False
    return False


def _remove(path: Path, owner: str) -> None:
    """Remove a lock if it is still that owner's: moved aside first, for another process may be quicker."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
        found = _look(aside)
        if found and found[0] != owner:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
    except FileNotFoundError:
        return
    finally:
        aside.unlink(missing_ok=True)
