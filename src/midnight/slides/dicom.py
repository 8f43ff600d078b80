"""The few facts of a DICOM file's header that say which slide it belongs to.

A slide is a series: a file for each level of the pyramid, and others for its label and overview. OpenSlide opens all
of a series by any of its levels. Only the elements before the pixels are read, a few kB.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
IMPLICIT = "1.2.840.10008.1.2"
# Big-endian and deflated files, which no scanner writes.
UNREAD = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
SYNTAX, IMAGE_TYPE, SOP_CLASS = (0x0002, 0x0010), (0x0008, 0x0008), (0x0008, 0x0016)
SERIES, COLUMNS, ROWS = (0x0020, 0x000E), (0x0048, 0x0006), (0x0048, 0x0007)
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
# Kinds of values whose length takes four bytes.
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
UNDEFINED = 0xFFFFFFFF
DEEPEST = 16
LONGEST = 1 << 12
KINDS = frozenset(("VOLUME", "LABEL", "OVERVIEW", "THUMBNAIL"))

Tag = tuple[int, int]


@dataclass(frozen=True)
class SlideFile:
    """One file of a slide: its series, what it shows (VOLUME, LABEL, OVERVIEW, THUMBNAIL), and its size in px."""

    series: str
    kind: str
    width: int
    height: int

    @property
    def is_level(self) -> bool:
        """Whether it is a level of the pyramid, not its label or overview."""
        return self.kind == "VOLUME"


def read_slide_file(path: Path) -> SlideFile | None:
    """What a DICOM file is of; None if it can't be read, or does not say that it is part of one."""
    try:
        with path.open("rb") as file:
            found = _read(file)
    except (OSError, struct.error, ValueError):
        return None
    if found.get(SOP_CLASS) != WHOLE_SLIDE.encode() or not found.get(SERIES):
        return None
    kind = found.get(IMAGE_TYPE, b"").decode(errors="replace").split("\\")[2:3]
    if not set(kind) & KINDS:
        return None
    columns, rows = (int.from_bytes(found.get(tag, b""), "little") for tag in (COLUMNS, ROWS))
    return SlideFile(found[SERIES].decode(errors="replace"), kind[0], columns, rows)


def _read(file: IO[bytes]) -> dict[Tag, bytes]:
    """The wanted elements.

    Raises:
        ValueError: it is no DICOM file, or of a kind that is not read here.
        struct.error: it is cut short.
    """
    file.seek(128)
    if file.read(4) != b"DICM":
        raise ValueError("no DICOM file")
    found: dict[Tag, bytes] = {}
    explicit = True
    while (tag := _peek(file)) is not None and tag <= ROWS:
        if tag[0] != SYNTAX[0]:
            syntax = found.get(SYNTAX, b"").decode(errors="replace")
            if syntax in UNREAD:
                raise ValueError(f"transfer syntax {syntax}")
            explicit = syntax != IMPLICIT
        _, length = _element(file, explicit)
        if tag in (SYNTAX, IMAGE_TYPE, SOP_CLASS, SERIES, COLUMNS, ROWS) and length <= LONGEST:
            value = file.read(length)
            if len(value) < length:
                raise ValueError("cut short")
            found[tag] = value if tag in (COLUMNS, ROWS) else value.rstrip(b"\0 ")
        else:
            _skip(file, length, explicit)
    return found


def _peek(file: IO[bytes]) -> Tag | None:
    data = file.read(4)
    file.seek(-len(data), os.SEEK_CUR)
    if len(data) < 4:
        return None
    group, element = struct.unpack("<HH", data)
    return group, element


def _element(file: IO[bytes], explicit: bool) -> tuple[Tag, int]:
    """The tag and the length of the value at which the file stands afterwards."""
    group, element = struct.unpack("<HH", file.read(4))
    if not explicit or group == ITEM[0]:
        return (group, element), struct.unpack("<I", file.read(4))[0]
    kind, length = struct.unpack("<2sH", file.read(4))
    return (group, element), struct.unpack("<I", file.read(4))[0] if kind in LONG else length


def _skip(file: IO[bytes], length: int, explicit: bool, depth: int = 0) -> None:
    """Pass a value; one of undefined length is a sequence of items, each of which may be undefined as well."""
    if length != UNDEFINED:
        file.seek(length, os.SEEK_CUR)
        return
    if depth > DEEPEST:
        raise ValueError("sequences too deep within each other")
    while (found := _element(file, explicit))[0] not in (SEQUENCE_END, ITEM_END):
        _skip(file, found[1], explicit, depth + 1)
