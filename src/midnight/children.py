"""Processes that this one starts: deaf to signals that are meant for it, and gone when it is."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""What asks a process to end, or warns that it will have to: the terminal, a scheduler."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


def obey_parent_only(parent: int, terminable: bool = False) -> None:
    """In a child: ignore what a terminal or scheduler sends to the whole group; be killed when the parent ends.

    The parent answers such signals, and may still need this process to do so. (Outside of Linux the child lives on.)

    Args:
        parent: the parent's number, as it was before the child began; it may be gone by now.
        terminable: end at a SIGTERM, where the parent ends its children by one.
    """
    for number in ASKED:
        signal.signal(number, signal.SIG_DFL if terminable and number == signal.SIGTERM else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Within the block signals wait, in this thread and in processes that it starts, until these are ready for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
