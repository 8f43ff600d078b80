"""Rows of the GDC, from its API or from its own manifest files, made into checked slides."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from midnight.errors import ConfigError
from midnight.slides.names import case_of, file_id_problem, file_name_problem, unique_slide_ids
from midnight.slides.record import Refused, Slide
from midnight.slides.table import read_table

logger = logging.getLogger(__name__)

COLUMNS = ("id", "filename", "md5", "size", "state")
MD5 = re.compile(r"[0-9a-f]{32}")
EXTRA = ("access", "state")


def is_gdc_manifest(path: str | Path) -> bool:
    """Whether a manifest is in the GDC's own form (id, filename, md5, size, state) rather than ours."""
    return set(COLUMNS[:4]) <= set(read_table(path).columns)


def read_gdc_manifest(path: str | Path) -> list[Slide]:
    """The slides of a manifest in the GDC's own form (.tsv, .txt or .gz), sorted by slide_id.

    Unsafe or incomplete rows are left out with a warning; `load_gdc_manifest` gives them too.

    Raises:
        ConfigError: the file can't be read or lacks a column.
    """
    slides, refused = load_gdc_manifest(path)
    for row in refused:
        logger.warning("%s: %s left out: %s", path, row.name, row.reason)
    return slides


def load_gdc_manifest(path: str | Path) -> tuple[list[Slide], list[Refused]]:
    """As `read_gdc_manifest`, with the refused rows."""
    table = read_table(path)
    if missing := [name for name in COLUMNS[:4] if name not in table.columns]:
        raise ConfigError(f"{path}: a GDC manifest has columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")
    rows = (dict(zip(table.columns, cells, strict=True)) for _, cells in table.rows)
    return gdc_slides(_from_manifest(row) for row in rows)


def _from_manifest(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        "file_id": row["id"],
        "file_name": row["filename"],
        "md5sum": row["md5"],
        "file_size": row["size"],
        "state": row.get("state", ""),
    }


def gdc_slides(hits: Iterable[Mapping[str, Any]]) -> tuple[list[Slide], list[Refused]]:
    """Checked slides, sorted by slide_id, from hits of the GDC's `/files`.

    The same file named twice (pages drift) counts once; a row whose name, id, size or md5 is unfit is refused.
    """
    slides: dict[str, Slide] = {}
    refused: list[Refused] = []
    for hit in hits:
        if problem := _problem(hit):
            refused.append(Refused(repr(hit.get("file_name") or hit.get("file_id"))[:200], problem))
            continue
        slide = _slide(hit)
        if slides.setdefault(slide.file_id, slide) != slide:
            refused.append(Refused(repr(slide.file_name), f"the file id {slide.file_id} has another row too"))
    found = list(slides.values())
    ids = unique_slide_ids([slide.file_name for slide in found], [slide.file_id for slide in found])
    named = [replace(slide, slide_id=slide_id) for slide, slide_id in zip(found, ids, strict=True)]
    return sorted(named, key=lambda slide: slide.slide_id), refused


def _problem(hit: Mapping[str, Any]) -> str:
    md5, size = hit.get("md5sum"), hit.get("file_size")
    if problem := file_name_problem(_text(hit, "file_name")) or file_id_problem(_text(hit, "file_id")):
        return problem
    if not isinstance(md5, str) or not MD5.fullmatch(md5.lower()):
        return f"its md5 {md5!r} is not one; without it a download can't be checked"
    if isinstance(size, bool) or not re.fullmatch(r"[1-9][0-9]{0,17}", str(size)):
        return f"its size {size!r} is not a positive number of bytes"
    return ""


def _text(hit: Mapping[str, Any], name: str) -> str:
    value = hit.get(name)
    return value if isinstance(value, str) else ""


def _slide(hit: Mapping[str, Any]) -> Slide:
    case = next(iter(_list(hit.get("cases"))), {})
    samples = _list(case.get("samples"))
    extra = {name: _text(hit, name) for name in EXTRA} | {
        "sample_type": next((_line(sample.get("sample_type")) for sample in samples), "")
    }
    project = case.get("project")
    return Slide(
        slide_id="",
        source="gdc",
        file_id=hit["file_id"],
        file_name=hit["file_name"],
        size=int(hit["file_size"]),
        md5=hit["md5sum"].lower(),
        project_id=_line(project.get("project_id")) if isinstance(project, dict) else "",
        case_id=_line(case.get("submitter_id")) or case_of(hit["file_name"]),
        extra={name: value for name, value in extra.items() if value},
    )


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _line(value: Any) -> str:
    """Text of the service on one line, short enough for a cell."""
    return " ".join(value.split())[:200] if isinstance(value, str) else ""
