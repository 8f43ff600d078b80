"""Which images of a tiled TIFF are a slide's levels, and which of their tiles OpenSlide leaves out.

These are the rules of OpenSlide's drivers for Aperio and generic TIFF slides (version 4.0). Which driver a slide is
for, OpenSlide says itself when its tissue is found.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from midnight.tiles.read.tiff import LayoutError, TiledImage

Numbers = npt.NDArray[np.int64]
"""Sorted numbers of tiles of one level, counted row by row."""

APERIO, GENERIC = "aperio", "generic-tiff"
VENDORS = (APERIO, GENERIC)


def level_images(images: Sequence[TiledImage], vendor: str) -> list[TiledImage]:
    """The images that are levels, finest first.

    Aperio: all that are tiled, in the order of the file. Generic TIFF: the first directory's image, and those whose
    NewSubfileType says that they are smaller versions of another, by falling width; others, as masks or further focal
    planes, are none.

    Args:
        images: the tiled images of a file, in its order.
        vendor: one of `VENDORS`.
    """
    if vendor == APERIO:
        return list(images)
    return sorted((image for image in images if image.first or image.reduced), key=lambda image: -image.width)


def missing_tiles(fd: int, levels: Sequence[TiledImage]) -> list[Numbers]:
    """The tiles of an Aperio slide that OpenSlide takes for missing, by level.

    These are the tiles without bytes, which an encoder's fault left, and on each coarser level those that cover them,
    which are there but may show another place.

    Raises:
        LayoutError: the file ends before the counts, or OpenSlide's rule does not say which tile covers another.
    """
    found: list[Numbers] = []
    for number, level in enumerate(levels):
        empty = np.flatnonzero(level.counts.array(fd, 0, level.across * level.down) == 0)
        above = covering(found[-1], levels[number - 1], level) if found else empty[:0]
        found.append(np.union1d(empty, above).astype(np.int64))
    return found


def covering(tiles: Numbers, level: TiledImage, coarser: TiledImage) -> Numbers:
    """Numbers of the tiles of the next coarser level that cover tiles of a level.

    Raises:
        LayoutError: the coarser level has more than twice as many tiles in a row or column.
    """
    if not tiles.size:
        return tiles
    # As C's round(), halves upwards.
    across, down = (int(a / b + 0.5) for a, b in ((level.across, coarser.across), (level.down, coarser.down)))
    if not across or not down:
        raise LayoutError("a level has more tiles than the next finer one, which lacks some")
    rows, columns = np.divmod(tiles, level.across)
    return np.unique(rows // down * coarser.across + columns // across)


def has_any(numbers: Numbers | None, image: TiledImage, columns: range, rows: range) -> bool:
    """Whether any tile of a rectangle is among the numbers."""
    if numbers is None or not numbers.size:
        return False
    row, column = np.divmod(numbers, image.across)
    inside = (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)
    return bool(inside.any())
