"""Training's view of a set: sample i of a run is a tile of it, each tile once per epoch, in a new order each time.

**A damaged shard stops the run**, other than a damaged slide online, which is left out: the set is part of what the
run is, it was whole when its index was written, and one job of minutes makes the very same shard again. Faults that
pass by themselves are waited for (see `midnight.outages`).
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from midnight.config.recipe import Tiles
from midnight.errors import MidnightError
from midnight.outages import Patience
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.predrawn.codec import decode
from midnight.tiles.predrawn.index import read_index
from midnight.tiles.predrawn.permutation import permute
from midnight.tiles.predrawn.tars import tar_path
from midnight.tiles.predrawn.tileset import drawn_settings

# Shards that are open at a time, in each process; and tiles asked for before the first is waited for.
MAX_OPEN = 128
AHEAD = 64

Found = TypeVar("Found")


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
    return ShardSource(Path(path), drawn_settings(tiles, shares), seed, tiles.patience)


class ShardSource:
    """A `TileSource` over a set of tiles drawn beforehand."""

    chunk = AHEAD

    def __init__(self, path: Path, settings: dict[str, Any], seed: int, patience: float = 0.0) -> None:
        """See `open_source`; `patience` are the seconds in all that a process waits for shards that are away."""
        self._arguments = (path, settings, seed, patience)
        self._patience = Patience(patience)
        self._allowed = MAX_OPEN
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
        for row in rows:
            self._insist(row["shard"], partial(self._announce, row))
        return [self._tile(row) for row in rows]

    def _announce(self, row: dict[str, Any]) -> None:
        file = self._opened(row["shard"])
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, row["offset"], row["bytes"], os.POSIX_FADV_WILLNEED)

    def _tile(self, row: dict[str, Any]) -> DrawnTile:
        data = self._insist(row["shard"], partial(self._bytes, row))
        try:
            if zlib.crc32(data) != row["crc"]:
                raise ValueError("its checksum is wrong" if len(data) == row["bytes"] else "it is cut short")
            pixels = decode(data)
        except ValueError as error:
            raise self._damaged(row["shard"], f"tile {row['sample']} can't be read: {error}") from error
        return DrawnTile(pixels, row["slide"], row["cohort"], row["mpp"], row["x"], row["y"])

    def _bytes(self, row: dict[str, Any]) -> bytes:
        try:
            return os.pread(self._opened(row["shard"]), row["bytes"], row["offset"])
        except OSError:
            self._close(row["shard"])  # its handle may be what is stale
            raise

    def _opened(self, shard: int) -> int:
        if shard not in self._open:
            while len(self._open) >= min(MAX_OPEN, self._allowed):
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(tar_path(self._folder, shard), os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _insist(self, shard: int, action: Callable[[], Found]) -> Found:
        path = tar_path(self._folder, shard)
        try:
            return self._patience.insist(action, str(path), self._free_handles)
        except FileNotFoundError as error:
            raise self._damaged(shard, error.strerror or str(error)) from error
        except OSError as error:
            raise MidnightError(
                f"{path}: {error.strerror or error}; see that its folder can be read, and run again"
            ) from error

    def _free_handles(self) -> bool:
        """Close half of the open shards, and keep no more open from now on; False if none is open."""
        closed = list(self._open)[: -(-len(self._open) // 2)]
        for shard in closed:
            self._close(shard)
        if closed:
            self._allowed = max(1, len(self._open))
        return bool(closed)

    def _close(self, shard: int) -> None:
        if (file := self._open.pop(shard, None)) is not None:
            os.close(file)

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
