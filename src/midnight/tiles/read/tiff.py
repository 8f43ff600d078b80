"""Where the tiles of a tiled TIFF lie in the file: classic TIFF and BigTIFF, either byte order.

Files that libtiff, and so OpenSlide, reads in a way of its own are refused: tags that are there twice or of an odd
type or number, tiles that are listed as strips, images of several layers.

Of the arrays of tile offsets, which take megabytes in a large slide, only their places are kept, and the few entries
that a window needs are read with it. So a slide's layout takes about a kilobyte, and a reader can keep those of a whole
collection [TIFF 6.0 sections 2 and 15; BigTIFF].
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

SUBFILE, OLD_SUBFILE, STRIP_OFFSETS, STRIP_COUNTS, DEPTH, TILE_DEPTH = 254, 255, 273, 279, 32997, 32998
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 277, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, JPEG_TABLES = 322, 323, 324, 325, 347
TAGS = frozenset((
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS,
    JPEG_TABLES, SUBFILE, OLD_SUBFILE, STRIP_OFFSETS, STRIP_COUNTS, DEPTH, TILE_DEPTH,
))  # fmt: skip
REFUSED = (OLD_SUBFILE, STRIP_OFFSETS, STRIP_COUNTS)
INTEGERS = (3, 4, 16)
BYTES = (1, 7)
REDUCED = 1
"""Bit of NewSubfileType: a smaller version of another image of the file."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 16: 8}
MAX_DIRECTORIES = 64
MAX_ENTRIES = 4096
MAX_TABLES = 1 << 16
LAST = (1 << 63) - 1
"""The last place in a file that an operating system can name."""
# Bytes in which nearly every directory fits.
MOSTLY = 1024


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
        return self.array(fd, first, count).tolist()

    def array(self, fd: int, first: int, count: int) -> npt.NDArray[np.unsignedinteger]:
        """The same as an array."""
        size = int(self.dtype[-1])
        return np.frombuffer(read_exactly(fd, self.at + first * size, count * size), self.dtype)


@dataclass(frozen=True)
class TiledImage:
    """One directory's image: sizes in px, its TIFF compression, photometric interpretation and JPEG tables.

    `first` says that the directory is the file's first one, `reduced` that its NewSubfileType calls it a smaller
    version of another image.
    """

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
    first: bool
    reduced: bool

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def down(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile_height)

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
    data = _read(fd, at, size)
    while len(data) < size:
        more = _read(fd, at + len(data), size - len(data))
        if not more:
            raise LayoutError(f"the file ends at byte {at + len(data)}, before what its directory promises")
        data += more
    return data


def _read(fd: int, at: int, size: int) -> bytes:
    """At most `size` bytes from `at` on; none where no file can have them."""
    return os.pread(fd, size, at) if at <= LAST - size else b""


def read_into(fd: int, at: int, target: memoryview) -> None:
    """Fill `target`, bytes, from `at` on; raises LayoutError as `read_exactly` does."""
    done = os.preadv(fd, [target], at) if at <= LAST - len(target) else 0
    if done < len(target):
        target[done:] = read_exactly(fd, at + done, len(target) - done)


