"""Slide manifests (`manifest.tsv`). Imports little: the Snakefile reads manifests at every start."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midnight.errors import ConfigError, MidnightError
from midnight.slides.gdc_rows import read_gdc_manifest
from midnight.slides.names import file_name_problem
from midnight.slides.record import Refused, Slide
from midnight.slides.schema import checks
from midnight.slides.table import read_table, write_table

__all__ = [
    "COLUMNS",
    "Slide",
    "read_gdc_manifest",
    "read_header",
    "read_manifest",
    "read_refused",
    "refused_entries",
    "write_manifest",
]

REFUSED = "refused"
COLUMNS = ("slide_id", "source", "file_id", "file_name", "size", "md5", "project_id", "case_id", "extra")


def read_manifest(path: str | Path) -> list[Slide]:
    """The slides of a manifest in our own form (.gz too), checked row by row.

    Raises:
        ConfigError: names the file, the line and the column that is wrong.
    """
    return list(_cached_manifest(str(path), stamp(path)))


def read_header(path: str | Path) -> dict[str, str]:
    """The manifest's header comments: query, data release, date, count, bytes, what was excluded."""
    return read_table(path).header


def refused_entries(rows: Sequence[Refused]) -> dict[str, str]:
    """The header's entries of what was refused at pinning: [name, reason] as JSON, for a name may hold a colon."""
    return {f"{REFUSED} {number}": json.dumps([row.name, row.reason]) for number, row in enumerate(rows, 1)}


def read_refused(path: str | Path) -> list[Refused]:
    """What a manifest's header says was refused: files or rows that did not become slides, and why.

    Raises:
        ConfigError: the file can't be read.
    """
    found = (value for key, value in read_header(path).items() if key.startswith(f"{REFUSED} "))
    return [Refused(*json.loads(value)) for value in found if value.startswith("[")]


def write_manifest(path: str | Path, slides: Sequence[Slide], header: Mapping[str, object]) -> None:
    """Write slides sorted by slide_id, with count and bytes added to the header, atomically.

    Raises:
        MidnightError: a slide breaks the schema, two share a slide_id, or the file can't be written.
    """
    ordered = sorted(slides, key=lambda slide: slide.slide_id)
    rows = [cells_of(slide) for slide in ordered]
    for slide, row in zip(ordered, rows, strict=True):
        if problem := _problem(slide):
            raise MidnightError(f"{path}: slide {row[0]!r}: column {problem}")
    _refuse_duplicates(path, ordered)
    sums = {"count": len(ordered), "bytes": sum(slide.size for slide in ordered)}
    write_table(path, COLUMNS, rows, dict(header) | sums)


def stamp(path: str | Path) -> tuple[int, int]:
    """What changes when a file does: time of change in ns, and bytes.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - Path() of every call is most of its cost
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=16)
def _cached_manifest(path: str, _stamp: tuple[int, int]) -> tuple[Slide, ...]:
    table = read_table(path)
    if table.columns != COLUMNS:
        raise ConfigError(f"{path}: columns are {', '.join(table.columns)}; a manifest has {', '.join(COLUMNS)}")
    slides = tuple(_parse(path, number, cells) for number, cells in table.rows)
    _refuse_duplicates(path, slides)
    return slides


def _parse(path: str, number: int, cells: list[str]) -> Slide:
    row: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
    where = f"{path}, line {number}, column"
    if not row["size"].isdecimal() or not row["size"].isascii():
        raise ConfigError(f"{where} size: {row['size']!r} is not a number of bytes")
    try:
        row["extra"] = json.loads(row["extra"], parse_constant=_refuse_constant)
    except ValueError:
        raise ConfigError(f"{where} extra: {row['extra'][:60]!r} is not a JSON object") from None
    slide = Slide(**(row | {"size": int(row["size"])}))
    if problem := _problem(slide):
        raise ConfigError(f"{where} {problem}")
    return slide


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _problem(slide: Slide) -> str:
    for name, check in checks().items():
        value = getattr(slide, name)
        if problem := check(value):
            return f"{name}: {str(value)[:60]!r} {problem}"
    if slide.source == "gdc" and not (slide.md5 and slide.size):
        return f"{'size' if slide.md5 else 'md5'}: a slide to download needs its size and md5"
    if slide.source == "gdc" and (problem := file_name_problem(slide.file_name)):
        return f"file_name: {problem}"
    if slide.source == "local" and not slide.extra.get("path"):
        return "extra: a local slide needs its path there"
    return ""


def cells_of(slide: Slide) -> list[str]:
    """A slide's cells in the order of `COLUMNS`."""
    extra = json.dumps(slide.extra, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return [str(getattr(slide, name)) for name in COLUMNS[:-1]] + [extra]


def _refuse_duplicates(path: str | Path, slides: Sequence[Slide]) -> None:
    seen: set[str] = set()
    for slide in slides:
        if slide.slide_id in seen:
            raise ConfigError(f"{path}, column slide_id: {slide.slide_id!r} occurs twice; slide ids must be unique")
        seen.add(slide.slide_id)
