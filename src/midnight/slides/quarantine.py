"""What became of each slide: ok, quarantined or unavailable, with a reason; the table that the tissue stage reads."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from midnight.errors import ConfigError
from midnight.slides.table import read_table, write_table

COLUMNS = ("slide_id", "path", "status", "reason", "bytes", "seconds", "mpp")
UNAVAILABLE = "unavailable"


class QuarantineError(Exception):
    """A slide can't be used; the message is the reason that the ledger shows."""


class UnavailableError(Exception):
    """A slide can't be had now, and may be later; the message is the reason that the ledger shows."""


@dataclass(frozen=True)
class SlideStatus:
    """One row of `slides/{cohort}/{shard}.tsv`.

    Attributes:
        slide_id: as in the manifest.
        path: the file; empty when the slide is not ok.
        status: ok, quarantined (for good) or unavailable (the next run tries it again).
        reason: why it is not ok.
        bytes: size of what is on disk.
        seconds: time that fetching took.
        mpp: µm/px at level 0 as the manifest states it, for slides that don't say themselves.
    """

    slide_id: str
    path: str
    status: str
    reason: str
    bytes: int
    seconds: float
    mpp: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the slide can be used."""
        return self.status == "ok"

    @property
    def unavailable(self) -> bool:
        """Whether the next run should try the slide again."""
        return self.status == UNAVAILABLE


def usable(slide_id: str, path: Path | str, size: int, seconds: float = 0.0, mpp: float | None = None) -> SlideStatus:
    """A slide that is there, whole and checked."""
    return SlideStatus(slide_id, str(path), "ok", "", size, round(seconds, 3), mpp)


def quarantined(slide_id: str, reason: str, size: int = 0, seconds: float = 0.0) -> SlideStatus:
    """A slide that is left out, and why (put on one line)."""
    return SlideStatus(slide_id, "", "quarantined", " ".join(reason.split()), size, round(seconds, 3))


def unavailable(slide_id: str, reason: str, size: int = 0, seconds: float = 0.0) -> SlideStatus:
    """A slide that is left out for now, and why (put on one line)."""
    text = f"unavailable for now: {' '.join(reason.split())}"
    return SlideStatus(slide_id, "", UNAVAILABLE, text, size, round(seconds, 3))


def write_statuses(path: Path, statuses: Iterable[SlideStatus], header: Mapping[str, object]) -> None:
    """Write the table atomically."""
    rows = (["" if cell is None else cell for cell in astuple(status)] for status in statuses)
    write_table(path, COLUMNS, rows, header)


def read_statuses(path: str | Path) -> list[SlideStatus]:
    """The rows of `slides/{cohort}/{shard}.tsv`.

    Raises:
        ConfigError: the file is not such a table.
    """
    table = read_table(path)
    if table.columns != COLUMNS:
        raise ConfigError(f"{path}: columns are {', '.join(table.columns)}; expected {', '.join(COLUMNS)}")
    try:
        return [_status(*cells) for _, cells in table.rows]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; run the rule fetch_slides again") from error


def _status(slide_id: str, path: str, status: str, reason: str, size: str, seconds: str, mpp: str) -> SlideStatus:
    known = float(mpp) if mpp else None
    return SlideStatus(slide_id, path, status, reason, int(size), float(seconds), known)
