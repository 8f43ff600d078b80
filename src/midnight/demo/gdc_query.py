"""The query side of the demo's GDC: documents, filters, fields, sorting, paging and ranges, as the GDC has them."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]

DEFAULT_SIZE = 10
MANIFEST = ("file_id", "file_name", "md5sum", "file_size", "state")


class QueryError(Exception):
    """The query can't be understood; the service answers 400 with this message."""


def document(entry: Mapping[str, Any]) -> Document:
    """A row of `catalogue.json` as the GDC would describe that file."""
    project = entry["project_id"]
    return {
        "id": entry["file_id"],
        "file_id": entry["file_id"],
        "file_name": entry["file_name"],
        "md5sum": entry["md5sum"],
        "file_size": entry["file_size"],
        "state": entry.get("state", "released"),
        "access": entry.get("access", "open"),
        "data_type": entry.get("data_type", "Slide Image"),
        "data_format": entry.get("data_format", "SVS"),
        "experimental_strategy": entry["experimental_strategy"],
        "cases": [
            {
                "submitter_id": entry["case_id"],
                "project": {
                    "project_id": project,
                    "program": {"name": entry.get("program", "TCGA")},
                },
                "samples": [{"sample_type": entry["sample_type"]}],
            }
        ],
    }


def answer(documents: list[Document], query: Mapping[str, Any]) -> dict[str, Any]:
    """One page of `/files`.

    Args:
        documents: everything there is.
        query: filters (nested, as JSON text or value), fields, size, from, sort.

    Raises:
        QueryError: something in it can't be understood.
    """
    found = select(documents, query)
    size, start = _number(query, "size", DEFAULT_SIZE), _number(query, "from", 0)
    page = found[start : start + size]
    fields = [name for name in str(query.get("fields") or "").split(",") if name]
    pagination = {
        "count": len(page),
        "total": len(found),
        "size": size,
        "from": start,
        "sort": str(query.get("sort") or ""),
        "page": start // size + 1 if size else 1,
        "pages": -(-len(found) // size) if size else 0,
    }
    hits = [{"id": item["id"]} | pick(item, fields) if fields else item for item in page]
    return {"data": {"hits": hits, "pagination": pagination}, "warnings": {}}


def manifest(documents: list[Document], query: Mapping[str, Any]) -> str:
    """The answer to `return_type=manifest`: a table of every match, whatever `size` says."""
    rows = [[str(item[name]) for name in MANIFEST] for item in select(documents, query)]
    return "\n".join("\t".join(row) for row in [["id", "filename", "md5", "size", "state"], *rows]) + "\n"


def select(documents: list[Document], query: Mapping[str, Any]) -> list[Document]:
    """The documents that match, in the order asked for.

    Raises:
        QueryError: see `answer`.
    """
    filters = query.get("filters")
    if isinstance(filters, str) and filters:
        try:
            filters = json.loads(filters)
        except ValueError as error:
            raise QueryError(f"filters: not JSON: {error}") from error
    found = [item for item in documents if not filters or matches(item, filters)]
    for part in reversed([part for part in str(query.get("sort") or "").split(",") if part]):
        name, _, direction = part.partition(":")
        found.sort(key=functools.partial(_sort_key, name), reverse=direction == "desc")
    return found


def _sort_key(field: str, item: Document) -> list[str]:
    return [str(value) for value in values(item, field)]


def matches(item: Document, filters: Any) -> bool:
    """Whether a document fulfils a nested filter of and, or, in, =, exclude and !=.

    Raises:
        QueryError: the filter is malformed.
    """
    try:
        operator, content = str(filters["op"]).lower(), filters["content"]
        if operator in ("and", "or"):
            return (all if operator == "and" else any)([matches(item, part) for part in content])
        wanted = content["value"] if isinstance(content["value"], list) else [content["value"]]
        common = {str(value) for value in wanted} & {str(value) for value in values(item, content["field"])}
    except (KeyError, TypeError) as error:
        raise QueryError(f"filters: malformed: {json.dumps(filters)[:200]}") from error
    if operator in ("in", "="):
        return bool(common)
    if operator in ("exclude", "!="):
        return not common
    raise QueryError(f"filters: unknown op {operator!r}")


def values(item: Any, field: str) -> list[Any]:
    """All values below a dotted field; lists on the way are walked through."""
    found = [item]
    for name in field.removeprefix("files.").split("."):
        parts = [part for value in found for part in (value if isinstance(value, list) else [value])]
        found = [part[name] for part in parts if isinstance(part, dict) and name in part]
    return found


def pick(item: Any, fields: list[str]) -> Any:
    """A document with nothing but the dotted fields."""
    if isinstance(item, list):
        return [pick(part, fields) for part in item]
    if not isinstance(item, dict):
        return item
    below: dict[str, list[str]] = {}
    for field in fields:
        name, _, rest = field.partition(".")
        below.setdefault(name, []).extend([rest] if rest else [])
    return {name: pick(item[name], rest) if rest else item[name] for name, rest in below.items() if name in item}


def _number(query: Mapping[str, Any], name: str, default: int) -> int:
    try:
        value = int(query.get(name, default))
    except (TypeError, ValueError):
        value = -1
    if value < 0:
        raise QueryError(f"{name}: {query.get(name)!r} is not a whole number from 0 on")
    return value


def byte_range(text: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a `Range` header for a file of `size` bytes; None if there is none to honour.

    Raises:
        ValueError: the range lies outside the file.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, stop = max(size - int(match[2]), 0), size
    else:
        start, stop = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    if start >= stop:
        raise ValueError(text)
    return start, stop
