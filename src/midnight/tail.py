"""The end of a job's log: what went wrong, in a few lines."""

import os
from pathlib import Path

LAST_LINES = 10
TAIL = 200_000
"""Bytes of a log that are looked at."""
ERROR = " ERROR midnight: "
"""In the line that the pipeline's own scripts leave; the traceback of its cause comes below."""


def read_tail(path: Path) -> list[str]:
    """The last lines of a log that say something; none where it can't be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return []
    # a progress bar writes over its line
    return [line for line in (line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines) if line.strip()]


def error_line(lines: list[str]) -> str:
    """The last line in which one of our scripts says what is wrong; empty where there is none."""
    return next((line.partition(ERROR)[2] for line in reversed(lines) if ERROR in line), "")


def last_lines(path: Path) -> list[str]:
    """For a failed job: what its script says is wrong, the last lines of the log, where the log is."""
    lines = read_tail(path)
    said = error_line(lines)
    shown = lines[-LAST_LINES:]
    first = [f"error: {said}"] if said and not error_line(shown) else []
    return [*first, *(f"| {line}" for line in shown), f"log: {path}{_why_nothing(path) if not shown else ''}"]


def _why_nothing(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        return f" ({error.strerror})"
    return " (empty)" if os.access(path, os.R_OK) else " (can't be read)"
