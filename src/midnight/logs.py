"""Logging of workflow scripts: everything into the rule's log, one clear line to the person."""

import atexit
import contextlib
import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from midnight.errors import MidnightError

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def setup(level: int = logging.INFO) -> None:
    """Log to standard error with time, level and module."""
    logging.basicConfig(level=level, format=FORMAT, force=True)


@contextlib.contextmanager
def redirect(log: str | Path) -> Iterator[None]:
    """Send standard output and error, also of child processes and C libraries, to the file `log`.

    A `MidnightError` ends the script with its status and its one line on the real standard error; any
    other exception too, with the traceback in the log, where a `MidnightError`'s cause has its own.
    """
    leave_at_once()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    saved_out = os.dup(1)
    with open(log, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    setup()
    status = 0
    try:
        yield
    except MidnightError as error:
        status = error.status
        _tell(terminal, f"error: {error}")
        logging.getLogger("midnight").error("%s", error, exc_info=error.__cause__)
    except Exception as error:
        status = 1
        traceback.print_exc()
        _tell(terminal, f"error: {type(error).__name__}: {error} (traceback in {log})")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved_out, 1)
        os.dup2(terminal, 2)
        os.close(saved_out)
        os.close(terminal)
    if status:
        sys.exit(status)


def leave_at_once() -> None:
    """Spare this process Python's last garbage collection, 2 s where eva is imported, of memory that ends with it."""
    atexit.register(gc.freeze)


def _tell(terminal: int, line: str) -> None:
    os.write(terminal, f"midnight: {' '.join(line.split())}\n".encode())
