"""Failures of disks as one line that says what to do."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from midnight.errors import MidnightError


@contextlib.contextmanager
def writing(folder: Path, advice: str, needed: int = 0) -> Iterator[None]:
    """Turn failures to write, or to read what was written, into one line.

    Args:
        folder: where to.
        advice: what to do about a full disk.
        needed: bytes that are still to be written, if known.

    Raises:
        MidnightError: the disk is full, or a file can't be read or written.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"{needed} more bytes are needed" if needed else why
            raise full(folder, why, advice) from error
        raise MidnightError(f"{folder}: can't be read or written: {why}") from error


def full(folder: Path, why: str, advice: str) -> MidnightError:
    """The error for a disk without room."""
    return MidnightError(f"{folder}: the disk is full: {why}; {advice}")
