"""From the jobs' tables to the set's index, in which no tile comes twice.

Draws are independent, so the same place may come twice: by estimate a thousand times in 100 million tiles of 12,000
slides. The first of them stays; for each other one the next sample beyond the set's count takes its place, again if
its own place is new. So the set is the first `count` different ones of an endless row of independent draws,
whatever the shards and jobs. Replacements are in one more shard; the index alone says which members count.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from midnight.errors import MidnightError
from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.predrawn.index import write_index
from midnight.tiles.predrawn.sampling import draw_samples, open_drawer
from midnight.tiles.predrawn.tars import read_rows, write_tar
from midnight.tiles.predrawn.tileset import TileSet, drawn_settings

log = logging.getLogger(__name__)
Places = npt.NDArray[np.uint64]
# Draws in a row that may all be known places before the set is called too large for its slides.
PATIENCE = 2000


def join_parts(
    tile_set: TileSet, indexes: Mapping[str, Path], folder: Path, parts: Sequence[Path], output: Path
) -> None:
    """Join the tables of all jobs, replace what was drawn twice, and write the set's index.

    Args:
        tile_set: which tiles.
        indexes: the tissue index of each cohort.
        folder: of the set.
        parts: the jobs' tables.
        output: `index.arrow`.

    Raises:
        MidnightError: a table is missing, damaged or of other tiles; or the slides hold too few different tiles.
    """
    key = tile_set.key(indexes)
    rows = pa.concat_tables([read_rows(part, key) for part in parts]).sort_by("sample").combine_chunks()
    count = tile_set.predrawn.count
    if rows.num_rows != count or not np.array_equal(rows["sample"].to_numpy(), np.arange(count)):
        raise MidnightError(f"{folder}: the jobs' tables hold {rows.num_rows:,} tiles, not the {count:,} of the set")
    with open_drawer(tile_set, indexes) as drawer:
        slides, cohorts = [record.slide_id for record in drawer.sampler.slides], drawer.sampler.cohorts
        places = Numbering(drawer.sampler)
        known = places.of_rows(rows)
        twice = repeated(known)
        log.info("%d of %d tiles were drawn twice and are replaced", twice.sum(), count)
        if twice.any():
            fresh = _replacements(drawer, tile_set, places, known, int(twice.sum()))
            extra = write_tar(folder, tile_set.shards, fresh, tile_set.predrawn, slides, cohorts, key)
            kept = rows.filter(pa.array(~twice)).replace_schema_metadata(None)
            rows = pa.concat_tables([kept, extra.replace_schema_metadata(None)])
    write_index(rows, drawn_settings(tile_set.tiles, dict(tile_set.cohorts)), slides, cohorts, output)


class Numbering:
    """One number for each (slide, mpp, x, y); a slide that two cohorts share counts once."""

    def __init__(self, sampler: TileSampler) -> None:
        first: dict[str, int] = {}
        paths = (record.path for record in sampler.slides)
        self._slides = np.array([first.setdefault(path, len(first)) for path in paths], np.uint64)
        self._mpps = np.unique(np.array(sampler.tiles.mpps, np.float64))
        self._width = max(record.width for record in sampler.slides) + 1
        self._height = max(record.height for record in sampler.slides) + 1
        if len(first) * len(self._mpps) * self._width * self._height >= 2**64:
            raise MidnightError("too many slides, mpps and positions to number them with 64 bits")

    def of_rows(self, rows: pa.Table) -> Places:
        """The places of the rows of a table."""
        slide, mpp, x, y = (rows[name].to_numpy() for name in ("slide", "mpp", "x", "y"))
        found = self._slides[slide] * np.uint64(len(self._mpps)) + np.searchsorted(self._mpps, mpp).astype(np.uint64)
        found = found * np.uint64(self._width) + x.astype(np.uint64)
        return np.asarray(found * np.uint64(self._height) + y.astype(np.uint64))

    def of_tile(self, tile: DrawnTile) -> int:
        """The place of one tile."""
        values = {"slide": [tile.slide], "mpp": [tile.mpp], "x": [tile.x], "y": [tile.y]}
        return int(self.of_rows(pa.table(values))[0])


def repeated(places: Places) -> npt.NDArray[np.bool_]:
    """Which entries have stood before, bool of the same length."""
    order = np.argsort(places, kind="stable")
    again = places[order[1:]] == places[order[:-1]]
    found = np.zeros(len(places), np.bool_)
    found[order[1:][again]] = True
    return found


def _replacements(
    drawer: TileDrawer, tile_set: TileSet, places: Numbering, known: Places, missing: int
) -> Iterator[tuple[int, DrawnTile]]:
    """The next `missing` samples at new places."""
    known, new = np.sort(known), set[int]()
    count, last = tile_set.predrawn.count, tile_set.predrawn.count
    for sample, tile in draw_samples(drawer, range(count, 2**62)):
        place = places.of_tile(tile)
        found = np.searchsorted(known, np.uint64(place))
        if place not in new and (found == len(known) or known[found] != place):
            new.add(place)
            last = sample
            yield sample, tile
        if len(new) == missing:
            return
        if sample - last > PATIENCE:
            different = count - missing + len(new)
            raise MidnightError(
                f"the slides hold about {different:,} different tiles, not {count:,}; lower tiles.predrawn.count"
            )
