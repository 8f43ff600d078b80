"""The endless stream of augmented tiles that training reads.

Sample i is a function of (seed, i) alone: its slide, position, stains and crops come from counter-based generators
keyed by both. So the data do not depend on the number of workers, and a run that resumes at step k starts there,
with nothing replayed and nothing skipped through.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from midnight.config.recipe import Crops, Tiles
from midnight.errors import MidnightError
from midnight.tiles.crops import multi_crop
from midnight.tiles.hsv_filter import passes
from midnight.tiles.reader import SlideReader, Tile
from midnight.tiles.rng import Purpose, generator
from midnight.tiles.sampler import Choice, TileSampler
from midnight.tiles.stain import augment
from midnight.tissue.index import TissueRecord, training_slides
from midnight.tissue.resolution import SlideError

log = logging.getLogger(__name__)

# Positions tried on one slide at one mpp before another slide is drawn, and slides tried before giving up.
POSITION_TRIES = 16
SLIDE_TRIES = 64


@dataclass(frozen=True)
class DrawnTile:
    """An accepted tile, before augmentation: RGB uint8 [size, size, 3], where it is from; x, y in level-0 px."""

    pixels: Tile
    slide: int
    cohort: int
    mpp: float
    x: int
    y: int


class TileDrawer:
    """Draws accepted tiles: the sampler's positions, read and passed through the HSV filter.

    After a rejected tile the position is drawn anew on the same slide at the same mpp, up to 16 times, so that
    slides and mpps keep the shares that the sampler gives them even where the filter rejects much; then another
    slide is drawn. A slide that can't be read is logged once and another is drawn; it is not remembered, since
    what sample i is would then depend on what the worker saw before.
    """

    def __init__(self, sampler: TileSampler, reader: SlideReader) -> None:
        self.sampler = sampler
        self._reader = reader
        self._complained: set[int] = set()

    def draw(self, rng: np.random.Generator) -> DrawnTile:
        """One accepted tile.

        Raises:
            MidnightError: no tile of 64 slides was accepted.
        """
        for _ in range(SLIDE_TRIES):
            choice = self.sampler.draw_slide(rng)
            try:
                found = self._on_slide(rng, choice)
            except SlideError as error:
                self._complain(choice.slide, error)
                continue
            if found is not None:
                return found
        raise MidnightError(self._nothing_found())

    def _on_slide(self, rng: np.random.Generator, choice: Choice) -> DrawnTile | None:
        record, window = self.sampler.slides[choice.slide], choice.window
        for _ in range(POSITION_TRIES):
            position = self.sampler.draw_position(rng, choice)
            if position is None:
                return None
            pixels = self._reader.read(record, window, *position)
            if passes(pixels, self.sampler.tiles.hsv_filter):
                return DrawnTile(pixels, choice.slide, choice.cohort, window.mpp, *window.origin(*position))
        return None

    def _complain(self, slide: int, error: SlideError) -> None:
        if slide not in self._complained:
            self._complained.add(slide)
            log.warning("slide %s is left out: %s", self.sampler.slides[slide].slide_id, error)

    def _nothing_found(self) -> str:
        bad = f"; {len(self._complained)} of them can't be read (see the log)" if self._complained else ""
        return (
            f"no tile was accepted on {SLIDE_TRIES} slides drawn one after the other, up to {POSITION_TRIES} positions "
            f"each{bad}; check the tissue page, or lower tiles.foreground or tiles.hsv_filter.min_fraction"
        )


class TileStream(IterableDataset[dict[str, Any]]):
    """Multi-crop views of tiles, without end. Use with `DataLoader(stream, batch_size=batch_size, num_workers=…)`.

    Batch k of rank r holds the samples (k · world + r) · batch_size + j. Worker w of W makes the batches w, w + W, …
    after `start_step`; the loader takes them in turn, so their order is the same with any number of workers.

    Each sample is a dict:
        global_crops: uint8 tensor [2, 3, G, G], RGB
        local_crops: uint8 tensor [L, 3, S, S], RGB
        slide: int, number in `slides`
        cohort: int, number in `cohorts`
        mpp: float, µm/px
        x, y: int, upper left corner in level-0 px
        index: int, global number of the sample
    """

    def __init__(
        self,
        cohorts: Mapping[str, tuple[Path, float]],
        tiles: Tiles,
        crops: Crops,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
    ) -> None:
        """Read the tissue indexes; slides are opened only when tiles are drawn.

        Args:
            cohorts: name: (tissue index, share of the tiles).
            tiles: which tiles.
            crops: which views of them.
            seed: of everything random.
            batch_size: tiles per batch of this rank; the DataLoader's must be the same.
            rank: this process among `world`.
            world: processes that train together.
            start_step: the first batch.

        Raises:
            MidnightError: an index can't be read or has no usable slide.
        """
        records = {name: (training_slides(Path(path)), share) for name, (path, share) in cohorts.items() if share > 0}
        self._sampler = TileSampler(records, tiles)
        self._crops = crops
        self._seed = seed
        self._batch_size = batch_size
        self._rank = rank
        self._world = world
        self.start_step = start_step

    @property
    def slides(self) -> list[TissueRecord]:
        """The slides that `slide` counts."""
        return self._sampler.slides

    @property
    def cohorts(self) -> list[str]:
        """The cohorts that `cohort` counts."""
        return self._sampler.cohorts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The samples of the batches from `start_step` on; in a DataLoader's worker, of this worker's batches."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            cv2.setNumThreads(0)
        with SlideReader(self._sampler.tiles.max_open_slides) as reader:
            drawer = TileDrawer(self._sampler, reader)
            for step in itertools.count(self.start_step + worker, workers):
                first = (step * self._world + self._rank) * self._batch_size
                for index in range(first, first + self._batch_size):
                    yield self._sample(drawer, index)

    def _sample(self, drawer: TileDrawer, index: int) -> dict[str, Any]:
        tile = drawer.draw(generator(self._seed, index, Purpose.PLACE))
        pixels = augment(tile.pixels, generator(self._seed, index, Purpose.STAIN), self._sampler.tiles.hed_sigma)
        whole, local = multi_crop(pixels, self._crops, generator(self._seed, index, Purpose.CROPS))
        return {
            "global_crops": torch.from_numpy(whole),
            "local_crops": torch.from_numpy(local),
            "slide": tile.slide,
            "cohort": tile.cohort,
            "mpp": tile.mpp,
            "x": tile.x,
            "y": tile.y,
            "index": index,
        }
