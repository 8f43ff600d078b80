"""When the workflow starts a run again: after a time limit or a lost machine, not after an error that would recur."""

import contextlib
import json
import logging
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.errors import GivenUpError, MidnightError
from midnight.ssl.launch.signals import StoppedError

log = logging.getLogger(__name__)
NOTE = "failure.json"
MOST_IDLE = 5
"""Attempts in a row that may end, in whatever way, with nothing saved [our choice]."""


def forget_failures(outputs: Iterable[Path]) -> None:
    """Give these runs all their attempts again; for the start of a workflow."""
    for output in outputs:
        (output / NOTE).unlink(missing_ok=True)


@contextlib.contextmanager
def attempted(output: Path) -> Iterator[None]:
    """Run the block, unless the attempts before saved nothing: two that failed alike, or five that just ended.

    How many attempts there are does not matter: a run of weeks under a time limit of hours has hundreds.

    Args:
        output: the run's folder, with `checkpoints/` and, after a failure, the note of it.

    Raises:
        GivenUpError: of the attempts before; the block was not run. The traceback of two that failed is in the log.
    """
    note = _read(output / NOTE)
    if note.get("times", 0) > 1:
        log.error("%s", note["traceback"])
        raise GivenUpError(f"{note['error']} (not tried again: it came twice, with nothing saved in between)")
    before = _saved(output)
    note = note | _begun(note, before)
    if note["idle"] >= MOST_IDLE:
        raise GivenUpError(
            f"{output}: {note['idle']} attempts in a row ended before anything was saved: give rule train more time "
            "(set-resources train:runtime), or lower training.checkpoint_every, and run again"
        )
    _write(output, note)
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        text = f"{error}" if isinstance(error, MidnightError) else f"{type(error).__name__}: {error}"
        new = bool(set(_saved(output)) - set(before))
        times = 0 if new else 1 + note.get("times", 0) * (note.get("error") == text)
        _write(output, note | {"error": text, "times": times, "traceback": traceback.format_exc()})
        raise
    (output / NOTE).unlink(missing_ok=True)


def _begun(note: dict[str, Any], saved: list[str]) -> dict[str, Any]:
    """What an attempt notes when it begins: it may be killed, and then says nothing at its end."""
    return {"saved": saved, "idle": note["idle"] + 1 if note.get("saved") == saved else 0}


def _write(output: Path, note: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, MidnightError):  # on a full disk the error itself says more
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / NOTE, note)


def _saved(output: Path) -> list[str]:
    """Complete checkpoints; with their inodes, since a run that began anew gives the same names."""
    return sorted(f"{path.name} {path.stat().st_ino}" for path in output.glob("checkpoints/step_" + "[0-9]" * 8))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
