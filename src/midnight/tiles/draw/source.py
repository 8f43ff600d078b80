"""Where a stream's tiles come from: the slides themselves, or a set drawn beforehand (`midnight.tiles.predrawn`)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from midnight.config.recipe import Tiles
from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.draw.drawn import DrawnTile
from midnight.tiles.draw.lost_slides import Quarantine
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.read.reader import SlideReader
from midnight.tissue.index import training_slides

__all__ = ["DrawnTile", "OnlineSource", "TileSource"]


class TileSource(Protocol):
    """Tiles by number."""

    @property
    def chunk(self) -> int:
        """Tiles that are best asked for at once."""
        ...

    @property
    def slides(self) -> Sequence[str]:
        """Ids of the slides that `DrawnTile.slide` counts."""
        ...

    @property
    def cohorts(self) -> Sequence[str]:
        """Names of the cohorts that `DrawnTile.cohort` counts."""
        ...

    def tiles(self, indexes: Sequence[int]) -> list[DrawnTile]:
        """The tiles of these global sample numbers, each a function of (seed, number) alone."""
        ...

    def close(self) -> None:
        """Free all handles; the next call opens what it needs."""
        ...


class OnlineSource:
    """Independent draws from slides. It can be sent to another process, which opens the slides for itself."""

    chunk = 2

    def __init__(
        self, cohorts: Mapping[str, tuple[Path, float]], tiles: Tiles, seed: int, quarantine: Path | None = None
    ) -> None:
        """Read the tissue indexes; slides are opened only when tiles are drawn.

        Args:
            cohorts: name: (tissue index, share of the tiles); one without a share is not read.
            tiles: which tiles.
            seed: of everything random.
            quarantine: the file in which slides that can't be read are recorded (see `Quarantine`).

        Raises:
            MidnightError: an index can't be read or has no usable slide.
        """
        records = {name: (training_slides(Path(path)), share) for name, (path, share) in cohorts.items() if share > 0}
        self._sampler = TileSampler(records, tiles)
        self._seed = seed
        self._quarantine = Quarantine(quarantine)
        self._drawer: TileDrawer | None = None
        self._process = 0

    @property
    def slides(self) -> Sequence[str]:
        """Ids of the slides that `DrawnTile.slide` counts."""
        return [record.slide_id for record in self._sampler.slides]

    @property
    def cohorts(self) -> Sequence[str]:
        """Names of the cohorts that `DrawnTile.cohort` counts."""
        return self._sampler.cohorts

    @property
    def drawer(self) -> TileDrawer:
        """This process's drawer, made when it is first needed."""
        if self._drawer is None or self._process != os.getpid():
            # Not the parent's: a fork shares its files' positions.
            self._process = os.getpid()
            reader = SlideReader(self._sampler.tiles.max_open_slides, self._sampler.patience)
            self._drawer = TileDrawer(self._sampler, reader, self._seed, self._quarantine)
        return self._drawer

    def tiles(self, indexes: Sequence[int]) -> list[DrawnTile]:
        """The tiles of these sample numbers.

        Raises:
            MidnightError: no tile of 64 slides drawn one after the other was accepted.
        """
        return [self.drawer.draw(index) for index in indexes]

    def close(self) -> None:
        """Close all slides."""
        if self._drawer is not None:
            self._drawer.close()
            self._drawer = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_drawer": None}
