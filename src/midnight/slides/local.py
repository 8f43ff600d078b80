"""Slides that are already here: a folder, or a CSV that lists them.

Every file with a suffix of OpenSlide's formats is a slide. For DICOM that means one slide per `.dcm` file: where a
series has several (one per level), list one of each series in a CSV instead.
"""

import csv
import hashlib
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from midnight.errors import ConfigError
from midnight.slides.names import slide_id_of, unique_slide_ids
from midnight.slides.record import SUFFIXES, Refused, Slide

logger = logging.getLogger(__name__)

UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TEXT_COLUMNS = ("project_id", "case_id")


@dataclass(frozen=True)
class _Found:
    """A slide as found: its path, the key that its file id is made of, and what the CSV says about it."""

    path: str
    key: str
    slide_id: str
    row: dict[str, Any]


def find_slides(path: str) -> tuple[list[Slide], list[Refused]]:
    """The slides of a folder (all levels, links followed) or of a CSV, sorted by slide_id.

    A CSV has the columns `path` (relative ones are relative to the CSV) and optionally slide_id, mpp (µm/px at level
    0), project_id, case_id. A listed file that is not there stays in, with size 0: it is quarantined when fetched.

    Raises:
        ConfigError: no such folder or CSV, no slides in it, or a wrong row.
    """
    root = Path(path).expanduser()
    refused: list[Refused] = []
    if root.is_dir():
        found = list(_walk(root, refused))
    elif root.is_file():
        found = list(_rows(root))
    else:
        raise ConfigError(f"{root}: no such folder or CSV of slides; set the cohort's path")
    slides = _slides(found, refused)
    if not slides:
        suffixes = " ".join(sorted(SUFFIXES))
        raise ConfigError(f"{root}: no slides there (files ending in {suffixes}); set the cohort's path")
    return slides, refused


def _walk(root: Path, refused: list[Refused]) -> Iterator[_Found]:
    def unreadable(error: OSError) -> None:
        refused.append(Refused(repr(error.filename), f"the folder can't be read: {error.strerror}"))

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up, or to a folder that was visited
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in sorted(files) if _is_slide(name)]
        _warn_of_dicom(folder, names)
        for name in names:
            path = Path(folder, name)
            yield _Found(str(path), path.relative_to(root).as_posix(), "", {})


def _is_slide(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _warn_of_dicom(folder: str, names: list[str]) -> None:
    count = sum(name.lower().endswith(".dcm") for name in names)
    if count > 1:
        logger.warning("%s: %d .dcm files, each taken for a slide; list one per series in a CSV instead", folder, count)


def _rows(path: Path) -> Iterator[_Found]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "path" not in columns:
                raise ConfigError(
                    f"{path}: a CSV of slides needs a column 'path'; it has {', '.join(columns) or 'none'}"
                )
            for row in reader:
                yield _found(path, reader.line_num, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: can't be read as a CSV: {error}") from error


def _found(csv_path: Path, line: int, row: dict[str, Any]) -> _Found:
    cells = {name: (value or "").strip() for name, value in row.items() if name and isinstance(value, str | None)}
    where = f"{csv_path}, line {line}, column"
    if not cells["path"]:
        raise ConfigError(f"{where} path: is empty; name a slide or delete the line")
    slide_id = cells.get("slide_id", "")
    if slide_id and slide_id != slide_id_of(slide_id + ".svs"):
        raise ConfigError(f"{where} slide_id: {slide_id!r}: use letters, digits and single ._- between them")
    known: dict[str, Any] = {name: cells[name] for name in TEXT_COLUMNS if cells.get(name)}
    if cells.get("mpp"):
        known["mpp"] = _mpp(cells["mpp"], where)
    path = Path(cells["path"]).expanduser()
    return _Found(str(csv_path.parent / path), cells["path"], slide_id, known)


def _mpp(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{where} mpp: {text!r} is not a positive number (µm per pixel at level 0)")
    return value


def _slides(found: list[_Found], refused: list[Refused]) -> list[Slide]:
    fit: dict[str, _Found] = {}
    for item in found:
        if problem := _problem(item, fit):
            refused.append(Refused(repr(item.path), problem))
        else:
            fit[item.key] = item
    slides = [_slide(item) for item in fit.values()]
    names = [slide.slide_id or slide.file_name for slide in slides]
    derived = unique_slide_ids(names, [slide.file_id for slide in slides])
    named = [replace(slide, slide_id=slide.slide_id or new) for slide, new in zip(slides, derived, strict=True)]
    _refuse_duplicates(named)
    return sorted(named, key=lambda slide: slide.slide_id)


def _problem(item: _Found, fit: dict[str, _Found]) -> str:
    if UNFIT.search(item.path) or "\\" in Path(item.path).name:
        return "its path holds control characters, a backslash or bytes that are not UTF-8; rename it"
    return "it is listed twice" if item.key in fit else ""


def _slide(item: _Found) -> Slide:
    path = Path(item.path)
    extra = {"path": item.path} | {name: value for name, value in item.row.items() if name not in TEXT_COLUMNS}
    return Slide(
        slide_id=item.slide_id,
        source="local",
        file_id=hashlib.sha256(item.key.encode()).hexdigest()[:16],
        file_name=path.name.lstrip("."),
        size=path.stat().st_size if path.is_file() else 0,
        md5="",
        project_id=item.row.get("project_id", ""),
        case_id=item.row.get("case_id", ""),
        extra=extra,
    )


def _refuse_duplicates(slides: list[Slide]) -> None:
    count = Counter(slide.slide_id.casefold() for slide in slides)
    for slide in slides:
        if count[slide.slide_id.casefold()] > 1:
            raise ConfigError(
                f"{slide.extra['path']}: slide_id {slide.slide_id!r} occurs twice; give each slide its own"
            )
