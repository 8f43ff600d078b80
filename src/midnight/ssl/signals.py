"""Being told to stop: a scheduler's warning becomes a checkpoint and an exit code that asks for another start."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from midnight.errors import MidnightError

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What Slurm sends at the end of a job, and what it is asked to send before it."""


class StoppedError(MidnightError):
    """Training stopped since it was told to, with everything saved: run again to go on."""

    status = os.EX_TEMPFAIL


class StopRequest:
    """Whether this process has been told to stop."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.received is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Only a note: whatever is under way (a collective, an optimizer step) must not be torn apart."""
        self.received = signal.Signals(number)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGTERM and SIGUSR1 only make a note, for the training loop to look at.

    Outside of the main thread, where Python allows no handlers, the note is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
