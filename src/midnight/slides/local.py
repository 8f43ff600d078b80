"""Slides that are already here: a folder, a CSV that lists them, or a single file.

Every file with a suffix of OpenSlide's formats is a slide, but for DICOM: there a series is one, and is named by the
file of its finest level.
"""

import csv
import hashlib
import logging
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from midnight.errors import ConfigError
from midnight.slides.dicom import SlideFile, read_slide_file
from midnight.slides.files import files_of, folder_digest, is_slide, list_digest, look_of, walk
from midnight.slides.names import slide_id_of, unique_slide_ids
from midnight.slides.record import SUFFIXES, Refused, Slide

logger = logging.getLogger(__name__)

UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TEXT_COLUMNS = ("project_id", "case_id")
# Formats of slide scanners and microscopes that OpenSlide does not read.
FOREIGN = frozenset(
    (".vsi", ".qptiff", ".isyntax", ".i2syntax", ".zvi", ".lif", ".nd2", ".kfb", ".sdpc", ".tmap", ".mds")
)


@dataclass(frozen=True)
class _Found:
    """A slide as found: its path, the key that its file id is made of, what the CSV says about it, and its files."""

    path: str
    key: str
    slide_id: str
    row: dict[str, Any]
    files: tuple[Path, ...] = ()


def find_slides(path: str) -> tuple[list[Slide], list[Refused]]:
    """The slides of a folder (all levels, links followed) or of a CSV, sorted by slide_id, and what was left out.

    The path may also be that of a single slide.

    A CSV has the columns `path` (relative ones are relative to the CSV) and optionally slide_id, mpp (µm/px at level
    0), project_id, case_id. A listed file that is not there stays in, with size 0: it is quarantined when fetched.

    Raises:
        ConfigError: no such folder or CSV, no slides in it, or a wrong row.
    """
    root = Path(path).expanduser()
    refused: list[Refused] = []
    if root.is_dir():
        found = list(_found_below(root, refused))
    elif root.is_file() and is_slide(root.name):
        found = list(_merge_series([_single(root)], refused))
    elif root.is_file():
        found = _one_per_series(list(_rows(root)), refused)
    else:
        raise ConfigError(f"{root}: no such folder or CSV of slides; set the cohort's path")
    slides = _slides(found, refused)
    if not slides:
        suffixes = " ".join(sorted(SUFFIXES))
        why = f"; left out: {refused[0].name}: {refused[0].reason}" if refused else ""
        raise ConfigError(f"{root}: no slides there (files ending in {suffixes}){why}; set the cohort's path")
    return slides, refused


def look_from_outside(path: str) -> str:
    """Changes when a slide of a folder or CSV is added, removed or replaced; empty where no slide is there (any more).

    No slide is opened: sizes and times are compared.

    Raises:
        ConfigError: the CSV can't be read or has a wrong row.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        return folder_digest(root)
    if is_slide(root.name):
        return list_digest([root])
    return list_digest(Path(item.path) for item in _rows(root)) if root.is_file() else ""


def _single(path: Path) -> _Found:
    return _Found(str(path), path.name, "", {}, tuple(files_of(path)))


def _found_below(root: Path, refused: list[Refused]) -> Iterator[_Found]:
    unreadable: list[OSError] = []
    for folder, entries in walk(root, unreadable):
        names = [entry.name for entry in entries if is_slide(entry.name)]
        refused += [_foreign(entry) for entry in entries if Path(entry.name).suffix.lower() in FOREIGN]
        items = [
            _Found(str(Path(folder, name)), Path(folder, name).relative_to(root).as_posix(), "", {}) for name in names
        ]
        yield from _merge_series(items, refused)
    refused += [Refused(repr(error.filename), f"the folder can't be read: {error.strerror}") for error in unreadable]


def _foreign(entry: os.DirEntry[str]) -> Refused:
    suffix = Path(entry.name).suffix
    return Refused(repr(entry.path), f"OpenSlide does not read {suffix}; convert it, for example to a pyramidal TIFF")


def _merge_series(items: list[_Found], refused: list[Refused]) -> Iterator[_Found]:
    """The slides among the files of a folder: of a DICOM series, its finest level stands for all."""
    series: dict[str, list[tuple[_Found, SlideFile]]] = defaultdict(list)
    for item in items:
        part = _dicom_part(item.path)
        if part:
            series[part.series].append((item, part))
        else:
            yield item
    for parts in series.values():
        levels = [(item, part) for item, part in parts if part.is_level]
        if not levels:
            refused += [
                Refused(repr(item.path), f"shows a DICOM {part.kind.lower()}, and no level of its slide is here")
                for item, part in parts
            ]
            continue
        finest = max(levels, key=lambda level: (level[1].width * level[1].height, level[0].path))[0]
        yield replace(finest, files=(Path(finest.path), *(Path(item.path) for item, _ in parts if item != finest)))


def _dicom_part(path: str) -> SlideFile | None:
    return read_slide_file(Path(path)) if path.lower().endswith(".dcm") else None


def _one_per_series(items: list[_Found], refused: list[Refused]) -> list[_Found]:
    """The rows of a CSV without labels and without further files of a DICOM series."""
    kept: dict[tuple[str, str], _Found] = {}
    for item in items:
        part = _dicom_part(item.path)
        key = (str(Path(item.path).parent), part.series) if part else ("", f"row {len(kept)}")
        if part and not part.is_level:
            refused.append(Refused(repr(item.path), f"shows a DICOM {part.kind.lower()}; list a level of the slide"))
        elif key in kept:
            refused.append(Refused(repr(item.path), f"is of the same DICOM series as {kept[key].path}"))
        else:
            kept[key] = item
    return list(kept.values())


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
    extra |= look_of(item.files or files_of(path))
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
