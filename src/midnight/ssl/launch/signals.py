"""Being told to stop: Ctrl-C or a scheduler's warning becomes a checkpoint and a status that asks for another start."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from midnight.children import ASKED
from midnight.errors import MidnightError
from midnight.logs import say

log = logging.getLogger(__name__)
SIGNALS = ASKED
"""Ctrl-C, what Slurm sends at the end of a job, what it is asked to send before it, and a terminal that is closed."""
LAST = 3
"""The Ctrl-C that ends a run at once."""


class StoppedError(MidnightError):
    """Training stopped since it was told to, with everything saved: run again to go on."""

    status = os.EX_TEMPFAIL


class StoppedByOtherError(StoppedError):
    """The same, because another process of the run was told, or can't go on."""


class StopRequest:
    """Whether this process has been told to stop."""

    def __init__(self, speaks: bool = True) -> None:
        """Nothing yet.

        Args:
            speaks: tell the person what happens, and give up at the third Ctrl-C. A process whose launcher does both
                does neither: one Ctrl-C reaches it twice.
        """
        self.received: signal.Signals | None = None
        self.speaks = speaks
        self.interrupts = 0
        self.give_up: Callable[[], None] = _die

    def __bool__(self) -> bool:
        return self.received is not None

    def check(self, what: str) -> None:
        """Go on unless told to stop.

        Raises:
            StoppedError: `what` was stopped.
        """
        if self.received is not None:
            raise StoppedError(f"{what}: stopped by {self.received.name}; run again to go on")

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Only a note: whatever is under way (a collective, an optimizer step) must not be torn apart."""
        first = self.received is None
        self.received = self.received or signal.Signals(number)
        self.interrupts += number == signal.SIGINT
        if not self.speaks:
            return
        if self.interrupts >= LAST:
            say("ended at once: what came after the last checkpoint is lost")
            self.give_up()
        elif number == signal.SIGINT and not first:
            say("still saving; one more Ctrl-C ends at once and loses what came after the last checkpoint")
        elif first:
            say(f"{self.received.name}: saves what is trained so far, then ends; please wait")


_requests: list[StopRequest] = []


@contextlib.contextmanager
def stop_on_signals(speaks: bool = True) -> Iterator[StopRequest]:
    """Within the block SIGNALS only make a note, for the training loop to look at; a block within it has the same note.

    Outside of the main thread, where Python allows no handlers, the note is never made.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    if _requests:
        yield _requests[0]
        return
    request = StopRequest(speaks)
    _requests.append(request)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler != signal.SIG_IGN:  # nohup: the terminal may go
            signal.signal(number, request.note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield request
    finally:
        _requests.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _die() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
