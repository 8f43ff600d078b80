"""Where the tiles of a tiled TIFF lie in the file: classic TIFF and BigTIFF, either byte order.

Of the arrays of tile offsets, which take megabytes in a large slide, only their places are kept, and the few entries
that a window needs are read with it. So a slide's layout takes about a kilobyte, and a reader can keep those of a whole
collection [TIFF 6.0 sections 2 and 15; BigTIFF].
"""

import os
import struct
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 277, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, JPEG_TABLES = 322, 323, 324, 325, 347
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 16: 8}
MAX_DIRECTORIES = 64
MAX_ENTRIES = 4096


class LayoutError(Exception):
    """The file is no TIFF that is understood here; the message says why."""


@dataclass(frozen=True)
class Array:
    """Unsigned integers in the file: place of the first, count, numpy dtype."""

    at: int
    count: int
    dtype: str

    def read(self, fd: int, first: int, count: int) -> list[int]:
        """Entries `first` … `first + count`.

        Raises:
            LayoutError: the file ends before them.
        """
        size = int(self.dtype[-1])
        return np.frombuffer(read_exactly(fd, self.at + first * size, count * size), self.dtype).tolist()


@dataclass(frozen=True)
class TiledImage:
    """One directory's image: sizes in px, its TIFF compression, photometric interpretation and JPEG tables."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    compression: int
    photometric: int
    samples: int
    eight_bits: bool
    tables: bytes
    offsets: Array
    counts: Array

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    def spans(self, fd: int, columns: range, rows: range) -> list[list[tuple[int, int]]]:
        """Offset and length in the file of a rectangle of tiles, by row and column.

        Raises:
            LayoutError: the file ends before the arrays.
        """
        first = rows.start * self.across + columns.start
        count = (len(rows) - 1) * self.across + len(columns)
        pairs = list(zip(self.offsets.read(fd, first, count), self.counts.read(fd, first, count), strict=True))
        return [pairs[row * self.across :][: len(columns)] for row in range(len(rows))]


def read_exactly(fd: int, at: int, size: int) -> bytes:
    """`size` bytes from `at` on.

    Raises:
        LayoutError: the file ends before.
    """
    data = os.pread(fd, size, at)
    while len(data) < size:
        more = os.pread(fd, size - len(data), at + len(data))
        if not more:
            raise LayoutError(f"the file ends at byte {at + len(data)}, before what its directory promises")
        data += more
    return data


def read_into(fd: int, at: int, target: memoryview) -> None:
    """Fill `target`, bytes, from `at` on; raises LayoutError as `read_exactly` does."""
    done = os.preadv(fd, [target], at)
    if done < len(target):
        target[done:] = read_exactly(fd, at + done, len(target) - done)


def tiled_images(fd: int) -> list[TiledImage]:
    """The tiled images of a TIFF, in the order of its directories.

    Raises:
        LayoutError: it is no TIFF, or damaged.
    """
    head = read_exactly(fd, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    version = struct.unpack(f"{order}H", head[2:4])[0] if order else 0
    if version not in (42, 43):
        raise LayoutError("no TIFF")
    big = version == 43
    at = struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0]
    images: list[TiledImage] = []
    for _ in range(MAX_DIRECTORIES):
        if not at:
            return images
        entries, at = _directory(fd, at, order, big)
        if TILE_WIDTH in entries:
            images.append(_image(fd, entries, order))
    raise LayoutError(f"more than {MAX_DIRECTORIES} directories")


@dataclass(frozen=True)
class _Entry:
    """Type and count of an entry's values, where they are in the file, and their bytes if they are in the entry."""

    kind: int
    count: int
    at: int
    inside: bytes


def _directory(fd: int, at: int, order: str, big: bool) -> tuple[dict[int, _Entry], int]:
    """A directory's entries of known types, by tag, and where the next one is (0: there is none)."""
    length, entry, head = (8, 20, "HHQ") if big else (2, 12, "HHI")
    n = struct.unpack(f"{order}{'Q' if big else 'H'}", read_exactly(fd, at, length))[0]
    if n > MAX_ENTRIES:
        raise LayoutError(f"a directory with {n} entries")
    word = "Q" if big else "I"
    room = struct.calcsize(f"{order}{word}")
    data = read_exactly(fd, at + length, n * entry + room)
    entries = {}
    for number in range(n):
        tag, kind, count = struct.unpack_from(f"{order}{head}", data, number * entry)
        place = at + length + number * entry + entry - room
        if kind in SIZES:
            inside = SIZES[kind] * count <= room
            value = struct.unpack_from(f"{order}{word}", data, (number + 1) * entry - room)[0]
            field = data[(number + 1) * entry - room : (number + 1) * entry] if inside else b""
            entries[tag] = _Entry(kind, count, place if inside else value, field)
    return entries, struct.unpack_from(f"{order}{word}", data, n * entry)[0]


def _image(fd: int, entries: dict[int, _Entry], order: str) -> TiledImage:
    def array(tag: int) -> Array:
        if tag not in entries or entries[tag].kind not in (3, 4, 16):
            raise LayoutError(f"tag {tag} is missing or of an unknown type")
        return Array(entries[tag].at, entries[tag].count, f"{order}u{SIZES[entries[tag].kind]}")

    def number(tag: int, default: int | None = None) -> int:
        if tag not in entries and default is not None:
            return default
        values, inside = array(tag), entries[tag].inside if tag in entries else b""
        if inside:  # without reading the file once more
            return int.from_bytes(inside[: SIZES[entries[tag].kind]], "little" if order == "<" else "big")
        return values.read(fd, 0, 1)[0]

    tables = entries.get(JPEG_TABLES)
    bits = array(BITS) if BITS in entries else None
    image = TiledImage(
        number(WIDTH),
        number(HEIGHT),
        number(TILE_WIDTH),
        number(TILE_HEIGHT),
        number(COMPRESSION, 1),
        number(PHOTOMETRIC, 0),
        number(SAMPLES, 1) if number(PLANAR, 1) == 1 else 0,
        bits is not None and set(bits.read(fd, 0, min(bits.count, 4))) == {8},
        read_exactly(fd, tables.at, tables.count) if tables and tables.count < 1 << 16 else b"",
        array(TILE_OFFSETS),
        array(TILE_COUNTS),
    )
    tiles = image.across * -(-image.height // image.tile_height) if image.tile_width and image.tile_height else 0
    if not tiles or min(image.offsets.count, image.counts.count) < tiles:
        raise LayoutError("a directory has fewer tiles than its size needs")
    return image
