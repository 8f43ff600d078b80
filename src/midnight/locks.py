"""Locks of files between processes."""

import fcntl
import logging
from typing import IO, Any

from midnight.errors import MidnightError

LOG = logging.getLogger(__name__)


def claim(file: IO[Any], busy: str, unlocked: str) -> None:
    """Lock an open file for this process alone, until it is closed.

    Args:
        file: any; closed here if another process has it.
        busy: the error's text then.
        unlocked: what is logged on a file system that has no locks.

    Raises:
        MidnightError: another process has locked it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise MidnightError(busy) from error
    except OSError:
        LOG.warning("%s", unlocked)
