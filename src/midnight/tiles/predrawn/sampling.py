"""The draws of a set: tile i is what the online stream of the set's seed would draw as sample i."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.lost_slides import FILE, Quarantine
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.predrawn.tileset import TileSet
from midnight.tiles.read.reader import SlideReader
from midnight.tissue.index import training_slides


@contextlib.contextmanager
def open_drawer(tile_set: TileSet, indexes: Mapping[str, Path], folder: Path | None = None) -> Iterator[TileDrawer]:
    """The drawer that online training with these settings has; its slides are closed at the end.

    Args:
        tile_set: which tiles.
        indexes: the tissue index of each cohort.
        folder: of the set: slides that can't be read are recorded in it.

    Raises:
        MidnightError: an index can't be read or has no usable slide.
    """
    cohorts = {name: (training_slides(indexes[name]), share) for name, share in tile_set.cohorts}
    sampler = TileSampler(cohorts, tile_set.tiles)
    reader = SlideReader(tile_set.tiles.max_open_slides, sampler.patience)
    drawer = TileDrawer(sampler, reader, tile_set.predrawn.seed, Quarantine(folder / FILE if folder else None))
    with contextlib.closing(drawer):
        yield drawer


def draw_samples(drawer: TileDrawer, samples: Iterable[int]) -> Iterator[tuple[int, DrawnTile]]:
    """The tiles of these sample numbers, each with its number."""
    for sample in samples:
        yield sample, drawer.draw(sample)
