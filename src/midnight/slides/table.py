"""Tab-separated tables with a header comment (`# key: value`), plain enough for cut, awk and pandas."""

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from midnight.atomic import write_text
from midnight.errors import ConfigError, MidnightError


@dataclass(frozen=True)
class Table:
    """A table as read: header comments, column names, and (line number, cells) per row."""

    header: dict[str, str]
    columns: tuple[str, ...]
    rows: list[tuple[int, list[str]]]


def read_table(path: str | Path) -> Table:
    """Read a table, gzipped if its name ends in .gz.

    Raises:
        ConfigError: the file can't be read, has no line of columns, or a row has too many or too few cells.
    """
    header: dict[str, str] = {}
    columns: tuple[str, ...] = ()
    rows: list[tuple[int, list[str]]] = []
    for number, line in _lines(Path(path)):
        if columns:
            rows.append((number, _cells(path, number, line, columns)))
        elif line.startswith("#"):
            name, _, value = line[1:].partition(":")
            header[name.strip()] = value.strip()
        else:
            columns = tuple(line.split("\t"))
    if not columns:
        raise ConfigError(f"{path}: is empty: no line with column names; write it again")
    return Table(header, columns, rows)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if text := line.rstrip("\r\n"):
                    yield number, text
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _cells(path: str | Path, number: int, line: str, columns: Sequence[str]) -> list[str]:
    cells = line.split("\t")
    if len(cells) != len(columns):
        raise ConfigError(f"{path}, line {number}: {len(cells)} columns instead of {len(columns)}; is it cut off?")
    return cells


def write_table(
    path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]], header: Mapping[str, object]
) -> None:
    """Write a table atomically; header values are put on one line.

    Raises:
        MidnightError: a cell holds a tab or a line break, or the file can't be written.
    """
    lines = [f"# {' '.join(str(name).split())}: {' '.join(str(value).split())}" for name, value in header.items()]
    lines.append("\t".join(columns))
    for row in rows:
        cells = [str(cell) for cell in row]
        if any(mark in cell for cell in cells for mark in "\t\r\n"):
            raise MidnightError(f"{path}: {cells[0]!r}: a cell holds a tab or a line break; rename that file")
        lines.append("\t".join(cells))
    write_text(path, "\n".join(lines) + "\n")
