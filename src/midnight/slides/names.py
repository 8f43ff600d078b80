"""Names from outside that become paths, slide ids or parts of URLs: checked here, nowhere trusted."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from midnight.slides.record import SUFFIXES

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ ()+-]{0,199}")
FILE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+|\.{2,}")
TCGA_CASE = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])")
RESERVED = (".partial", ".verified.json", ".lock")


def file_name_problem(name: str) -> str:
    """What makes `name` unfit to become a file name; empty when it is fit."""
    if not name:
        return "the file name is empty"
    if "/" in name or "\\" in name or ".." in name or name.startswith("."):
        return f"the file name {name!r} could lead out of its folder"
    if not FILE_NAME.fullmatch(name) or name[-1] in " .":
        return f"the file name {name!r} has characters other than letters, digits and ' ._()+-', or is too long"
    if name.lower().endswith(RESERVED):
        return f"the file name {name!r} ends like a temporary file of the download"
    return ""


def file_id_problem(file_id: str) -> str:
    """What makes `file_id` unfit to become a folder and a part of a URL; empty when it is fit."""
    if FILE_ID.fullmatch(file_id) and ".." not in file_id:
        return ""
    return f"the file id {file_id!r} is no UUID and has characters other than letters, digits and '._-'"


def slide_id_of(name: str) -> str:
    """The slide id of a file name: without the slide suffix, every unsafe run of characters as `_`."""
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    base = stem if suffix.lower() in SUFFIXES else name
    return UNSAFE.sub("_", base).strip("._-")[:200].rstrip("._-") or "slide"


def unique_slide_ids(names: Sequence[str], file_ids: Sequence[str]) -> list[str]:
    """Slide ids of files; names that occur more than once (in any case) get their file id appended.

    The result does not depend on the order of the files.
    """
    ids = [slide_id_of(name) for name in names]
    count = Counter(name.casefold() for name in ids)
    return [
        f"{slide_id}_{UNSAFE.sub('_', file_id)}" if count[slide_id.casefold()] > 1 else slide_id
        for slide_id, file_id in zip(ids, file_ids, strict=True)
    ]


def case_of(file_name: str) -> str:
    """The case of a TCGA barcode (`TCGA-22-1017`); empty for other names."""
    match = TCGA_CASE.match(file_name)
    return match[1] if match else ""
