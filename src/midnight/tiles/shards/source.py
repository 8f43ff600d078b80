"""Training's view of a set: sample i of a run is a tile of it, each tile once per epoch, in a new order each time.

**A damaged shard stops the run**, other than a damaged slide online, which is left out: the set is part of what the
run is, it was whole when its index was written, and one job of minutes makes the very same shard again.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.tiles.drawn import DrawnTile
from midnight.tiles.shards.codec import decode
from midnight.tiles.shards.index import read_index
from midnight.tiles.shards.permutation import permute
from midnight.tiles.shards.shard import tar_path
from midnight.tiles.shards.tileset import drawn_settings

# Shards that are open at a time, in each process; and tiles asked for before the first is waited for.
MAX_OPEN = 128
AHEAD = 64


def open_source(path: Path, tiles: Tiles, shares: Mapping[str, float], seed: int) -> "ShardSource":
    """The tiles of a set, by its `index.arrow`.

    Args:
        path: of the index; the shards are beside it.
        tiles: the recipe's settings, which must be those that the set was drawn by.
        shares: cohorts and their shares, likewise.
        seed: of the run; with it each epoch has its own order.

    Raises:
        MidnightError: the index can't be read, or is of other settings.
    """
    return ShardSource(Path(path), drawn_settings(tiles, shares), seed)


class ShardSource:
    """A `TileSource` over a set of tiles drawn beforehand."""

    chunk = AHEAD

    def __init__(self, path: Path, settings: dict[str, Any], seed: int) -> None:
        """See `open_source`."""
        self._arguments = (path, settings, seed)
        self._index = read_index(path)
        if self._index.settings != settings:
            raise MidnightError(
                f"{path}: its tiles were drawn by other settings than this run's: "
                f"{_difference(self._index.settings, settings)}; let Snakemake draw those that the recipe names"
            )
        self._folder = path.parent
        self._seed = seed
        self._open: OrderedDict[int, int] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes map the index themselves; it is not sent to them."""
        return type(self), self._arguments

    def __len__(self) -> int:
        """Tiles of the set."""
        return len(self._index)

    @property
    def slides(self) -> Sequence[str]:
        """Ids of the slides that `DrawnTile.slide` counts."""
        return self._index.slides

    @property
    def cohorts(self) -> Sequence[str]:
        """Names of the cohorts that `DrawnTile.cohort` counts."""
        return self._index.cohorts

    @property
    def open_shards(self) -> Sequence[int]:
        """Numbers of the shards that are open, least recently used first."""
        return list(self._open)

    def tiles(self, indexes: Sequence[int]) -> list[DrawnTile]:
        """The tiles of these sample numbers: sample i is tile number i mod N of the order of epoch i div N.

        Raises:
            MidnightError: a shard is missing or damaged.
        """
        rows = self._index.rows(self.numbers(indexes))
        return [tile for first in range(0, len(rows), AHEAD) for tile in self._read(rows[first : first + AHEAD])]

    def numbers(self, indexes: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows of the index that the samples show, int64."""
        epochs, places = np.divmod(np.asarray(indexes, np.int64), len(self))
        found = np.empty_like(places)
        for epoch in np.unique(epochs):
            of_epoch = epochs == epoch
            found[of_epoch] = permute(places[of_epoch], len(self), self._seed, int(epoch))
        return found

    def _read(self, rows: list[dict[str, Any]]) -> list[DrawnTile]:
        """All are announced before the first is read, so that a slow disk or network serves them side by side."""
        files = [self._file(row["shard"]) for row in rows]
        if hasattr(os, "posix_fadvise"):
            for file, row in zip(files, rows, strict=True):
                os.posix_fadvise(file, row["offset"], row["bytes"], os.POSIX_FADV_WILLNEED)
        return [self._tile(file, row) for file, row in zip(files, rows, strict=True)]

    def _tile(self, file: int, row: dict[str, Any]) -> DrawnTile:
        try:
            data = os.pread(file, row["bytes"], row["offset"])
            if zlib.crc32(data) != row["crc"]:
                raise ValueError("its checksum is wrong" if len(data) == row["bytes"] else "it is cut short")
            pixels = decode(data)
        except (OSError, ValueError) as error:
            raise self._damaged(row["shard"], f"tile {row['sample']} can't be read: {error}") from error
        return DrawnTile(pixels, row["slide"], row["cohort"], row["mpp"], row["x"], row["y"])

    def _file(self, shard: int) -> int:
        if shard not in self._open:
            while len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            try:
                self._open[shard] = os.open(tar_path(self._folder, shard), os.O_RDONLY)
            except OSError as error:
                raise self._damaged(shard, error.strerror or str(error)) from error
        self._open.move_to_end(shard)
        return self._open[shard]

    def _damaged(self, shard: int, reason: str) -> MidnightError:
        path = tar_path(self._folder, shard)
        return MidnightError(
            f"{path}: {reason}; delete the file and run Snakemake with `--forcerun draw_tiles`, which draws what is "
            f"missing"
        )

    def close(self) -> None:
        """Close all shards."""
        while self._open:
            os.close(self._open.popitem()[1])


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Names of the settings that differ."""
    flat = [{**value["tiles"], "cohorts": value["cohorts"]} for value in (theirs, ours)]
    return ", ".join(sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name)))
