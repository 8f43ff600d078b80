"""Slides of which some tiles can't be decoded."""

import os
from collections.abc import Iterable
from pathlib import Path

import tifffile


def damage(path: Path, tiles: Iterable[int], level: int = 0) -> None:
    """Leave only 16 bytes of these tiles of a level, by their byte counts; the rest and the file's time stay.

    A file of another time would be one that was replaced, which is another fault.
    """
    before = path.stat()
    with tifffile.TiffFile(path) as file:
        levels = [page for page in file.pages if page.is_tiled]
        tag = levels[level].tags["TileByteCounts"]
        order = "little" if file.byteorder == "<" else "big"
    size = {3: 2, 4: 4, 16: 8}[tag.dtype.value]
    with open(path, "rb+") as out:
        for tile in tiles:
            out.seek(tag.valueoffset + tile * size)
            out.write((16).to_bytes(size, order))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def tiles_of(path: Path, level: int = 0) -> int:
    """How many tiles a level has."""
    with tifffile.TiffFile(path) as file:
        levels = [page for page in file.pages if page.is_tiled]
        return len(levels[level].tags["TileByteCounts"].value)
