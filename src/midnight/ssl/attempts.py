"""Attempts of the workflow at one run: those that time limits and lost machines call for, not those that are vain."""

import contextlib
import json
import logging
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.errors import MidnightError
from midnight.ssl.signals import StoppedError

log = logging.getLogger(__name__)
NOTE = "failure.json"


def forget_failures(outputs: Iterable[Path]) -> None:
    """Give these runs all their attempts again; for the start of a workflow."""
    for output in outputs:
        (output / NOTE).unlink(missing_ok=True)


@contextlib.contextmanager
def attempted(output: Path) -> Iterator[None]:
    """Run the block, unless two attempts failed in the same way and saved nothing: the next would too.

    Args:
        output: the run's folder, with `checkpoints/` and, after a failure, the note of it.

    Raises:
        MidnightError: of the two attempts before; the block was not run. Their traceback is in the log.
    """
    note = _read(output / NOTE)
    if note.get("times", 0) > 1:
        log.error("%s", note["traceback"])
        raise MidnightError(f"{note['error']} (not tried again: it came twice, with nothing saved in between)")
    before = _saved(output)
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        text = f"{error}" if isinstance(error, MidnightError) else f"{type(error).__name__}: {error}"
        new = bool(_saved(output) - before)
        times = 0 if new else 1 + note.get("times", 0) * (note.get("error") == text)
        with contextlib.suppress(OSError, MidnightError):  # on a full disk the error itself says more
            write_json(output / NOTE, {"error": text, "times": times, "traceback": traceback.format_exc()})
        raise


def _saved(output: Path) -> set[tuple[str, int]]:
    """Complete checkpoints; with their inodes, since a run that began anew gives the same names."""
    return {(path.name, path.stat().st_ino) for path in output.glob("checkpoints/step_" + "[0-9]" * 8)}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