def tiled_images(fd: int) -> list[TiledImage]:
    """The tiled images of a TIFF, in the order of its directories.

    Raises:
        LayoutError: it is no TIFF, or damaged.
    """
    head = read_exactly(fd, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    version = int.from_bytes(head[2:4], "little" if order == "<" else "big")
    if not order or version not in (42, 43):
        raise LayoutError("no TIFF")
    entry = _entry_type(order, version == 43)
    at = int.from_bytes(head[8:16] if version == 43 else head[4:8], "little" if order == "<" else "big")
    images: list[TiledImage] = []
    for number in range(MAX_DIRECTORIES):
        if not at:
            return images
        entries, at = _directory(fd, at, entry)
        if TILE_WIDTH in entries or TILE_HEIGHT in entries:
            images.append(_image(fd, entries, order, number == 0))
    raise LayoutError(f"more than {MAX_DIRECTORIES} directories")


class _Entry(NamedTuple):
    """The type and number of an entry's values, where they are in the file, and the first if it is in the entry."""

    kind: int
    length: int
    at: int
    value: int | None


@lru_cache(maxsize=4)
def _entry_type(order: str, big: bool) -> np.dtype[np.void]:
    """Tag, type, count and value (or the values' place) of an entry."""
    word = f"{order}u{8 if big else 4}"
    return np.dtype([("tag", f"{order}u2"), ("kind", f"{order}u2"), ("count", word), ("value", word)])


def _directory(fd: int, at: int, form: np.dtype[np.void]) -> tuple[dict[int, _Entry], int]:
    """A directory's entries of `TAGS` by tag, and where the next one is (0: there is none)."""
    big, word = form.itemsize == 20, form["value"]
    length, room = (8, 8) if big else (2, 4)
    order: Literal["little", "big"] = "big" if word.str.startswith(">") else "little"
    data = _read(fd, at, MOSTLY)
    n = int.from_bytes(data[:length], order)
    if n > MAX_ENTRIES:
        raise LayoutError(f"a directory with {n} entries")
    if len(data) < length + n * form.itemsize + room:
        data = read_exactly(fd, at, length + n * form.itemsize + room)
    end = length + n * form.itemsize
    entries: dict[int, _Entry] = {}
    for number, (tag, kind, count, value) in enumerate(np.frombuffer(data, form, n, length).tolist()):
        if tag not in TAGS:
            continue
        if tag in entries:
            raise LayoutError(f"tag {tag} is there twice")
        if SIZES.get(kind, LAST) * count > room:
            entries[tag] = _Entry(kind, count, value, None)
        else:  # values stand to the left
            first = value >> 8 * (room - SIZES[kind]) if order == "big" else value & (1 << 8 * SIZES[kind]) - 1
            entries[tag] = _Entry(kind, count, at + length + (number + 1) * form.itemsize - room, first)
    return entries, int.from_bytes(data[end : end + room], order)


def _image(fd: int, entries: dict[int, _Entry], order: str, first: bool) -> TiledImage:
    if odd := next((tag for tag in REFUSED if tag in entries), None):
        raise LayoutError(f"a tiled directory with tag {odd}")

    def array(tag: int) -> Array:
        if tag not in entries or entries[tag].kind not in INTEGERS or not entries[tag].length:
            raise LayoutError(f"tag {tag} is missing or of an unknown type")
        return Array(entries[tag].at, entries[tag].length, f"{order}u{SIZES[entries[tag].kind]}")

    def number(tag: int, default: int | None = None) -> int:
        if tag not in entries and default is not None:
            return default
        values, value = array(tag), entries[tag].value if tag in entries else None
        if values.count != 1:
            raise LayoutError(f"tag {tag} has {values.count} values")
        return values.read(fd, 0, 1)[0] if value is None else value

    if number(DEPTH, 1) != 1 or number(TILE_DEPTH, 1) != 1:
        raise LayoutError("an image of several layers")
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
        _tables(fd, entries.get(JPEG_TABLES)),
        array(TILE_OFFSETS),
        array(TILE_COUNTS),
        first,
        bool(number(SUBFILE, 0) & REDUCED),
    )
    tiles = image.across * image.down if image.tile_width and image.tile_height else 0
    if not tiles or min(image.offsets.count, image.counts.count) < tiles:
        raise LayoutError("a directory has fewer tiles than its size needs")
    return image


def _tables(fd: int, entry: _Entry | None) -> bytes:
    if entry is None:
        return b""
    if entry.kind not in BYTES or not 0 < entry.length <= MAX_TABLES:
        raise LayoutError(f"JPEG tables of type {entry.kind} and {entry.length} bytes")
    return read_exactly(fd, entry.at, entry.length)
