"""Training's view of folders of images: each image once per epoch of its folder, in a new order each time."""

import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.outages import Patience
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.hsv_filter import passes
from midnight.tiles.draw.rng import Purpose, generator
from midnight.tiles.folders.listing import read_list
from midnight.tiles.predrawn.codec import decode
from midnight.tiles.predrawn.permutation import permute
from midnight.tiles.read.reader import Tile

log = logging.getLogger(__name__)
SLOTS = 1000
"""Samples after which every folder has had its share; shares are rounded to so many."""
TRIES = 64
MAX_OPEN = 64
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Folder:
    """A folder's usable images: files by number; per image the number of its file, offset, bytes and checksum."""

    root: Path
    files: list[str]
    columns: dict[str, Integers]

    def __len__(self) -> int:
        return len(self.columns["bytes"])


def read_folder(path: Path, name: str, size: int) -> Folder:
    """The images of a list that a tile of `size` px can be cut from.

    Raises:
        MidnightError: the list can't be read, or all images are smaller.
    """
    facts, table = read_list(path), pq.read_table(path)
    sides = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    kept = sides >= size
    if not kept.any():
        raise MidnightError(
            f"tile_folders.{name}: the images of {facts.root} are at most {sides.max()} px, smaller than tiles of "
            f"{size}: override tiles.size: {np.bincount(sides).argmax()}"
        )
    if not kept.all():
        log.warning("tile_folders.%s: %d of %d images are smaller than %d px", name, (~kept).sum(), len(kept), size)
    files, number = np.unique(table["file"].to_numpy(zero_copy_only=False).astype(str)[kept], return_inverse=True)
    rest = {column: table[column].to_numpy()[kept].astype(np.int64) for column in ("offset", "bytes", "crc")}
    return Folder(facts.root, files.tolist(), {"file": number.astype(np.int64), **rest})


class FolderSource:
    """A `TileSource` over folders of images. Larger images give a random square of the tiles' size."""

    chunk = 2

    def __init__(self, lists: Mapping[str, tuple[Path, float]], tiles: Tiles, seed: int) -> None:
        """Read the lists; images are opened only when tiles are asked for.

        Args:
            lists: name: (list of its images, share of the tiles).
            tiles: `size`, `hsv_filter` and `patience` count; what is said of slides does not.
            seed: of everything random.

        Raises:
            MidnightError: a list can't be read, or has no image that is large enough.
        """
        self._arguments = lists, tiles, seed
        self._tiles, self._seed = tiles, seed
        self.cohorts = list(lists)
        self._folders = [read_folder(path, name, tiles.size) for name, (path, _) in lists.items()]
        self._slots = share_slots([share for _, share in lists.values()], seed)
        self._first = np.cumsum([0, *(len(folder.files) for folder in self._folders)])
        self._patience = Patience(tiles.patience)
        self._open: OrderedDict[tuple[int, int], int] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes read the lists themselves."""
        return type(self), self._arguments

    @property
    def slides(self) -> Sequence[str]:
        """The files that `DrawnTile.slide` counts: images, or tars of them."""
        return [f"{name}/{file}" for name, f in zip(self.cohorts, self._folders, strict=True) for file in f.files]

    def tiles(self, indexes: Sequence[int]) -> list[DrawnTile]:
        """The tiles of these sample numbers.

        Raises:
            MidnightError: an image is gone or has changed, or 64 in a row fail the HSV filter.
        """
        return [self._tile(index) for index in indexes]

    def place(self, index: int) -> tuple[int, int]:
        """Folder and image of a sample, before any filter."""
        block, slot = divmod(index, len(self._slots))
        folder = int(self._slots[slot])
        before = self._slots[:slot] == folder
        number = block * int((self._slots == folder).sum()) + int(before.sum())
        epoch, place = divmod(number, len(self._folders[folder]))
        return folder, int(permute(np.array([place]), len(self._folders[folder]), self._seed, epoch)[0])

    def _tile(self, index: int) -> DrawnTile:
        folder, image = self.place(index)
        for attempt in range(TRIES):
            rng = generator(self._seed, index, Purpose.PLACE, attempt)
            image = int(rng.integers(len(self._folders[folder]))) if attempt else image
            pixels, x, y = self._cut(self._read(folder, image), rng)
            if passes(pixels, self._tiles.hsv_filter):
                file = int(self._first[folder] + self._folders[folder].columns["file"][image])
                return DrawnTile(pixels, file, folder, float("nan"), x, y)
        raise MidnightError(
            f"tile_folders.{self.cohorts[folder]}: {TRIES} images in a row fail tiles.hsv_filter; lower its "
            "min_fraction, or switch it off with tiles.hsv_filter: null"
        )

    def _cut(self, image: Tile, rng: np.random.Generator) -> tuple[Tile, int, int]:
        size = self._tiles.size
        y, x = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
        return image[y : y + size, x : x + size], x, y

    def _read(self, folder: int, image: int) -> Tile:
        source = self._folders[folder]
        row = {name: int(values[image]) for name, values in source.columns.items()}
        path = source.root / source.files[row["file"]]
        try:
            data = self._patience.insist(lambda: self._bytes(folder, path, row), str(path), self._free_handles)
            if zlib.crc32(data) != row["crc"]:
                raise ValueError("has changed since it was listed")
            return decode(data)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MidnightError(f"{path}: {reason}; run Snakemake again, which lists the folder anew") from error

    def _bytes(self, folder: int, path: Path, row: Mapping[str, int]) -> bytes:
        key = folder, row["file"]
        if key not in self._open:
            while len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[key] = os.open(path, os.O_RDONLY)
        self._open.move_to_end(key)
        try:
            return os.pread(self._open[key], row["bytes"], row["offset"])
        except OSError:
            os.close(self._open.pop(key))  # its handle may be what is stale
            raise

    def _free_handles(self) -> bool:
        some = bool(self._open)
        self.close()
        return some

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1])


def share_slots(shares: Sequence[float], seed: int) -> Integers:
    """Which folder each of 1000 samples in a row is from: int64 [1000], shuffled, each folder by its share.

    Rounded by largest remainders; none is left out. Of more than 100 folders as many thousands as there are hundreds.
    """
    total = SLOTS * -(-len(shares) // 100)
    exact = np.array(shares, np.float64) / sum(shares) * total
    counts = np.maximum(1, np.floor(exact).astype(np.int64))
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > total:
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    slots = np.repeat(np.arange(len(shares), dtype=np.int64), counts)
    return generator(seed, 0, Purpose.READ).permutation(slots)
