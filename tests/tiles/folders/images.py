"""Folders of small images."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from midnight.tiles.folders.listing import list_tiles


def write_images(root: Path, names: Sequence[str], height: int = 32, width: int = 40, seed: int = 0) -> None:
    """Images of random tissue colours."""
    rng = np.random.default_rng(seed)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (np.array([180, 130, 205]) + rng.integers(-30, 30, (height, width, 3))).astype(np.uint8)
        assert cv2.imwrite(str(path), pixels)


def write_listed(folder: Path, count: int, **size: int) -> Path:
    """A folder of so many images and the list of them."""
    write_images(folder / "images", [f"{number:04d}.png" for number in range(count)], **size)
    list_tiles(folder / "images", folder / "own.tiles.parquet", 2)
    return folder / "own.tiles.parquet"
