"""`slides.tsv`: what became of each slide that was asked for."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from midnight.atomic import write_text
from midnight.errors import MidnightError
from midnight.outputs import check_file, text_with

NAME = "slides.tsv"
OK, FAILED, LEFT_OUT, TO_DO = "ok", "failed", "left out", "not yet"


@dataclass(frozen=True)
class Row:
    """A slide.

    status: ok, failed, left out (never tried) or not yet (the command was stopped); tiles: with features; damaged:
    tiles that can't be read; mpp: of level 0, µm/px, 0 if not known; seconds; reason: why it is not ok.
    """

    slide_id: str
    path: str
    status: str
    tiles: int = 0
    damaged: int = 0
    mpp: float = 0.0
    seconds: float = 0.0
    reason: str = ""


COLUMNS = "\t".join(field.name for field in fields(Row))


def check_table(path: Path, inputs: Iterable[str | Path], force: bool) -> None:
    """Refuse to write the table over anything but such a table.

    Raises:
        MidnightError: the file is one that is read, or something else and not to be replaced (`force`).
    """
    check_file(path, inputs, text_with(COLUMNS), force)


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write the table, atomically."""
    lines = ["\t".join(" ".join(str(cell).split()) for cell in astuple(row)) for row in rows]
    write_text(path, "\n".join([COLUMNS, *lines]) + "\n")


def read_table(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        MidnightError: it can't be read, or is none.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        cells = [line.split("\t") for line in lines]
        if header != COLUMNS:
            raise MidnightError(f"{path}: no table of embedded slides; its columns must be {COLUMNS.split()}")
        return [_row(*row) for row in cells]
    except (OSError, ValueError, TypeError) as error:
        raise MidnightError(f"{path}: no table of embedded slides: {error}") from error


def _row(slide_id: str, path: str, status: str, tiles: str, damaged: str, mpp: str, seconds: str, reason: str) -> Row:
    return Row(slide_id, path, status, int(tiles), int(damaged), float(mpp), float(seconds), reason)


def summary(rows: Iterable[Row]) -> str:
    """In words: "63 slides with 41,207 tiles; 2 failed"."""
    rows = list(rows)
    counts = Counter(row.status for row in rows)
    tiles = sum(row.tiles for row in rows)
    others = "".join(f"; {counts[status]} {status}" for status in (FAILED, LEFT_OUT, TO_DO) if counts[status])
    damaged = sum(row.damaged for row in rows if row.status == OK)
    lost = f" ({damaged:,} damaged ones are left out)" if damaged else ""
    return f"{counts[OK]} slide{'s' * (counts[OK] != 1)} with {tiles:,} tiles{lost}{others}"
