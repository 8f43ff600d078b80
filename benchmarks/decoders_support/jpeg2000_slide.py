"""A JPEG 2000 slide as Aperio writes it (TIFF compression 33005), with about 13 kB per 256 px tile.

One piece of drawn tissue is encoded once and laid out over the whole plane, each copy at its own place in the file.
"""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from tiles_support.slides import PERIOD, Plan, draw_piece

from midnight.atomic import atomic_path
from midnight.demo.svs import Scanner, describe

TILE = 256
MPP = 0.25
COMPRESSION = 33005
# Of imagecodecs, in dB: with the noise of the drawing, tiles get the size of those of a real slide at Q=70.
QUALITY = 36
# Side of the slide in tiles: too many for any decoder's cache to help.
TILES = 40


def jpeg2000_slide(folder: Path) -> Path:
    """The slide, 10,240 px wide and high and all tissue; generated where it is not there yet."""
    path = folder / f"bench-jpeg2000-{TILES * TILE}-{TILE}-v2.svs"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        piece, _ = draw_piece(np.random.Generator(np.random.Philox(key=[5, 77])), Plan(PERIOD * TILE, TILE, 5))
        _write(path, piece)
    return path


def _write(path: Path, piece: npt.NDArray[np.uint8]) -> None:
    side = TILES * TILE
    text = describe(Scanner(MPP, 40, TILE, "SS0000"), side, side).replace("JPEG/RGB Q=80", "J2K/KDU Q=70")
    options: dict[str, Any] = {"photometric": "rgb", "compression": COMPRESSION, "metadata": None, "software": False}
    encoded = [[_encode(piece, row, column) for column in range(PERIOD)] for row in range(PERIOD)]
    placed = (encoded[row % PERIOD][column % PERIOD] for row in range(TILES) for column in range(TILES))
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        writer.write(placed, shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE), description=text, **options)


def _encode(piece: npt.NDArray[np.uint8], row: int, column: int) -> bytes:
    tile = np.ascontiguousarray(piece[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE])
    return bytes(imagecodecs.jpeg2k_encode(tile, QUALITY, codecformat="J2K", reversible=False, resolutions=6))
