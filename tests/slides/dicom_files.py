"""Small DICOM whole-slide files, written element by element: a file per level, and label and overview."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from midnight.slides.dicom import WHOLE_SLIDE

JPEG, EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
# Kinds of values whose length takes four bytes.
LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
SIDE = 128
Element = tuple[int, str, Any]


def element(tag: int, kind: str, value: Any, explicit: bool = True, undefined: bool = False) -> bytes:
    """One element; `value` of kind SQ is a list of items, each a list of elements."""
    data = _value(kind, value, explicit, undefined)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    length = 0xFFFFFFFF if kind == "SQ" and undefined else len(data)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if kind == "SQ" and undefined else b""
    if not explicit:
        return head + struct.pack("<I", length) + data + end
    if kind.encode() in LONG:
        return head + kind.encode() + b"\0\0" + struct.pack("<I", length) + data + end
    return head + kind.encode() + struct.pack("<H", length) + data + end


def _value(kind: str, value: Any, explicit: bool, undefined: bool) -> bytes:
    if kind == "SQ":
        return b"".join(_item(item, explicit, undefined) for item in value)
    if kind in ("US", "UL", "FL", "FD"):
        return struct.pack("<" + {"US": "H", "UL": "I", "FL": "f", "FD": "d"}[kind], value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return data + (b"\0" if kind in ("UI", "OB") else b" ") * (len(data) % 2)


def _item(item: Sequence[Element], explicit: bool, undefined: bool) -> bytes:
    data = b"".join(element(*part, explicit, undefined) for part in item)
    if undefined:
        return struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + data + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def _fragments(image: np.ndarray) -> tuple[bytes, int]:
    """Encapsulated JPEG tiles of an image whose sides are whole tiles, and how many they are."""
    tiles = [
        image[y : y + SIDE, x : x + SIDE] for y in range(0, len(image), SIDE) for x in range(0, len(image[0]), SIDE)
    ]
    out = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    for tile in tiles:
        data = cv2.imencode(".jpg", tile[..., ::-1])[1].tobytes()
        data += b"\0" * (len(data) % 2)
        out += struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
    return out + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), len(tiles)


def write_dicom(
    path: Path,
    image: np.ndarray,
    series: str,
    kind: str = "VOLUME",
    mpp: float = 0.5,
    sop_class: str = WHOLE_SLIDE,
    syntax: str = JPEG,
    undefined: bool = False,
) -> Path:
    """One file of a series; `syntax` IMPLICIT and EXPLICIT have no readable pixels, which the header does not need."""
    explicit = syntax != IMPLICIT
    flavour = rf"ORIGINAL\PRIMARY\{kind}\{'RESAMPLED' if mpp > 0.5 and kind == 'VOLUME' else 'NONE'}"
    spacing = rf"{mpp / 1000:g}\{mpp / 1000:g}"
    fragments, count = _fragments(image)
    instance = f"{series}.{zlib.crc32(path.name.encode())}"
    measures = [(0x00180050, "DS", "0.001"), (0x00280030, "DS", spacing)]
    body: list[Element] = [
        (0x00080008, "CS", flavour),
        (0x00080016, "UI", sop_class),
        (0x00080018, "UI", instance),
        (0x00080060, "CS", "SM"),
        (0x00081140, "SQ", [[(0x00081150, "UI", sop_class), (0x00081155, "UI", instance)]]),
        (0x00090010, "LO", "PRIVATE"),
        (0x00091001, "OB", b"\xfe\xff\x0d\xe0" * 8),
        (0x0020000D, "UI", series + ".1"),
        (0x0020000E, "UI", series),
        (0x00200052, "UI", series + ".2"),
        (0x00280002, "US", 3),
        (0x00280004, "CS", "YBR_FULL_422"),
        (0x00280006, "US", 0),
        (0x00280008, "IS", count),
        (0x00280010, "US", SIDE),
        (0x00280011, "US", SIDE),
        (0x00280100, "US", 8),
        (0x00280101, "US", 8),
        (0x00280102, "US", 7),
        (0x00280103, "US", 0),
        (0x00480001, "FL", image.shape[1] * mpp / 1000),
        (0x00480002, "FL", image.shape[0] * mpp / 1000),
        (0x00480006, "UL", image.shape[1]),
        (0x00480007, "UL", image.shape[0]),
        (0x00480302, "UL", 1),
        (0x52009229, "SQ", [[(0x00289110, "SQ", [measures])]]),
    ]
    dimension = element(0x00209311, "CS", "TILED_FULL", explicit)
    data = b"".join(element(*part, explicit, undefined) for part in body)
    split = data.index(element(0x00280002, "US", 3, explicit))
    data = data[:split] + dimension + data[split:]
    meta = b"".join(
        element(*part)
        for part in ((0x00020002, "UI", sop_class), (0x00020003, "UI", instance), (0x00020010, "UI", syntax))
    )
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + fragments
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + element(0x00020000, "UL", len(meta)) + meta + data + pixels)
    return path


def write_series(folder: Path, series: str, image: np.ndarray) -> list[Path]:
    """A slide as archives give it: its levels at 0.5 and 1 µm/px, a label and an overview."""
    half = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    label = image[:SIDE, :SIDE]
    return [
        write_dicom(folder / "b-finest.dcm", image, series),
        write_dicom(folder / "a-coarse.dcm", half, series, mpp=1.0),
        write_dicom(folder / "label.dcm", label, series, "LABEL", 4.0),
        write_dicom(folder / "overview.dcm", label, series, "OVERVIEW", 8.0),
    ]
