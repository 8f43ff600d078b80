"""What a tile source gives."""

from dataclasses import dataclass

from midnight.tiles.read.reader import Tile


@dataclass(frozen=True)
class DrawnTile:
    """An accepted tile, before augmentation: RGB uint8 [size, size, 3], where it is from; x, y in level-0 px."""

    pixels: Tile
    slide: int
    cohort: int
    mpp: float
    x: int
    y: int
