"""Logging of workflow scripts: everything into the rule's log, one clear line to the person."""

import atexit
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from midnight.errors import MidnightError

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CLEAR = "\r\033[K"
"""Cursor to the left and the line cleared: on a terminal the workflow's status line may be there."""
_person = [2]
"""The file descriptor on which a person reads; behind `redirect` not standard error."""


class TerminatedError(KeyboardInterrupt):
    """A SIGTERM, which ends what is under way as Ctrl-C does."""


def setup(level: int = logging.INFO) -> None:
    """Log to standard error with time, level and module."""
    logging.basicConfig(level=level, format=FORMAT, force=True)


@contextlib.contextmanager
def redirect(log: str | Path) -> Iterator[None]:
    """Send standard output and error, also of child processes and C libraries, to the file `log`.

    A `MidnightError` ends the script with its status and its one line on the real standard error; any
    other exception too, with the traceback in the log, where a `MidnightError`'s cause has its own. So do Ctrl-C
    and SIGTERM, with the statuses 130 and 143, without waiting for other threads.
    """
    leave_at_once()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    _mark(log).unlink(missing_ok=True)
    terminal = os.dup(2)
    saved_out = os.dup(1)
    with open(log, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _person.append(terminal)
    setup()
    status, interrupted = 0, False
    try:
        with sigterm_as_interrupt():
            yield
    except MidnightError as error:
        status = error.status
        if error.permanent:
            _mark(log).touch()
        say(f"error: {error}")
        logging.getLogger("midnight").error("%s", error, exc_info=error.__cause__)
    except KeyboardInterrupt as interrupt:
        status, interrupted = end_of(interrupt), True
    except Exception as error:
        status = 1
        traceback.print_exc()
        say(f"error: {type(error).__name__}: {error} (traceback in {log})")
    finally:
        _person.pop()
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved_out, 1)
        os.dup2(terminal, 2)
        os.close(saved_out)
        os.close(terminal)
    if interrupted:
        os._exit(status)
    if status:
        sys.exit(status)


def is_permanent(log: str | Path) -> bool:
    """Whether the last script that wrote this log ended with an error after which another try is vain."""
    return _mark(log).exists()


def _mark(log: str | Path) -> Path:
    return Path(f"{log}.permanent")


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within the block a SIGTERM raises `TerminatedError`, so that temporary files are removed as after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_of(interrupt: KeyboardInterrupt) -> int:
    """Tell the person that an interrupt ends this process; the status to end with."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it is ending already
    terminated = isinstance(interrupt, TerminatedError)
    say(f"stopped by {'SIGTERM' if terminated else 'Ctrl-C'}; what is complete is kept: run again to go on")
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def warn(logger: logging.Logger, line: str) -> None:
    """Log a warning that also a person at the terminal should see, whose standard error may go to the log."""
    logger.warning("%s", line)
    if len(_person) > 1:
        say(f"warning: {line}")


def say(line: str) -> None:
    """One line to the person, wherever standard error goes; also from a signal's handler."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        over = CLEAR if os.isatty(_person[-1]) else ""
        os.write(_person[-1], f"{over}midnight: {' '.join(line.split())}\n".encode())


def leave_at_once() -> None:
    """Spare this process Python's last garbage collection, 2 s where eva is imported, of memory that ends with it."""
    atexit.register(gc.freeze)
