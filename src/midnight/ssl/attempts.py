"""Attempts of the workflow at one run: those that time limits and lost machines call for, not those that are vain."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from midnight.atomic import write_text
from midnight.errors import MidnightError
from midnight.ssl.signals import StoppedError

NOTE = "error.txt"


@contextlib.contextmanager
def attempted(output: Path, attempt: int) -> Iterator[None]:
    """Run the block, unless the attempt before failed and had saved nothing: the next would fail in the same way.

    A job that was stopped or killed gets its next attempt, and so does one that failed after it had saved a checkpoint.

    Args:
        output: the run's folder, with `checkpoints/`.
        attempt: 1 for the first since somebody started the workflow; that one is always made.

    Raises:
        MidnightError: the attempt before failed and had saved nothing; the block was not run.
    """
    note = output / NOTE
    if attempt > 1 and note.is_file():
        raise MidnightError(f"{note.read_text(encoding='utf-8')} (not tried again, since nothing new had been saved)")
    note.unlink(missing_ok=True)
    before = _newest(output)
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        if _newest(output) == before:
            write_text(note, f"{error}" if isinstance(error, MidnightError) else f"{type(error).__name__}: {error}")
        raise


def _newest(output: Path) -> str:
    return max((path.name for path in output.glob("checkpoints/step_*")), default="")
